"""Build HTML and SVG with every text escaped.

Only the result of `build_element` is inserted unescaped. Gene names, titles and cards come from
files of others and are never trusted as markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

NO_VALUE_TEXT = "–"  # what has no value
_VOID_ELEMENTS = frozenset({"meta", "br"})


@dataclass(frozen=True)
class SafeMarkup:
    """Finished HTML or SVG."""

    html: str


MarkupChild = SafeMarkup | str | int | float | None
MarkupChildren = MarkupChild | Iterable["MarkupChildren"]


def build_element(name: str, /, *children: MarkupChildren, **attributes: MarkupChild) -> SafeMarkup:
    """An element. Attributes: ``class_`` is class, ``stroke_width`` is stroke-width, None is none.

    Numbers are written with as many digits as a drawing needs.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID_ELEMENTS:
        return SafeMarkup(f"<{name}{given}>")
    return SafeMarkup(f"<{name}{given}>{''.join(_iter_escaped(children))}</{name}>")


def concatenate(*children: MarkupChildren) -> SafeMarkup:
    """Elements and texts one after another."""
    return SafeMarkup("".join(_iter_escaped(children)))


def mark_trusted(text: str) -> SafeMarkup:
    """The page's own style and script, which hold no text of others."""
    return SafeMarkup(text)


def format_decimal(value: float | None, digits: int = 3) -> str:
    """A figure for people: a true minus, and a dash where it is not defined."""
    if value is None or value != value:
        return NO_VALUE_TEXT
    text = f"{value:.{digits}f}"
    if float(text) == 0:  # no minus zero
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def _iter_escaped(children: Iterable[MarkupChildren]) -> Iterable[str]:
    for child in children:
        if child is None or isinstance(child, SafeMarkup | str | int | float):
            yield _escape(child)
        else:
            yield from _iter_escaped(child)


def _escape(value: MarkupChild) -> str:
    if value is None:
        return ""
    if isinstance(value, SafeMarkup):
        return value.html
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    # What is not printable could turn the order of letters round, or not be written at all.
    text = "".join(c if c.isprintable() or c == "\n" else " " for c in str(value))
    return escape(text, quote=True)
