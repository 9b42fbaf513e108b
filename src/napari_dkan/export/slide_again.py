"""The slide of a saved result, found again by its fingerprint: where it was, or beside the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SlideError

if TYPE_CHECKING:
    from ..slide import Slide
    from .saved import Saved


def find_slide(saved: Saved, beside: str | Path) -> Slide | None:
    """Open the slide of a result: where it was, or under its name beside a file.

    An address on another machine is never opened here, as nobody has asked for it.
    """
    for place in _places(saved.slide.path, Path(beside)):
        slide = open_same(saved, place)
        if slide is not None:
            return slide
    return None


def open_same(saved: Saved, path: str | Path) -> Slide | None:
    """Open a file if it is this slide, in the colours the prediction saw; else None."""
    from ..slide import open_slide

    try:
        slide = open_slide(path, icc=bool(saved.prediction.provenance.get("slide_colours")))
        if slide.fingerprint() == saved.slide.fingerprint:
            slide.prefetch()
            return slide
    except SlideError:
        return None  # no slide any more, whatever it is now
    slide.close()
    return None


def _places(was: str, beside: Path) -> Iterator[Path]:
    if "://" in was or not was:
        return
    name = re.split(r"[\\/]", was.rstrip("\\/"))[-1]  # of whatever system it was on
    for place in (Path(was), beside.absolute().parent / name):
        try:
            there = place.exists()
        except (OSError, ValueError):  # too long a name, or a null character
            continue
        if there:
            yield place
