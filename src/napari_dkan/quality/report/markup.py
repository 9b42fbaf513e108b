"""HTML and SVG that nobody's text can break out of.

Text is escaped wherever it stands; only what was built by `tag` goes in as it is. Gene names,
titles and cards are written by others, so no string is ever taken for markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

NOTHING = "–"  # what has no value
_VOID = frozenset({"meta", "br"})


@dataclass(frozen=True)
class Markup:
    """Finished HTML or SVG."""

    text: str


Child = Markup | str | int | float | None
Children = Child | Iterable["Children"]


def tag(name: str, /, *children: Children, **attributes: Child) -> Markup:
    """An element. Attributes: ``class_`` is class, ``stroke_width`` is stroke-width, None is none.

    Numbers are written with as many digits as a drawing needs.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{''.join(_flat(children))}</{name}>")


def joined(*children: Children) -> Markup:
    """Elements and texts one after another."""
    return Markup("".join(_flat(children)))


def verbatim(text: str) -> Markup:
    """The page's own style and script, which hold no text of others."""
    return Markup(text)


def number(value: float | None, digits: int = 3) -> str:
    """A figure for people: a true minus, and a dash where it is not defined."""
    if value is None or value != value:
        return NOTHING
    text = f"{value:.{digits}f}"
    if float(text) == 0:  # no minus zero
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def _flat(children: Iterable[Children]) -> Iterable[str]:
    for child in children:
        if child is None or isinstance(child, Markup | str | int | float):
            yield _text(child)
        else:
            yield from _flat(child)


def _text(value: Child) -> str:
    if value is None:
        return ""
    if isinstance(value, Markup):
        return value.text
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    # What is not printable could turn the order of letters round, or not be written at all.
    text = "".join(c if c.isprintable() or c == "\n" else " " for c in str(value))
    return escape(text, quote=True)
