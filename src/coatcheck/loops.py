"""Which event loop is running, at no system call."""

from __future__ import annotations

import asyncio
import os
import sys
from threading import get_ident
from typing import Final

if sys.version_info >= (3, 12):
    running_loop = asyncio.get_running_loop
else:
    # There, it asks the operating system for the process's number each time, to notice a fork. Where system calls are
    # slow, as in many sandboxes, that was a tenth of a request's time.

    _last_seen: Final[dict[int, asyncio.AbstractEventLoop]] = {}
    """By thread: a thread runs one loop at a time."""

    os.register_at_fork(after_in_child=_last_seen.clear)

    def running_loop() -> asyncio.AbstractEventLoop:
        """Give the event loop that runs in this thread. Raises RuntimeError when none does.

        A loop that has run in one thread must not be run in another one while the first one runs another loop; nobody
        does.
        """
        thread = get_ident()
        loop = _last_seen.get(thread)
        if loop is None or not loop.is_running():
            loop = _last_seen[thread] = asyncio.get_running_loop()
        return loop
