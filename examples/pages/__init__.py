"""The pages that all examples show, and the users who can log in. Of sessions, this knows nothing."""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

THEMES: Final = ("system", "light", "dark")

# A real application keeps no passwords, but hashes made by a password-hashing function such as scrypt or Argon2.
_PASSWORDS: Final = {"alice": "wonderland", "bob": "builder"}

_environment: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(name: str, **context: object) -> str:
    """Give a page as HTML.

    Args:
        name: `home`, `login`, `profile`, `settings` or `devices`.
        context: for every page `user` (the user ID, or None), `csrf` (a hidden field that is safe HTML, or ""),
            `messages` (a list of texts) and `theme` (one of `THEMES`). For `login` also `error` (a text, or None) and
            `next` (a path), for `profile` also `visits` (a number), for `devices` also `devices` (a list of
            `coatcheck.SessionInfo`).

    Raises:
        jinja2.UndefinedError: something of the context is missing.
    """
    return _environment.get_template(f"{name}.html").render(context, page=name, themes=THEMES)


def check_password(username: str, password: str) -> bool:
    """Tell whether this is the user's password. How long that takes tells nothing about user or password."""
    is_right = compare_digest(_digest(password), _digest(_PASSWORDS.get(username, "")))
    return is_right and username in _PASSWORDS


def _digest(text: str) -> bytes:
    return sha256(text.encode(errors="replace")).digest()
