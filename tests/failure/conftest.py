"""Lets the assertions of what these tests share say what was compared, and what is left open fail its test."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("trials")


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    """Let the warnings of connections that nobody closed come now, and not in whichever test is next."""
    yield
    gc.collect()
