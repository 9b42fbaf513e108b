"""What a store holds: on another slide, or made by anything else, it is another store."""

from __future__ import annotations

import hashlib
import json
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
        text = json.dumps([CACHE_FORMAT_VERSION, self.slide, self.what, self.width, made_by], sort_keys=True)
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
