"""The two ways to run a rule of `lifecycle`: with `await` and without."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

from coatcheck.keeper import Steps
from coatcheck.operations import Pause
from coatcheck.stores.protocol import AsyncStore, SyncStore

T = TypeVar("T")


async def drive(steps: Steps[T], store: AsyncStore) -> T:
    """Run `steps`, awaiting each operation."""
    result: Any = None
    while True:
        try:
            operation = steps.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        if isinstance(operation, Pause):
            await asyncio.sleep(operation.seconds)
            result = None
        else:
            result = await operation.perform(store)


def drive_sync(steps: Steps[T], store: SyncStore) -> T:
    """Run `steps`, calling each operation."""
    result: Any = None
    while True:
        try:
            operation = steps.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        if isinstance(operation, Pause):
            time.sleep(operation.seconds)
        result = operation.perform(store)
