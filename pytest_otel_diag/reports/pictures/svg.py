"""A small SVG writer that escapes text and writes only finite, short numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pytest_otel_diag.reports.markup import Markup, text
from pytest_otel_diag.scoring.text import cell_width, clip

Attribute = str | float

CHAR_PX = 6.6
"""Width of a column of 12 px text: slightly more than common sans-serif fonts need."""


@dataclass(frozen=True)
class Picture:
    """One drawing; ``description`` is its text alternative."""

    name: str
    description: str
    width: float
    height: float
    body: Markup

    def inline(self) -> Markup:
        """Return the drawing for a page that includes the style of pictures."""
        # Narrower text would be unreadable, so the container scrolls.
        return self._element(Markup(""), {"style": f"min-width:{num(0.75 * self.width)}px"})

    def document(self) -> str:
        """Return the drawing as a self-contained file."""
        return str(self._element(shape("style", style()), {"xmlns": "http://www.w3.org/2000/svg"}))

    def _element(self, style: Markup, more: dict[str, Attribute]) -> Markup:
        ground = shape("rect", class_="od-ground", width=self.width, height=self.height)
        return shape(
            "svg",
            Markup(f"<title>{text(f'{self.name}: {self.description}')}</title>"),
            style,
            ground,
            self.body,
            class_="od-pic",
            role="img",
            viewBox=f"0 0 {num(self.width)} {num(self.height)}",
            width=self.width,
            height=self.height,
            **more,
        )


@cache
def style() -> str:
    """Return the style sheet of pictures for both themes; a page includes it once."""
    return resources.files(__package__).joinpath("picture.css").read_text(encoding="utf-8")


def num(value: float) -> str:
    """Return a coordinate with one decimal; values that are not finite or too large are clamped."""
    if math.isnan(value):
        return "0"
    bounded = min(max(value, -1e6), 1e6)
    shown = f"{bounded:.1f}".removesuffix(".0")
    return "0" if shown == "-0" else shown


def shape(tag: str, *children: str | Iterable[str], **attributes: Attribute) -> Markup:
    """Return an element; ``class_`` stands for ``class``, ``_`` for ``-``, text children are escaped."""
    opening = tag
    for name, value in attributes.items():
        key = name.rstrip("_")
        key = key if key in _AS_THEY_ARE else key.replace("_", "-")
        opening += f' {key}="{text(value) if isinstance(value, str) else num(value)}"'
    inside = "".join(
        text(child) if isinstance(child, str) else "".join(map(text, child)) for child in children
    )
    return Markup(f"<{opening}>{inside}</{tag}>" if inside else f"<{opening}/>")


_AS_THEY_ARE = frozenset({"viewBox"})


def label(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> Markup:
    """Return text at a position; *kind* are additional classes, *anchor* is start, middle or end."""
    attributes: dict[str, Attribute] = {"x": x, "y": y}
    if kind:
        attributes["class_"] = kind
    if anchor != "start":
        attributes["text_anchor"] = anchor
    return shape("text", words, **attributes)


def line(points: Iterable[tuple[float, float]], kind: str) -> Markup:
    """Return a polyline as a path."""
    places = " ".join(f"{num(x)},{num(y)}" for x, y in points)
    return shape("path", d=f"M{places}", class_=kind)


def titled(words: str, *children: str | Iterable[str], kind: str = "") -> Markup:
    """Return a group with a tooltip."""
    tip = Markup(f"<title>{text(words)}</title>")
    return shape("g", tip, *children, class_=kind) if kind else shape("g", tip, *children)


def fitting(words: str, width_px: float, char_px: float = CHAR_PX) -> str:
    """Return text on one line, shortened to fit; names are shortened in the middle."""
    return clip(words, max(4, int(width_px / char_px)))


def wide(words: str, char_px: float = CHAR_PX) -> float:
    """Return the approximate width of a text in pixels."""
    return cell_width(words) * char_px
