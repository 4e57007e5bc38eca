"""What happens to sessions, for applications that want to know: handlers to register, and one log line each.

The logger is `coatcheck`; each line carries `event`, `handle` and `user_id` also as attributes of its record. Events of
clients that present forged or stale cookies are logged at DEBUG, so that nobody can fill a log.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Final, Literal, NamedTuple, TypeAlias

from coatcheck.errors import ConfigurationError

logger: Final = logging.getLogger("coatcheck")

Kind: TypeAlias = Literal["created", "login", "logout", "renewed", "revoked", "refused", "reused", "adopted"]


class Event(NamedTuple):
    """Something that happened to a session."""

    kind: Kind
    handle: str
    """The session's handle; empty for a cookie that leads nowhere."""
    user_id: str | None = None
    reason: str = ""
    previous_handle: str = ""
    """The handle that the session had before it was renewed."""

    @property
    def news(self) -> tuple[str, ...]:
        """The handles of which those who wait for a session's end have to hear."""
        if self.kind in ("logout", "revoked"):
            return (self.handle,)
        return (self.previous_handle,) if self.previous_handle else ()


Handler: TypeAlias = Callable[[Event], None] | Callable[[Event], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Handlers for events; each is called with an `Event`. What a handler raises is logged and goes no further.

    With `Sessions` a handler may be async, and is awaited; with `SyncSessions` it may not.

    Args:
        on_created: a session was stored for the first time.
        on_login: somebody logged in.
        on_logout: a session was ended by its own client.
        on_renewed: a session got a new ID.
        on_revoked: a session was ended from elsewhere.
        on_refused: a cookie was not accepted; `reason` says why.
        on_reused: an old ID was used after its grace: a sign that it was stolen.
        on_adopted: a session of another system became one of ours; `reason` names the system.
    """

    on_created: Handler | None = None
    on_login: Handler | None = None
    on_logout: Handler | None = None
    on_renewed: Handler | None = None
    on_revoked: Handler | None = None
    on_refused: Handler | None = None
    on_reused: Handler | None = None
    on_adopted: Handler | None = None

    def check_sync(self) -> None:
        """Raise ConfigurationError when a handler would have to be awaited."""
        for each in fields(self):
            if inspect.iscoroutinefunction(getattr(self, each.name)):
                msg = (
                    f"events: {each.name} is async, which only Sessions can await; SyncSessions needs a plain function"
                )
                raise ConfigurationError(msg)

    def handler(self, event: Event) -> Handler | None:
        """Give the handler of an event."""
        handler: Handler | None = getattr(self, f"on_{event.kind}")
        return handler


def log(event: Event) -> None:
    """Write an event's line."""
    level = logging.DEBUG if event.kind == "refused" else logging.WARNING if event.kind == "reused" else logging.INFO
    logger.log(
        level,
        "session event=%s handle=%s user=%r%s",
        event.kind,
        event.handle or "-",
        event.user_id,
        f" reason={event.reason}" if event.reason else "",
        extra={"event": event.kind, "handle": event.handle, "user_id": event.user_id},
    )


def log_failure(event: Event, error: Exception) -> None:
    """Report a handler that raised."""
    logger.error("The handler for %s events failed; the request goes on", event.kind, exc_info=error)
