"""Server-side sessions for Python web applications.

The browser keeps a signed claim ticket, the server keeps the data in Redis, Valkey or SQLite.
"""

from coatcheck.config import CookieConfig
from coatcheck.errors import CoatcheckError
from coatcheck.events import Event, Events
from coatcheck.session import Flash
from coatcheck.session_info import SessionInfo
from coatcheck.sessions import Session, Sessions, SyncSession, SyncSessions

__version__ = "0.1.0"

__all__ = [
    "CoatcheckError",
    "CookieConfig",
    "Event",
    "Events",
    "Flash",
    "Session",
    "SessionInfo",
    "Sessions",
    "SyncSession",
    "SyncSessions",
]
