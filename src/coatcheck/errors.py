"""Every exception that Coatcheck raises, in one tree.

All of them derive from `CoatcheckError`. Messages name what happened, with which value unless it is a secret,
and what to do about it. No session ID, token or secret key is ever part of a message.
"""

from __future__ import annotations


class CoatcheckError(Exception):
    """The root of all errors raised by Coatcheck."""


class ConfigurationError(CoatcheckError, ValueError):
    """A setting can't work. Raised when the object that takes the setting is built, never by a request."""


class MissingExtra(ConfigurationError, ImportError):
    """An optional dependency is not installed. The message names the extra that brings it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs packages that are not installed. Install them with: pip install 'coatcheck[{extra}]'"
        )


class SessionError(CoatcheckError):
    """The application used a session in a way that can't be honoured."""


class SessionNotLoaded(SessionError, RuntimeError):
    """A lazily loaded session was used from async code before `await session.load()`."""

    def __init__(self) -> None:
        super().__init__(
            "This session has not been loaded yet: with load='lazy', call `await session.load()` before using it"
        )


class SessionNotFound(SessionError, LookupError):
    """A token does not lead to a live session: it is forged, stale or the session has ended."""


class SessionClosed(SessionError, RuntimeError):
    """A session was changed after its request, or the block of `open()`, when nothing would store the change."""

    def __init__(self) -> None:
        super().__init__(
            "The request, or the block of open(), is over, so this change would never be stored. Make it before that; "
            "what goes on after a request opens the session for itself: sessions.open(token)"
        )


class ResponseStarted(SessionError, RuntimeError):
    """A change needs a cookie, and the headers of the response have already left."""


class UnsupportedKey(SessionError, TypeError):
    """A session's key is not a string that can be stored."""


class UnsupportedValue(SessionError, TypeError):
    """A value can't be stored without loss. The message names the key and the type."""


class RecordTooLarge(SessionError, ValueError):
    """A session would exceed `max_record_bytes` or `max_keys`. What was stored before is untouched."""


class TooManyConflicts(SessionError, RuntimeError):
    """Other requests changed the same session again and again while this one tried to commit."""


class LoginRequired(SessionError, PermissionError):
    """Nobody is logged in."""

    code = "login_required"

    def __init__(self, message: str = "Log in first") -> None:
        super().__init__(message)


class RecentLoginRequired(LoginRequired):
    """The login is too long ago for what was asked for."""

    code = "recent_login_required"

    def __init__(self) -> None:
        super().__init__("Log in again: it has been too long since the last time")


class CsrfRefused(SessionError, PermissionError):
    """A request was not sent by a page of this site, as far as can be told. See `coatcheck.csrf`."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code
        """csrf_origin, csrf_token_missing or csrf_token_wrong."""


class TooManySessions(SessionError, RuntimeError):
    """A user has as many sessions as `max_sessions_per_user` allows, and `when_full` is "refuse"."""


class UndecodableValue(SessionError, ValueError):
    """One value of a stored session can't be decoded here, for example because its time zone is unknown."""


class UnfitValue(SessionError, TypeError):
    """A value does not fit the type that a `SessionSchema` declares for it.

    Raised for a value that was assigned, and with `when_unfit="raise"` for one that was found in the store.
    The message never holds the value.

    Attributes:
        key: the session's key.
        expected: the declared type.
        found: what was there in its place, by its type.
    """

    def __init__(self, message: str, *, key: str, expected: str, found: str) -> None:
        super().__init__(message)
        self.key = key
        self.expected = expected
        self.found = found


class RecordError(CoatcheckError):
    """What the store returned is not a record that can be used. It is reported and left as it is."""


class UndecodableRecord(RecordError, ValueError):
    """The stored bytes are not a record, or a record that is damaged or of an unknown format."""


class ForeignRecord(RecordError, ValueError):
    """The store returned a record that belongs to another session. It is refused."""


class StoreError(CoatcheckError):
    """The store could not do what it was asked to do."""


class StoreUnavailable(StoreError, ConnectionError):
    """The store can't be reached or can't answer now. Transports turn this into 503 with Retry-After."""


class StoreIncapable(StoreError, NotImplementedError):
    """The store can't do this at all, because of what it is. Trying again is of no use."""


class StoreFull(StoreUnavailable):
    """The store has no room for more. What it holds is intact."""


class StoreCorrupted(StoreUnavailable):
    """The store's file is damaged or not what it should be. It is left as it is."""


class InvalidCookie(CoatcheckError, ValueError):
    """A cookie of another system's format was refused."""


class InvalidGob(CoatcheckError, ValueError):
    """Bytes are not a gob stream that can be read, or a value can't be written as one."""


class UnreadableSession(CoatcheckError, ValueError):
    """A session of another system can't be read, or not safely. It is reported and left as it is."""
