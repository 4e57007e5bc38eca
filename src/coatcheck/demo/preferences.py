"""What can be chosen on the settings page. The choice is kept in the session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple


class Language(NamedTuple):
    """A language, and how it greets."""

    name: str
    greeting: str


THEMES: Final = {"system": "System", "light": "Light", "dark": "Dark"}

LANGUAGES: Final = {
    "en": Language("English", "Good to see you. Your coat hangs on its hook."),
    "de": Language("Deutsch", "Schön, dass Sie da sind. Ihr Mantel hängt am Haken."),
    "fr": Language("Français", "Ravis de vous voir. Votre manteau vous attend au vestiaire."),
    "es": Language("Español", "Qué alegría verle. Su abrigo está en su percha."),
    "pl": Language("Polski", "Miło Cię widzieć. Twój płaszcz wisi na wieszaku."),
    "ja": Language("日本語", "ようこそ。コートはお預かりしています。"),
}


def theme_of(session: Mapping[str, Any]) -> str:
    """Give the chosen theme, a key of `THEMES`."""
    theme = session.get("theme")
    return theme if isinstance(theme, str) and theme in THEMES else "system"


def language_of(session: Mapping[str, Any]) -> str:
    """Give the chosen language, a key of `LANGUAGES`."""
    language = session.get("language")
    return language if isinstance(language, str) and language in LANGUAGES else "en"
