"""Why nothing was found for a slide that was seen before, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .key import StoreKey

WORDS = {
    "encoder": "tile encoder",
    "revision": "encoder revision",
    "weights": "encoder weights",
    "mpp": "pixel size",
    "um": "patch size",
    "patch_um": "patch size",
    "px": "patch pixels",
    "patch_px": "patch pixels",
    "pitch": "grid",
    "checkpoint": "checkpoint",
    "tissue": "tissue outline",
    "width": "feature length",
    "colours": "colour profile",
}
HASH = re.compile(r"[0-9a-f]{12,}|.{25,}|")  # tells a person nothing


def changed(key: StoreKey, others: Iterable[StoreKey]) -> bool:
    """Whether all that is stored of the same file is of another content."""
    same = [o for o in others if o.path == key.path and o.what == key.what]
    return bool(same) and all(o.slide != key.slide for o in same)


def explain(key: StoreKey, others: Iterable[StoreKey]) -> str:
    """What differs from what is stored of the same file, or "" when nothing is.

    Of several stores the one that is nearest is taken.
    """
    same = [o for o in others if o.path == key.path and o.what == key.what]
    same = [o for o in same if o.identity != key.identity]
    here = [o for o in same if o.slide == key.slide]
    if here:
        found = min((_differences(key, o) for o in here), key=len)
        return (
            f"What is stored of {key.slide_name} was made with another {_listed(found)}; "
            "its features are computed anew."
        )
    if same:
        return (
            f"{key.slide_name} has changed since its features were stored; they are computed anew."
        )
    return ""


def _differences(key: StoreKey, other: StoreKey) -> list[str]:
    now, then = dict(key.made_by), dict(other.made_by)
    now["width"], then["width"] = key.width, other.width
    return [
        _words(name, then.get(name), now.get(name))
        for name in dict.fromkeys([*now, *then])
        if now.get(name) != then.get(name)
    ]


def _words(name: str, then: str | float | None, now: str | float | None) -> str:
    word = WORDS.get(name, name.replace("_", " "))
    values = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in (then, now)]
    if None in (then, now) or any(HASH.fullmatch(v) for v in values):
        return word
    return f"{word} ({values[0]}, now {values[1]})"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
