"""From a map in the window to what is saved of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Shapes

from ...errors import OutputError
from ...inference.prediction import Prediction
from ..overlay import Overlay
from ..places import shapes_region
from ..session import OpenSlide, Session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from shapely.geometry.base import BaseGeometry

    from ...export.saved import Saved, View

PART = 4096  # tiles whose genes are decoded at a time


@dataclass(frozen=True, eq=False)
class Gathered:
    """A map and what surrounds it, as they were when the person asked; for a thread to save."""

    overlay: Overlay
    slide: OpenSlide | None
    card: Mapping[str, Any]
    regions: BaseGeometry | None
    view: View
    source: Saved | None = None  # the file it came from


def chosen_map(session: Session) -> Overlay | None:
    """The selected map, else the newest, of those with a predicted tile; spots that were clicked
    one by one only where they are selected, or there is nothing else."""
    there = [o for o in session.overlays if o.prediction.done.any()]
    active = session.viewer.layers.selection.active
    selected = [o for o in there if o.layer is active]
    found = selected or [o for o in there if not o.clicked] or there
    return found[-1] if found else None


def slide_of(session: Session, overlay: Overlay) -> OpenSlide | None:
    """The slide that a map lies on; None where it is not open."""
    wanted = overlay.prediction.provenance.get("slide_fingerprint")
    found = [s for s in session.slides if s.slide.fingerprint() == wanted]
    if session.slide in found:
        return session.slide
    return found[-1] if found else None


def gather(
    session: Session, overlay: Overlay, regions: Shapes | None, source: Saved | None = None
) -> Gathered:
    """What there is of a map now; quick, as the person waits."""
    slide = slide_of(session, overlay)
    checkpoint = session.checkpoint
    by = overlay.prediction.provenance.get("checkpoint_sha256")
    card: Mapping[str, Any] = {} if source is None else source.card
    if checkpoint is not None and checkpoint.sha256 == by:
        card = checkpoint.card
    drawn = None if source is None else source.regions
    if regions is not None and slide is not None and len(regions.data):
        drawn = shapes_region(regions, slide)
    return Gathered(overlay, slide, card, drawn, view_of(session, overlay, slide), source)


def view_of(session: Session, overlay: Overlay, slide: OpenSlide | None) -> View:
    """How the map is looked at."""
    from ...export.saved import View

    settings, camera = session.settings, session.viewer.scene.camera
    centre = tuple(float(v) for v in camera.center[-2:])
    if slide is not None:
        row, column = (float(v) for v in slide.layer.world_to_data(centre)[-2:])
    else:
        row, column = (v / float(overlay.prediction.provenance["mpp"]) for v in centre)
    return View(
        session.gene if session.gene in overlay.prediction.panel else None,
        tuple(g for g in session.pinned if g in overlay.prediction.panel),
        settings.limits.fixed,
        settings.colormap,
        float(overlay.layer.opacity),
        settings.hatch,
        (column, row),
        float(camera.zoom),
    )


def decode(
    overlay: Overlay, prediction: Prediction, genes: list[int] | None = None
) -> Iterator[float]:
    """Fill in the genes (columns, all when None) that nobody has looked at yet; yields the share
    that is done. What is known stays as it is."""
    lacking = prediction.lacking()
    wanted = lacking if genes is None else lacking[np.isin(lacking, genes)]
    for start in range(0, len(prediction.values) if len(wanted) else 0, PART):
        rows = slice(start, start + PART)
        block = prediction.values[rows][:, wanted]
        unknown = ~np.isfinite(block)
        block[unknown] = overlay.decode(prediction.tokens[rows], wanted.tolist())[unknown]
        prediction.values[rows, wanted] = block
        yield min(1.0, (start + PART) / len(prediction.values))


def saved_of(gathered: Gathered) -> Iterator[float | Saved]:
    """For a thread: the share of decoding that is done, and last what is saved.

    Raises OutputError without a finished tile, SlideError when the slide cannot be read.
    """
    from ...export.picture import Picture
    from ...export.saved import Saved, SlideRecord
    from ..trust import judged

    overlay, slide, source = gathered.overlay, gathered.slide, gathered.source
    whole, reference = overlay.prediction, overlay.reference
    rows = np.flatnonzero(whole.done)  # a map that still grows is saved as far as it is
    if not len(rows):
        raise OutputError("The map has no finished tile yet; predict it first.")
    prediction = whole.take(rows)
    yield from decode(overlay, prediction)
    reliability = None if reference is None else judged(whole, reference, rows)
    picture = None if source is None else source.picture
    if slide is not None and picture is None:
        picture = Picture.of(slide.slide)
    record = prediction.provenance
    if source is not None:
        about = source.slide
    elif slide is not None:
        about = SlideRecord.of(slide.slide, record["mpp"], record["mpp_origin"])
    else:
        raise OutputError("The slide of this map was closed; open it again, then save the map.")
    if slide is not None and source is not None:
        about = replace(about, path=SlideRecord.of(slide.slide, about.mpp, about.mpp_origin).path)
    versions = {} if source is None else source.versions
    yield Saved(
        prediction,
        about,
        gathered.card,
        reliability,
        gathered.regions,
        gathered.view,
        versions,
        picture,
    )
