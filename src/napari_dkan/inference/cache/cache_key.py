"""The key of a cache entry, and the explanation of a cache miss."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

CACHE_FORMAT_VERSION = 1  # of the parts; another one makes other stores


@dataclass(frozen=True)
class CacheKey:
    """Names the rows of one store.

    slide : content fingerprint of the slide, as `Slide.fingerprint` gives it.
    path : where the slide lay; only for explanations, no part of the identity.
    what : "features" of single tiles, or "tokens" that a network fused from them.
    width : numbers in a row.
    made_by : (name, value) of everything else the numbers depend on, in any order.
    """

    slide: str
    path: str
    what: str
    width: int
    made_by: tuple[tuple[str, str | float | int], ...]

    @property
    def digest(self) -> str:
        """The store's folder name, 20 hex digits; the same for the same rows on any machine."""
        made_by = {n: v if isinstance(v, str) else float(v) for n, v in self.made_by}
        text = json.dumps(
            [CACHE_FORMAT_VERSION, self.slide, self.what, self.width, made_by], sort_keys=True
        )
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def slide_name(self) -> str:
        return Path(self.path).name

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> CacheKey:
        """Raises ValueError when ``text`` is not what `to_json` writes."""
        try:
            data = json.loads(text)
            key = cls(
                data["slide"],
                data["path"],
                data["what"],
                data["width"],
                tuple((name, value) for name, value in data["made_by"]),
            )
            texts = [key.slide, key.path, key.what, *(name for name, _ in key.made_by)]
            numbers = [key.width, *(v for _, v in key.made_by if not isinstance(v, str))]
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"no key of a store: {error!r}") from error
        if not (
            all(isinstance(t, str) for t in texts)
            and all(isinstance(n, int | float) for n in numbers)
        ):
            raise ValueError("no key of a store: a value is of another type")
        return key


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


def _describe_difference(
    name: str, old_value: str | float | None, new_value: str | float | None
) -> str:
    word = VALUE_LABELS.get(name, name.replace("_", " "))
    values = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in (old_value, new_value)]
    if None in (old_value, new_value) or any(OPAQUE_VALUE_PATTERN.fullmatch(v) for v in values):
        return word
    return f"{word} ({values[0]}, now {values[1]})"


def _join_words(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
