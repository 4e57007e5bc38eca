"""The folder `.coatcheck`, where the demo keeps what has to survive a restart: its secret key and its SQLite file."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from coatcheck.config import MIN_SECRET_KEY_BYTES
from coatcheck.errors import ConfigurationError

FOLDER_NAME: Final = ".coatcheck"


class StateFolder:
    """The folder in `parent`. Made when it is first needed, for nobody but its owner."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._folder = parent / FOLDER_NAME

    def sqlite_url(self) -> str:
        """Give the URL of the SQLite store."""
        with self._locked():
            return f"sqlite:///{quote(str(self._folder.absolute() / 'sessions.sqlite3'))}"

    def secret_key(self) -> str:
        """Give the secret key, made now if there is none yet. Demos that start at the same time get the same one.

        Raises:
            ConfigurationError: the folder or the file can't be used.
        """
        path = self._folder / "secret"
        with self._locked():
            self._refuse_link(path)
            if not path.exists():
                _write_atomically(path, secrets.token_urlsafe(MIN_SECRET_KEY_BYTES) + "\n")
            path.chmod(0o600)
            key = path.read_text("utf-8", "replace").strip()
        if len(key.encode()) < MIN_SECRET_KEY_BYTES:
            msg = (
                f"{FOLDER_NAME}/secret holds no key of {MIN_SECRET_KEY_BYTES} bytes or more. Delete the file, "
                "and a new key is made; everybody has to log in again then"
            )
            raise ConfigurationError(msg)
        return key

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Open the folder, and hold it against other processes."""
        try:
            self._refuse_link(self._folder)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise self._unusable(error.strerror) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_uid != os.geteuid():
                reason = "it belongs to somebody else"
                raise self._unusable(reason)
            os.fchmod(descriptor, 0o700)
            ignore = self._folder / ".gitignore"
            if not ignore.exists():
                _write_atomically(ignore, "*\n")
            yield
        except OSError as error:
            raise self._unusable(error.strerror) from error
        finally:
            os.close(descriptor)

    def _refuse_link(self, path: Path) -> None:
        """Refuse what somebody else may have put here, to have another folder or file of ours changed or read."""
        if path.is_symlink():
            reason = f"{path.name} is a symbolic link. Delete the link, and what is needed is made"
            raise self._unusable(reason)

    def _unusable(self, reason: str | None) -> ConfigurationError:
        return ConfigurationError(f"The folder {FOLDER_NAME} in {str(self._parent)!r} can't be used: {reason}")


def _write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, even after a power failure."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
