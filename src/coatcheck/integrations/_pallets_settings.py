"""Flask's and Quart's settings, as those of Coatcheck: COATCHECK_*, SESSION_COOKIE_*, and the secret keys."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Final

from coatcheck.config import MIN_SECRET_KEY_BYTES, CookieConfig
from coatcheck.csrf import Csrf
from coatcheck.csrf.policy import wants_tokens
from coatcheck.errors import ConfigurationError
from coatcheck.sessions import Sessions
from coatcheck.stores.protocol import HasTokens

_PREFIX: Final = "COATCHECK_"
_COOKIE_PREFIX: Final = "cookie_"

_COOKIE_SETTINGS: Final = frozenset(_COOKIE_PREFIX + each.name for each in fields(CookieConfig))
_SESSIONS_SETTINGS: Final = frozenset(inspect.signature(Sessions).parameters) - {"cookie"} | _COOKIE_SETTINGS
_DURATIONS: Final = ("idle_timeout", "lifetime", "renew_every", "renewal_grace")
_ADAPTER_SETTINGS: Final = frozenset(
    {"login_path", "load", "while_down", "csrf", "csrf_trusted_origins", "csrf_exempt"}
)

_FLASKS_COOKIE: Final[Mapping[str, tuple[str, tuple[Any, ...]]]] = {
    "SESSION_COOKIE_NAME": ("name", ("session",)),
    "SESSION_COOKIE_DOMAIN": ("domain", (None, False, "")),
    "SESSION_COOKIE_PATH": ("path", (None, "")),
    "SESSION_COOKIE_HTTPONLY": ("http_only", (True, None)),
    "SESSION_COOKIE_SECURE": ("secure", (False, None)),
    "SESSION_COOKIE_SAMESITE": ("same_site", (None,)),
    "SESSION_COOKIE_PARTITIONED": ("partitioned", (False, None)),
}
"""Flask's settings: ours, and the values that don't tell whether anybody has chosen them."""

_FLASKS_LIFETIME: Final = timedelta(days=31)
_DEFAULT_LIFETIME: Final[timedelta] = inspect.signature(Sessions).parameters["lifetime"].default


@dataclass(frozen=True, slots=True)
class Settings:
    """What `app.config` says: the arguments of the sessions, of their middleware, of the CSRF middleware, and the rest.

    `csrf` is None where it is off.
    """

    sessions: Mapping[str, Any]
    middleware: Mapping[str, Any]
    csrf: Mapping[str, Any] | None
    login_path: str

    @property
    def has_tokens(self) -> bool:
        """Whether forms need a CSRF token."""
        return self.csrf is not None and bool(self.csrf["tokens"])


def read_settings(config: Mapping[str, Any], *, has_sessions: bool) -> Settings:
    """Read an application's settings.

    Args:
        config: `app.config`.
        has_sessions: the application was given a ready sessions object, so no setting may be about that.

    Raises:
        ConfigurationError: a setting is unknown, missing, or of the wrong kind. The message names it.
    """
    found = {key.removeprefix(_PREFIX).lower(): value for key, value in config.items() if key.startswith(_PREFIX)}
    _check_known(found, has_sessions=has_sessions)
    protection: Csrf = found.get("csrf", "origin")
    csrf = {"tokens": wants_tokens(protection)}
    csrf |= {key: found[f"csrf_{key}"] for key in ("trusted_origins", "exempt") if f"csrf_{key}" in found}
    return Settings(
        sessions={} if has_sessions else _sessions_settings(found, config),
        middleware={key: found[key] for key in ("load", "while_down") if key in found},
        csrf=csrf if protection else None,
        login_path=found.get("login_path", "/login"),
    )


def _check_known(found: Mapping[str, Any], *, has_sessions: bool) -> None:
    known = _ADAPTER_SETTINGS if has_sessions else _ADAPTER_SETTINGS | _SESSIONS_SETTINGS
    unknown = [_PREFIX + name.upper() for name in sorted(found.keys() - known)]
    if not unknown:
        return
    if has_sessions and found.keys() <= _ADAPTER_SETTINGS | _SESSIONS_SETTINGS:
        msg = (
            f"app.config sets {', '.join(unknown)}, which would have no effect: Coatcheck was given a ready sessions "
            "object. Set it up there, or leave sessions= out"
        )
        raise ConfigurationError(msg)
    names = ", ".join(sorted(name.upper() for name in known))
    msg = (
        f"app.config has settings that Coatcheck does not know: {', '.join(unknown)}. After {_PREFIX} it knows {names}"
    )
    raise ConfigurationError(msg)


def _sessions_settings(found: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the arguments of `Sessions`."""
    if found.get("store") is None or found["store"] == "":
        msg = (
            "app.config needs COATCHECK_STORE: where sessions are kept, such as 'redis://localhost:6379/0'. "
            "Set it before Coatcheck(app), or init_app(app)"
        )
        raise ConfigurationError(msg)
    given = {name: found[name] for name in _SESSIONS_SETTINGS - _COOKIE_SETTINGS if name in found}
    for name in _DURATIONS:
        if name in given:
            given[name] = _duration(given[name])
    if "secret_keys" not in given and not isinstance(given["store"], HasTokens):
        given["secret_keys"] = _flasks_secret_keys(config)
    return {**_flasks_clocks(given, config), **given, "cookie": CookieConfig(**_cookie_settings(found, config))}


def _duration(value: Any) -> Any:
    """Take a number of seconds for a duration as well, as Flask does; it is what an environment variable can hold."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return timedelta(seconds=value) if is_number else value


def _flasks_secret_keys(config: Mapping[str, Any]) -> list[str | bytes]:
    keys = [config["SECRET_KEY"], *(config.get("SECRET_KEY_FALLBACKS") or ())]
    names = ["SECRET_KEY", *(f"SECRET_KEY_FALLBACKS[{position}]" for position in range(len(keys) - 1))]
    for name, key in zip(names, keys, strict=True):
        if not key or len(key.encode() if isinstance(key, str) else key) < MIN_SECRET_KEY_BYTES:
            size = "is not set" if not key else f"has fewer than {MIN_SECRET_KEY_BYTES} bytes"
            msg = (
                f"app.config[{name!r}] {size}, and signs the session's cookie. `coatcheck keygen` makes a key; to keep "
                "what you have for other uses, set COATCHECK_SECRET_KEYS = [key]"
            )
            raise ConfigurationError(msg)
    return keys


def _flasks_clocks(given: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, timedelta]:
    """Take PERMANENT_SESSION_LIFETIME for what it is with Flask: how long a session lasts that is not used."""
    lifetime = _duration(config["PERMANENT_SESSION_LIFETIME"])
    if lifetime == _FLASKS_LIFETIME or "idle_timeout" in given:
        return {}
    return {"idle_timeout": lifetime, "lifetime": max(lifetime, _DEFAULT_LIFETIME)}


def _cookie_settings(found: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the arguments of `CookieConfig`: ours, else Flask's where somebody has chosen them."""
    settings: dict[str, Any] = {"persistent": False}  # with Flask, a session goes with the browser unless permanent
    for key, (name, unchosen) in _FLASKS_COOKIE.items():
        value = config.get(key)
        if value not in unchosen:
            settings[name] = str(value).lower() if name == "same_site" else value
    chosen = {name.removeprefix(_COOKIE_PREFIX): found[name] for name in _COOKIE_SETTINGS if name in found}
    settings |= chosen
    if str(settings.get("name", "")).lower().startswith(("__host-", "__secure-")):
        settings.setdefault("prefix", "")  # it is spelled out in the name
    return settings
