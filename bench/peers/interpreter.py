"""How the interpreter was built that the stacks in Python run on.

With `--enable-optimizations`, CPython is built a second time by the profile of the first. Without, it takes half as
much CPU time again for the same Python code, or twice. What people deploy is optimized: the packages of distributions,
Docker's images, uv's builds. What is built on the spot often is not, as by pyenv unless it is told to. Figures of such
an interpreter are about it, and put every stack in Python at a disadvantage beside those in other languages.
"""

from __future__ import annotations

import platform
import sys
import sysconfig
from typing import Final

WITHOUT: Final = "built without optimizations"
ADVICE: Final = (
    "This Python was built without --enable-optimizations, unlike those that people deploy, which puts the stacks in "
    "Python at a disadvantage. Another one: make bench BENCH_PYTHON=/usr/bin/python3"
)


def build_of(configuration: str, base_prefix: str, system: str | None) -> str:
    """Say how an interpreter was built.

    Args:
        configuration: what its `configure` was given.
        base_prefix: where it is installed.
        system: the name of the system's distribution, if it has one.
    """
    if base_prefix == "/usr" and system is not None:
        return f"the package of {system}"  # distributions build theirs with a profile, not all by this option
    return "built with optimizations" if "--enable-optimizations" in configuration else WITHOUT


def build() -> str:
    """Say how this interpreter was built."""
    try:
        system: str | None = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = None
    return build_of(sysconfig.get_config_var("CONFIG_ARGS") or "", sys.base_prefix, system)
