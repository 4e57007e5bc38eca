"""What every Python stack has in common: where its Redis is, its key, and the content of a session.

The stacks in Go and JavaScript say the same in their own words.
"""

from __future__ import annotations

import gc
import os
from typing import Any

REDIS_URL = os.environ["REDIS_URL"]
SECRET_KEY = os.environ["SECRET_KEY"]
WEEK_S = 7 * 24 * 3600
"""How long a session lasts in every stack that can be told."""


SETTINGS: dict[str, Any] = {"theme": "dark", "visits": 0}
"""What a login puts into the session besides who it is."""


def content(user: str) -> dict[str, Any]:
    """Give all that a login puts into the session."""
    return {"user": user, "authenticated": True, **SETTINGS}


def be_ready() -> None:
    """Set the garbage collector as docs/redis.md recommends for production. Every Python stack ends with this.

    While requests wait for Redis, what they hold makes it believe that garbage piles up, and look through everything
    again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
