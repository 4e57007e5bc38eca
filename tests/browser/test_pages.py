"""Whoever looks, and whatever at: light and dark, narrow and wide, by keyboard and by screen reader."""

from __future__ import annotations

from typing import Final, Literal

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from .conftest import SCREENSHOTS, SITES, NewDevice, Site

# The examples have their pages in common, so one of them is looked at.
pytestmark = pytest.mark.parametrize("site", SITES[:2], indirect=True)

# WCAG 2.2, 1.4.3: the contrast of text with its background, here asked of large text too.
LEAST_CONTRAST: Final = 4.5

WIDTHS: Final = (360, 1280)
"""A telephone's and a laptop's, in CSS pixels."""

PAGES: Final = {"home": "/", "profile": "/profile", "settings": "/settings", "devices": "/devices"}

_POOR_TEXTS: Final = """
() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const linear = (value) => value <= 10.31 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const poor = [];
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    const element = text.parentElement;
    if (!text.data.trim() || !element.checkVisibility()) continue;
    const [one, other] = [luminance(rgba(getComputedStyle(element).color)), luminance(ground(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < LEAST) poor.push(`${contrast.toFixed(2)}: ${text.data.trim()}`);
  }
  return poor;
}
""".replace("LEAST", str(LEAST_CONTRAST))

_UNNAMED_FIELDS: Final = """
() => [...document.querySelectorAll("input:not([type=hidden]), select, textarea")]
  .filter((field) => !field.labels.length || !field.labels[0].textContent.trim()).map((field) => field.outerHTML)
"""

_LANDMARKS: Final = """
() => ["body > header", "main", "body > footer"].map((selector) => document.querySelectorAll(selector).length)
"""

_IS_DARK: Final = """
() => getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).every((part) => part < 80)
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_read(new_device: NewDevice, site: Site, scheme: Literal["light", "dark"]) -> None:
    page = new_device(color_scheme=scheme).new_page()
    page.goto("/login")
    _assert_readable(page, site, "login", scheme)
    site.log_in(page, "alice")
    site.log_in(new_device().new_page(), "alice")  # so that a device can be signed out
    for name, path in PAGES.items():
        page.goto(path)
        _assert_readable(page, site, name, scheme)


def _assert_readable(page: Page, site: Site, name: str, scheme: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert page.evaluate(_LANDMARKS) == [1, 1, 1]
    assert page.evaluate(_UNNAMED_FIELDS) == []
    assert page.evaluate(_IS_DARK) == (scheme == "dark")
    for width in WIDTHS:
        page.set_viewport_size(ViewportSize(width=width, height=800))
        page.screenshot(path=SCREENSHOTS / site.name / f"{name}-{scheme}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
        assert page.evaluate(_POOR_TEXTS) == []


def test_page_that_is_open_is_marked_in_the_navigation(page: Page, site: Site) -> None:
    site.log_in(page, "alice")
    for name in ("Profile", "Devices", "Settings"):
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        expect(page.locator("nav [aria-current=page]")).to_have_text(name)


def test_keyboard_alone_is_enough_and_the_focus_is_always_seen(page: Page, site: Site) -> None:
    page.goto("/login")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport(ratio=1)
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Username")).to_be_focused()
    page.keyboard.type("alice")
    page.keyboard.press("Tab")
    page.keyboard.type("wonderland")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Welcome, alice")
    page.goto("/settings")
    unseen = []
    for _ in range(30):
        page.keyboard.press("Tab")
        focus = page.evaluate(
            """() => {
              const element = document.activeElement, style = getComputedStyle(element);
              return element === document.body ? null : [element.outerHTML, style.outlineStyle, style.outlineWidth];
            }"""
        )
        if focus is None:
            break
        if focus[1] == "none" or focus[2] == "0px":
            unseen.append(focus[0])
    assert unseen == []
