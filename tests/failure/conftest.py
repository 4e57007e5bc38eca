"""Lets the assertions of the module that these tests share say what was compared."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("trials")
