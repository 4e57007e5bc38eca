"""The two ways to run steps, such as the rules of `lifecycle`: with `await` and without."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Any, Protocol, TypeVar

from coatcheck.operations import Pause

T = TypeVar("T")


class Step(Protocol):
    """Something to do, such as an `Operation` on a store."""

    def perform(self, store: Any, /) -> Any:
        """Do it. Gives the result, or something to await for it."""
        ...


async def drive(steps: Generator[Step, Any, T], store: Any) -> T:
    """Run `steps`, awaiting each one."""
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


def drive_sync(steps: Generator[Step, Any, T], store: Any) -> T:
    """Run `steps`, calling each one."""
    result: Any = None
    while True:
        try:
            operation = steps.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        if isinstance(operation, Pause):
            time.sleep(operation.seconds)
        result = operation.perform(store)
