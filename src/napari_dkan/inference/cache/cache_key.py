"""The key of a cache entry, and the explanation of a cache miss."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

CACHE_FORMAT_VERSION = 1  # of the segments; part of the digest


@dataclass(frozen=True)
class CacheKey:
    """The identity of a cache entry.

    Attributes
    ----------
    slide : str
        `Slide.fingerprint`.
    path : str
        Path of the slide, for explanations only; not part of the identity.
    what : str
        "features" of tiles or "tokens" of a network.
    width : int
        Numbers in a row.
    made_by : tuple
        (name, value) of everything else that the rows depend on, in any order.
    """

    slide: str
    path: str
    what: str
    width: int
    made_by: tuple[tuple[str, str | float | int], ...]

    @property
    def digest(self) -> str:
        """The entry's folder name: 20 hex digits that are equal on all machines."""
        made_by = {n: v if isinstance(v, str) else float(v) for n, v in self.made_by}
        text = json.dumps(
            [CACHE_FORMAT_VERSION, self.slide, self.what, self.width, made_by], sort_keys=True
        )
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def slide_name(self) -> str:
        """File name of the slide."""
        return Path(self.path).name

    def to_json(self) -> str:
        """Format the key as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> CacheKey:
        """Parse the text of `to_json`.

        Raises
        ------
        ValueError
            When it is another text.
        """
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
OPAQUE_VALUE_PATTERN = re.compile(r"[0-9a-f]{12,}|.{25,}|")  # not shown to users


def is_slide_changed(key: CacheKey, others: Iterable[CacheKey]) -> bool:
    """Check whether all entries of the same path are of another content."""
    same = [o for o in others if o.path == key.path and o.what == key.what]
    return bool(same) and all(o.slide != key.slide for o in same)


def explain_cache_miss(key: CacheKey, others: Iterable[CacheKey]) -> str:
    """Explain how a key differs from those of the same path; "" when there are none.

    Of several keys the one with the fewest differences is explained.
    """
    same = [o for o in others if o.path == key.path and o.what == key.what]
    same = [o for o in same if o.digest != key.digest]
    same_slide = [o for o in same if o.slide == key.slide]
    if same_slide:
        differences = min((_list_differences(key, o) for o in same_slide), key=len)
        return (
            f"What is stored of {key.slide_name} was made with another "
            f"{_join_words(differences)}; its features are computed anew."
        )
    if same:
        return (
            f"{key.slide_name} has changed since its features were stored; they are computed anew."
        )
    return ""


def _list_differences(key: CacheKey, other: CacheKey) -> list[str]:
    new, old = dict(key.made_by), dict(other.made_by)
    new["width"], old["width"] = key.width, other.width
    return [
        _describe_difference(name, old.get(name), new.get(name))
        for name in dict.fromkeys([*new, *old])
        if new.get(name) != old.get(name)
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
