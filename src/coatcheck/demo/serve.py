"""Running the demo: chooses store and secret keys, opens the port, and serves until it is told to stop."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn
from urllib.parse import urlsplit

import uvicorn

from coatcheck.config import MIN_SECRET_KEY_BYTES, CookieConfig
from coatcheck.demo.app import create_app
from coatcheck.demo.embedded_valkey import embedded_valkey
from coatcheck.demo.observed import observed
from coatcheck.demo.state_folder import FOLDER_NAME, StateFolder
from coatcheck.errors import ConfigurationError
from coatcheck.sessions import Sessions
from coatcheck.stores.redis_address import parse, place_of
from coatcheck.stores.url import store_from_url

KEYS_VARIABLE: Final = "COATCHECK_SECRET_KEYS"

EMBEDDED: Final = ("valkey+embedded:", "valkey+embedded://")

_GRACE_S: Final = 5
"""How long requests under way have to finish when the demo is told to stop."""

_MAX_WEBSOCKET_BYTES: Final = 1_024
"""Pages only listen."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What there is to say when the demo is ready."""

    url: str
    is_public: bool
    """Whether other machines can reach it."""
    store: str
    cookie: str


def serve(
    host: str,
    port: int,
    store: str | None,
    *,
    environment: Mapping[str, str],
    announce: Callable[[Announcement], None],
) -> None:
    """Serve the demo until SIGTERM or SIGINT.

    Args:
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        store: the store's URL, `valkey+embedded:`, or None for SQLite in the folder `.coatcheck`.
        environment: may name the secret keys, see `KEYS_VARIABLE`.
        announce: is told where the demo is, once it takes requests.

    Raises:
        ConfigurationError: a setting can't work, or the port is taken.
        StoreUnavailable: the store does not answer.
    """
    _exit_on_signals()
    folder = StateFolder(Path.cwd())
    with _listening(host, port) as listener, _store_url(store, folder) as store_url:
        sessions = Sessions(
            observed(store_from_url(store_url, time.time)),
            secret_keys=_secret_keys(store, folder, environment),
            cookie=CookieConfig(secure=False),  # the demo has no certificate, so it can't ask for https
        )
        asyncio.run(_check(sessions))
        announce(_announcement(listener, store, store_url, sessions))
        config = uvicorn.Config(
            create_app(sessions),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE_S,
            ws_max_size=_MAX_WEBSOCKET_BYTES,
            ws_per_message_deflate=False,  # its buffers would be most of what an open page costs
        )
        uvicorn.Server(config).run([listener])


# --- signals ----------------------------------------------------------------------------------------------------------


def _exit_on_signals() -> None:
    """Let SIGTERM end the process by an exception, so that whatever was started is ended too.

    While uvicorn runs, it handles SIGTERM and SIGINT itself: it ends the requests under way and raises the signal
    again. A terminal that is closed (SIGHUP) means the same.
    """
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGHUP, _terminate)


def _exit(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)


# --- the port ---------------------------------------------------------------------------------------------------------


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Open the port before anything else is done. Requests wait from then on, and none is refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        msg = f"The demo can't listen on {host} port {port}: {error.strerror or error}. Choose another one with --port"
        raise ConfigurationError(msg) from error
    with listener:
        yield listener


def _announcement(listener: socket.socket, store: str | None, store_url: str, sessions: Sessions) -> Announcement:
    address, port = listener.getsockname()[:2]
    is_public = not (address.startswith("127.") or address == "::1")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 (it is what was asked for)
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return Announcement(url, is_public, _described(store, store_url), sessions.config.cookie.full_name)


# --- store and keys ---------------------------------------------------------------------------------------------------


@contextmanager
def _store_url(store: str | None, folder: StateFolder) -> Iterator[str]:
    """Give the URL of the store that was asked for, and see to it that it is there."""
    if store is None:
        yield folder.sqlite_url()
    elif store in EMBEDDED:
        with embedded_valkey() as url:
            yield url
    else:
        yield store


def _secret_keys(store: str | None, folder: StateFolder, environment: Mapping[str, str]) -> list[str]:
    """Give the keys that the environment names, or one that lives as long as the store does."""
    if KEYS_VARIABLE in environment:
        keys = [key.strip() for key in environment[KEYS_VARIABLE].split(",") if key.strip()]
        if not keys:
            msg = f"{KEYS_VARIABLE} is set, but holds no key; `coatcheck keygen` makes one"
            raise ConfigurationError(msg)
        return keys
    if store in EMBEDDED or (store is not None and store.startswith("memory:")):
        return [secrets.token_urlsafe(MIN_SECRET_KEY_BYTES)]
    return [folder.secret_key()]


async def _check(sessions: Sessions) -> None:
    """Ask the store for something, so that one that can't be used is known now and not at the first request."""
    try:
        await sessions.store.load("coatcheck-demo-check")
    finally:
        await sessions.close()


def _described(store: str | None, store_url: str) -> str:
    """Say where the sessions are kept, without any password."""
    if store is None:
        return f"SQLite in {FOLDER_NAME}; a restart leaves everybody logged in"
    if store in EMBEDDED:
        return f"private Valkey at {urlsplit(store_url).path}, ends with the demo"
    parts = urlsplit(store_url)
    if parts.scheme == "memory":
        return "memory, ends with the demo"
    if parts.scheme == "sqlite":
        return f"SQLite, {parts.path[1:]}"
    return f"{parts.scheme}, {place_of(parse(store_url))}"
