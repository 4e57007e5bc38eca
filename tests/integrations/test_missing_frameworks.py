"""Without its framework, an adapter says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("framework", ["aiohttp", "django", "fastapi", "flask", "litestar", "quart", "starlette"])
def test_an_adapter_whose_framework_is_missing_names_the_extra_that_brings_it(framework: str) -> None:
    script = f"""
import sys
sys.modules[{framework!r}] = None  # as if it were not installed
import coatcheck.integrations.{framework}
"""
    assert _what_is_said_by(script).endswith(f"pip install 'coatcheck[{framework}]'")


def test_where_fastapi_and_what_it_is_made_of_are_missing_it_is_fastapis_extra_that_is_named() -> None:
    script = """
import sys
sys.modules["fastapi"] = sys.modules["starlette"] = None
import coatcheck.integrations.fastapi
"""
    assert _what_is_said_by(script).endswith("pip install 'coatcheck[fastapi]'")


def _what_is_said_by(script: str) -> str:
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    last_line = result.stderr.splitlines()[-1]
    assert last_line.startswith("coatcheck.errors.MissingExtra: The adapter to ")
    return last_line
