"""A name for a device, for people, made of its User-Agent.

A guess: the header is the client's word, and browsers name others beside themselves in it. Nothing of the header gets
into the name, so it is safe wherever a text is.
"""

from __future__ import annotations

from typing import Final

UNKNOWN_DEVICE: Final = "Unknown device"

# The first that is found counts. Nearly all claim to be Chrome or Safari too, so those come late.
_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("OPT/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Vivaldi/", "Vivaldi"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
    ("Wget/", "Wget"),
    ("python-", "Python"),
    ("Python/", "Python"),
)

# Android is also a Linux, and an iPhone says that it is "like Mac OS X".
_SYSTEMS: Final = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)


def device_name(user_agent: str | None) -> str:
    """Give the name: "Firefox on Linux", or as much of it as can be told."""
    browser = _first_in(user_agent or "", _BROWSERS)
    system = _first_in(user_agent or "", _SYSTEMS)
    if system is None:
        return browser or UNKNOWN_DEVICE
    return f"{browser or 'Unknown browser'} on {system}"


def _first_in(user_agent: str, names: tuple[tuple[str, str], ...]) -> str | None:
    return next((name for sign, name in names if sign in user_agent), None)
