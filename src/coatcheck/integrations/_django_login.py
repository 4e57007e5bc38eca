"""Logins that another application made in the same sessions, for `django.contrib.auth`."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model, load_backend
from django.core.exceptions import ValidationError


class SharedLogin:
    """An authentication backend for logins that another application made in the same sessions.

    In AUTHENTICATION_BACKENDS, it makes `request.user` whoever logged in there by `session.login(str(user.pk))`. It
    authenticates nobody by itself, and gives no permissions.
    """

    def authenticate(self, request: Any, **credentials: Any) -> None:
        """Authenticate nobody."""

    async def aauthenticate(self, request: Any, **credentials: Any) -> None:
        """Authenticate nobody."""

    def get_user(self, user_id: Any) -> Any:
        """Give the user of a primary key; None if there is none, or they are not active."""
        model = get_user_model()
        try:
            user = model._default_manager.get(pk=user_id)
        except model.DoesNotExist:
            return None
        return user if getattr(user, "is_active", True) else None

    async def aget_user(self, user_id: Any) -> Any:
        """See `get_user`."""
        return await sync_to_async(self.get_user)(user_id)


def shared_login(user_id: str) -> tuple[str, SharedLogin, Any] | None:
    """Give the backend that is set up for logins made elsewhere, and the user's primary key; None without both."""
    for path in settings.AUTHENTICATION_BACKENDS:
        backend = load_backend(path)
        if isinstance(backend, SharedLogin):
            try:
                return path, backend, get_user_model()._meta.pk.to_python(user_id)
            except ValidationError:
                return None
    return None
