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
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    last_line = result.stderr.splitlines()[-1]
    assert last_line.startswith("coatcheck.errors.MissingExtra: The adapter to ")
    assert last_line.endswith(f"pip install 'coatcheck[{framework}]'")
