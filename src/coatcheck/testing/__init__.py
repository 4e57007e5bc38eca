"""For tests of applications and of stores: logged-in clients, a clock to move, stores that fail, and a contract.

`coatcheck.testing.fixtures` has fixtures for pytest, which only that module and the store contract need.
"""

from coatcheck.testing.clock import ManualClock
from coatcheck.testing.failing_store import FailingStore, SyncFailingStore
from coatcheck.testing.login import alogged_in, logged_in
from coatcheck.testing.store_contract import StoreContract

__all__ = ["FailingStore", "ManualClock", "StoreContract", "SyncFailingStore", "alogged_in", "logged_in"]
