"""The contract of stores, for Redis stores whose servers are started by fixtures."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from servers import Server

from coatcheck.stores.redis.connections import RedisOptions
from coatcheck.testing import StoreContract

# So that a machine that is busy with other things fails no test.
PATIENT: RedisOptions = {"connect_timeout": timedelta(seconds=30), "command_timeout": timedelta(seconds=30)}


class OnDeployment(StoreContract):
    """Begins when a fixture calls `use`. `make_store` may make a `client` of its own for the store."""

    def setup_method(self) -> None:
        """Wait for the servers."""

    def use(self, *primaries: Server) -> None:
        """Begin with these servers, emptied."""
        self._primaries = primaries
        self.client: Any = None
        for primary in primaries:
            primary.flush()
        super().setup_method()

    def teardown_method(self) -> None:
        self._wait_for(self.store.close())
        if self.client is not None:
            assert self._wait_for(self.client.ping()), "a client that was given stays open"
            self._wait_for(getattr(self.client, "aclose", self.client.close)())
        self._runner.close()

    def advance(self, by: timedelta) -> None:
        for primary in self._primaries:
            primary.advance(by)
