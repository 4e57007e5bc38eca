"""Stores that fail on demand, around any store: for tests of what an application does while its store is down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import CoroutineType
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, get_args

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore
from coatcheck.stores.protocol import AsyncStore, SyncStore, WriteResult

StoreT = TypeVar("StoreT", AsyncStore, SyncStore)

Call: TypeAlias = Literal["load", "create", "update", "touch", "delete", "time_left", "scan", "announce"]
"""What can fail. `announce` only in a store that has it."""

_CALLS: Final[tuple[Call, ...]] = get_args(Call)


class _Failing(Generic[StoreT]):
    """What both kinds have in common: all but how a call is made."""

    def __init__(self, store: StoreT) -> None:
        self.calls: list[str] = []
        """The names of all calls so far, those that failed included: `store.calls.count("load")`."""
        self._errors: dict[str, type[Exception]] = {}
        # As attributes of the instance: what a store can do is found out by what it has (see `stores.protocol`), so
        # this one must have all that the store within has, and no more.
        for name in dir(store):
            if not name.startswith("_"):
                attribute = getattr(store, name)
                setattr(self, name, self._guarded(name, attribute) if name in _CALLS else attribute)

    def fail(self, *calls: Call, error: type[Exception] = StoreUnavailable) -> None:
        """Let calls fail from now on, before they do anything. Those that fail already stay as they are.

        Args:
            calls: the names of the calls; none for all of them, as if the store were out of reach.
            error: what they raise.

        Raises:
            ValueError: there is no such call.
        """
        unknown = [call for call in calls if call not in _CALLS]
        if unknown:
            msg = f"calls: expected some of {', '.join(_CALLS)}, got {', '.join(map(repr, unknown))}"
            raise ValueError(msg)
        self._errors.update(dict.fromkeys(calls or _CALLS, error))

    def recover(self) -> None:
        """Let every call reach the store again. What it held before is still there."""
        self._errors = {}

    @contextmanager
    def failing(self, *calls: Call, error: type[Exception] = StoreUnavailable) -> Iterator[None]:
        """Let calls fail for as long as the block lasts. See `fail`.

        Example:
            with store.failing("update"):
                assert client.post("/cart").status_code == 503
        """
        before = dict(self._errors)
        self.fail(*calls, error=error)
        try:
            yield
        finally:
            self._errors = before

    def _note(self, name: str) -> None:
        """Count a call. Raises if it is to fail."""
        self.calls.append(name)
        error = self._errors.get(name)
        if error is not None:
            msg = f"the test made {name}() fail"
            raise error(msg)

    def _guarded(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        raise NotImplementedError


class FailingStore(_Failing[AsyncStore]):
    """An async store that fails when it is told to.

    Args:
        store: the store that does the work; by default a new memory store.

    Example:
        store = FailingStore()
        sessions = Sessions(store, secret_keys=[key])
        with store.failing():
            assert client.get("/profile").status_code == 503
    """

    # What makes it an `AsyncStore`; see there.
    load: Callable[..., CoroutineType[Any, Any, list[bytes | None]]]
    create: Callable[..., CoroutineType[Any, Any, bool]]
    update: Callable[..., CoroutineType[Any, Any, WriteResult]]
    touch: Callable[..., CoroutineType[Any, Any, bytes | None]]
    delete: Callable[..., CoroutineType[Any, Any, bytes | None]]
    time_left: Callable[..., CoroutineType[Any, Any, list[int | None]]]
    scan: Callable[..., CoroutineType[Any, Any, tuple[list[str], str]]]
    reset: Callable[..., CoroutineType[Any, Any, None]]
    close: Callable[..., CoroutineType[Any, Any, None]]

    def __init__(self, store: AsyncStore | None = None) -> None:
        super().__init__(MemoryStore() if store is None else store)

    def _guarded(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        async def guarded(*arguments: Any, **named: Any) -> Any:
            self._note(name)
            return await call(*arguments, **named)

        return guarded


class SyncFailingStore(_Failing[SyncStore]):
    """A sync store that fails when it is told to. See `FailingStore`."""

    # What makes it a `SyncStore`; see there.
    load: Callable[..., list[bytes | None]]
    create: Callable[..., bool]
    update: Callable[..., WriteResult]
    touch: Callable[..., bytes | None]
    delete: Callable[..., bytes | None]
    time_left: Callable[..., list[int | None]]
    scan: Callable[..., tuple[list[str], str]]
    reset: Callable[..., None]
    close: Callable[..., None]

    def __init__(self, store: SyncStore | None = None) -> None:
        super().__init__(SyncMemoryStore() if store is None else store)

    def _guarded(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def guarded(*arguments: Any, **named: Any) -> Any:
            self._note(name)
            return call(*arguments, **named)

        return guarded
