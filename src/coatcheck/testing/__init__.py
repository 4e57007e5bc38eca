"""For tests of stores and of applications: a contract that every store keeps, and a clock to move."""

from coatcheck.testing.clock import ManualClock
from coatcheck.testing.store_contract import StoreContract

__all__ = ["ManualClock", "StoreContract"]
