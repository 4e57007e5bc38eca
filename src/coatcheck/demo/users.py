"""The demo's users.

They are public, and their passwords stand on the login page. An application of your own keeps a hash made by scrypt or
Argon2, never a password.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import Final


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who can log in."""

    username: str
    password: str


USERS: Final = {user.username: user for user in (User("alice", "wonderland"), User("bob", "builder"))}

_NOBODY: Final = User("", "")


def authenticate(username: str, password: str) -> User | None:
    """Give the user whose password this is, or None.

    Takes the same time for a username that does not exist as for a wrong password. Hashes are compared rather than
    texts, so that the time tells nothing about a password's length either.
    """
    user = USERS.get(username, _NOBODY)
    is_right = hmac.compare_digest(_digest(password), _digest(user.password))
    return user if is_right and user is not _NOBODY else None


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
