"""The slide of a saved result, found again by its fingerprint: where it was, or beside the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SlideError

if TYPE_CHECKING:
    from ..slide import Slide
    from .saved import SavedResult


def find_result_slide(result: SavedResult, result_path: str | Path) -> Slide | None:
    """Open the slide of a result: where it was, or under its name beside a file.

    An address on another machine is never opened here, as nobody has asked for it.
    """
    for place in _iter_candidate_paths(result.slide_record.path, Path(result_path)):
        slide = open_matching_slide(result, place)
        if slide is not None:
            return slide
    return None


def open_matching_slide(result: SavedResult, path: str | Path) -> Slide | None:
    """Open a file if it is this slide, in the colours the prediction saw; else None."""
    from ..slide import open_slide

    try:
        slide = open_slide(path, apply_icc=bool(result.prediction.provenance.get("slide_colours")))
        if slide.fingerprint() == result.slide_record.fingerprint:
            slide.prefetch()
            return slide
    except SlideError:
        return None  # no slide any more, whatever it is now
    slide.close()
    return None


def _iter_candidate_paths(stored_path: str, result_path: Path) -> Iterator[Path]:
    if "://" in stored_path or not stored_path:
        return
    name = re.split(r"[\\/]", stored_path.rstrip("\\/"))[-1]  # of whatever system it was on
    for place in (Path(stored_path), result_path.absolute().parent / name):
        try:
            there = place.exists()
        except (OSError, ValueError):  # too long a name, or a null character
            continue
        if there:
            yield place
