"""Writing results, for a thread: each step yields what to tell the person."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..trust import get_reliability
from .gathering import ResultSnapshot, decode_missing_genes, build_saved_result

if TYPE_CHECKING:
    from ...export.saved import SlideRecord
    from .finding import LocatedResult
    from .picturing import CanvasSnapshot
    from .restoring import RestoredResult


def save_snapshot(path: Path, snapshot: ResultSnapshot) -> Iterator[str]:
    """Save a map as what the name's ending says. Raises DkanError in words for the person."""
    from ...export.kinds import find_export_format, write_result

    find_export_format(path)  # told before anything is decoded
    for item in build_saved_result(snapshot):
        if isinstance(item, float):
            yield f"Decoding the genes nobody has looked at yet, {item:.0%} ..."
            continue
        yield f"Writing {path.name} ..."
        write_result(path, item)
        prediction = item.prediction
        size = f"{len(prediction.target):,} tiles x {len(prediction.panel):,} genes"
        unfinished = len(snapshot.overlay.prediction.target) - len(prediction.target)
        rest = f" {unfinished:,} tiles were not predicted and are left out." if unfinished else ""
        yield f"{path.name} is saved: {size}.{rest}"


def write_canvas_figure(path: Path, snapshot: CanvasSnapshot) -> Iterator[str]:
    """Write a figure of what was seen. Raises DkanError in words for the person."""
    from ...export.figure import write_figure
    from ...export.figure_scene import FigureMap, build_figure

    maps = []
    for overlay in snapshot.overlays:
        whole = overlay.prediction
        rows = np.flatnonzero(whole.predicted_mask)
        made, column = whole.take(rows), whole.panel.row(snapshot.look.gene)
        for share in decode_missing_genes(overlay, made, [column]):
            yield f"Decoding {snapshot.look.gene}, {share:.0%} ..."
        reference = overlay.reference if snapshot.hatch else None
        doubtful = None if reference is None else get_reliability(whole, reference, rows).unreliable
        maps.append(FigureMap(made, doubtful))
    yield f"Drawing {path.name} ..."
    write_figure(path, build_figure(maps, snapshot.look, snapshot.histology, snapshot.mpp, snapshot.box, snapshot.regions))
    yield f"{path.name} is written."


def _describe_missing_slide(slide: SlideRecord) -> str:
    if "://" in slide.path:
        return f"{slide.name} is at {slide.path}, where nothing is opened unasked"
    if not slide.path:
        return f"{slide.name} was an image without a file"
    return f"{slide.name} is neither where it was ({slide.path}) nor beside this file"


def describe_restored_result(found: LocatedResult, restored: RestoredResult) -> str:
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
    slide = restored.slide
    if slide is None:
        said.append(f"Its slide {_describe_missing_slide(saved.slide_record)}; open it, or press Locate slide.")
    elif abs(slide.mpp / saved.slide_record.mpp - 1) > 0.01:
        said.append(
            f"It was predicted at {saved.slide_record.mpp:.4g} um/px; the slide is open at "
            f"{slide.mpp:.4g} um/px."
        )
    return " ".join(said)
