"""Both façades on every store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faces import Face, Kind

from coatcheck.testing import ManualClock


@pytest.fixture(autouse=True)
def _close_faces() -> Iterator[None]:
    yield
    Face.close_all()


@pytest.fixture(params=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
def face(kind: Kind, store_url: str) -> Face:
    """Each façade on each store, on the real clock."""
    return Face(kind, store_url)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def timed(kind: Kind, clock: ManualClock) -> Face:
    """Each façade on the memory store, with a clock to move. Idle timeout 2 hours, lifetime 7 days."""
    return Face(kind, "memory://", clock=clock)
