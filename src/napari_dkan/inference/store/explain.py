"""Why nothing was found for a slide that was seen before, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .key import CacheKey

VALUE_LABELS = {
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
OPAQUE_VALUE_PATTERN = re.compile(r"[0-9a-f]{12,}|.{25,}|")  # tells a person nothing


def is_slide_changed(key: CacheKey, others: Iterable[CacheKey]) -> bool:
    """Whether all that is stored of the same file is of another content."""
    same = [o for o in others if o.path == key.path and o.what == key.what]
    return bool(same) and all(o.slide != key.slide for o in same)


def explain_cache_miss(key: CacheKey, others: Iterable[CacheKey]) -> str:
    """What differs from what is stored of the same file, or "" when nothing is.

    Of several stores the one that is nearest is taken.
    """
    same = [o for o in others if o.path == key.path and o.what == key.what]
    same = [o for o in same if o.digest != key.digest]
    here = [o for o in same if o.slide == key.slide]
    if here:
        found = min((_list_differences(key, o) for o in here), key=len)
        return (
            f"What is stored of {key.slide_name} was made with another {_join_words(found)}; "
            "its features are computed anew."
        )
    if same:
        return (
            f"{key.slide_name} has changed since its features were stored; they are computed anew."
        )
    return ""


def _list_differences(key: CacheKey, other: CacheKey) -> list[str]:
    now, then = dict(key.made_by), dict(other.made_by)
    now["width"], then["width"] = key.width, other.width
    return [
        _describe_difference(name, then.get(name), now.get(name))
        for name in dict.fromkeys([*now, *then])
        if now.get(name) != then.get(name)
    ]


def _describe_difference(name: str, old_value: str | float | None, new_value: str | float | None) -> str:
    word = VALUE_LABELS.get(name, name.replace("_", " "))
    values = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in (old_value, new_value)]
    if None in (old_value, new_value) or any(OPAQUE_VALUE_PATTERN.fullmatch(v) for v in values):
        return word
    return f"{word} ({values[0]}, now {values[1]})"


def _join_words(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
