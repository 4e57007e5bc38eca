"""The command `coatcheck`, as it is typed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import coatcheck

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("COATCHECK_")} | {
    "PYTHONPATH": str(Path(coatcheck.__file__).parents[1]),
    "COLUMNS": "100",
    "NO_COLOR": "1",
}


def run(
    *arguments: str, before: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command, after `before` in the same Python."""
    program = f"{before}\nimport sys; from coatcheck.cli import main; sys.argv = {['coatcheck', *arguments]!r}; main()"
    return subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def without(*modules: str) -> str:
    """Give the Python that makes these modules look as if they were not installed."""
    return (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {modules!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())"
    )
