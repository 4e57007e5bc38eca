"""Plain writes without Coatcheck, to compare what a failover loses of them."""

from __future__ import annotations

import threading
from typing import Self

import redis

_PAUSE_S = 0.002


class RawWrites:
    """Writes one key after another from entry to `stop`, and knows which were acknowledged."""

    def __init__(self, client: redis.Redis | redis.RedisCluster) -> None:
        self._client = client
        self._acknowledged: list[str] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._write, name="raw writes")

    def lost(self) -> int:
        """Stop writing; give how many acknowledged writes the server no longer has."""
        self._stop()
        return sum(self._client.get(key) is None for key in self._acknowledged)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _write(self) -> None:
        number = 0
        while not self._is_over.wait(_PAUSE_S):
            number += 1
            try:
                self._client.set(f"raw:{number}", number)
            except redis.RedisError:
                continue
            self._acknowledged.append(f"raw:{number}")
