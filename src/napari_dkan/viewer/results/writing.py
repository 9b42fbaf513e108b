"""Writing results, for a thread: each step yields what to tell the person."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..trust import judged
from .gathering import Gathered, decode, saved_of

if TYPE_CHECKING:
    from ...export.saved import SlideRecord
    from .finding import Found
    from .picturing import Seen
    from .restoring import Reopened


def write(path: Path, gathered: Gathered) -> Iterator[str]:
    """Save a map as what the name's ending says. Raises DkanError in words for the person."""
    from ...export.kinds import kind_of, write_as

    kind_of(path)  # told before anything is decoded
    for item in saved_of(gathered):
        if isinstance(item, float):
            yield f"Decoding the genes nobody has looked at yet, {item:.0%} ..."
            continue
        yield f"Writing {path.name} ..."
        write_as(path, item)
        prediction = item.prediction
        size = f"{len(prediction.target):,} tiles x {len(prediction.panel):,} genes"
        unfinished = len(gathered.overlay.prediction.target) - len(prediction.target)
        rest = f" {unfinished:,} tiles were not predicted and are left out." if unfinished else ""
        yield f"{path.name} is saved: {size}.{rest}"


def draw(path: Path, seen: Seen) -> Iterator[str]:
    """Write a figure of what was seen. Raises DkanError in words for the person."""
    from ...export.figure import write_figure
    from ...export.figure_scene import Map, figure_of

    maps = []
    for overlay in seen.overlays:
        whole = overlay.prediction
        rows = np.flatnonzero(whole.done)
        made, column = whole.take(rows), whole.panel.row(seen.look.gene)
        for share in decode(overlay, made, [column]):
            yield f"Decoding {seen.look.gene}, {share:.0%} ..."
        reference = overlay.reference if seen.hatch else None
        doubtful = None if reference is None else judged(whole, reference, rows).unreliable
        maps.append(Map(made, doubtful))
    yield f"Drawing {path.name} ..."
    write_figure(path, figure_of(maps, seen.look, seen.histology, seen.mpp, seen.box, seen.regions))
    yield f"{path.name} is written."


def _missing(slide: SlideRecord) -> str:
    if "://" in slide.path:
        return f"{slide.name} is at {slide.path}, where nothing is opened unasked"
    if not slide.path:
        return f"{slide.name} was an image without a file"
    return f"{slide.name} is neither where it was ({slide.path}) nor beside this file"


def told(found: Found, reopened: Reopened) -> str:
    """What came back, and what did not."""
    saved, record = found.saved, found.saved.prediction.provenance
    day = str(record.get("created", ""))[:10]
    model = str(record.get("checkpoint", "")) or "an untitled checkpoint"
    count = len(saved.prediction.target)
    said = [f"{found.path.name}: {count:,} tiles predicted by {model} on {day}."]
    if found.checkpoint is None:
        checksum = str(record.get("checkpoint_sha256", ""))[:8]
        said.append(
            f"Its checkpoint ({checksum}) is not here: the map shows what was saved; choose the "
            "checkpoint's file under Model to predict more with it."
        )
    slide = reopened.slide
    if slide is None:
        said.append(f"Its slide {_missing(saved.slide)}; open it, or press Locate slide.")
    elif abs(slide.mpp / saved.slide.mpp - 1) > 0.01:
        said.append(
            f"It was predicted at {saved.slide.mpp:.4g} um/px; the slide is open at "
            f"{slide.mpp:.4g} um/px."
        )
    return " ".join(said)
