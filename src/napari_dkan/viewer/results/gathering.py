"""From a map in the window to what is saved of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Shapes

from ...errors import OutputError
from ...inference.prediction import Prediction
from ..overlay import PredictionOverlay
from ..places import region_from_layer
from ..session import ViewerSlide, ViewerSession

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from shapely.geometry.base import BaseGeometry

    from ...export.saved import SavedResult, ViewSettings

DECODE_CHUNK = 4096  # tiles whose genes are decoded at a time


@dataclass(frozen=True, eq=False)
class ResultSnapshot:
    """A map and what surrounds it, as they were when the person asked; for a thread to save."""

    overlay: PredictionOverlay
    slide: ViewerSlide | None
    card: Mapping[str, Any]
    regions: BaseGeometry | None
    view: ViewSettings
    source: SavedResult | None = None  # the file it came from


def get_selected_map(session: ViewerSession) -> PredictionOverlay | None:
    """The selected map, else the newest, of those with a predicted tile; spots that were clicked
    one by one only where they are selected, or there is nothing else."""
    there = [o for o in session.overlays if o.prediction.predicted_mask.any()]
    active = session.viewer.layers.selection.active
    selected = [o for o in there if o.layer is active]
    found = selected or [o for o in there if not o.from_clicks] or there
    return found[-1] if found else None


def find_overlay_slide(session: ViewerSession, overlay: PredictionOverlay) -> ViewerSlide | None:
    """The slide that a map lies on; None where it is not open."""
    wanted = overlay.prediction.provenance.get("slide_fingerprint")
    found = [s for s in session.slides if s.slide.fingerprint() == wanted]
    if session.slide in found:
        return session.slide
    return found[-1] if found else None


def snapshot_result(
    session: ViewerSession, overlay: PredictionOverlay, regions: Shapes | None, source: SavedResult | None = None
) -> ResultSnapshot:
    """What there is of a map now; quick, as the person waits."""
    slide = find_overlay_slide(session, overlay)
    checkpoint = session.checkpoint
    by = overlay.prediction.provenance.get("checkpoint_sha256")
    card: Mapping[str, Any] = {} if source is None else source.card
    if checkpoint is not None and checkpoint.sha256 == by:
        card = checkpoint.card
    drawn = None if source is None else source.regions
    if regions is not None and slide is not None and len(regions.data):
        drawn = region_from_layer(regions, slide)
    return ResultSnapshot(overlay, slide, card, drawn, capture_view(session, overlay, slide), source)


def capture_view(session: ViewerSession, overlay: PredictionOverlay, slide: ViewerSlide | None) -> ViewSettings:
    """How the map is looked at."""
    from ...export.saved import ViewSettings

    settings, camera = session.settings, session.viewer.scene.camera
    centre = tuple(float(v) for v in camera.center[-2:])
    if slide is not None:
        row, column = (float(v) for v in slide.layer.world_to_data(centre)[-2:])
    else:
        row, column = (v / float(overlay.prediction.provenance["mpp"]) for v in centre)
    return ViewSettings(
        session.gene if session.gene in overlay.prediction.panel else None,
        tuple(g for g in session.pinned if g in overlay.prediction.panel),
        settings.limits.fixed,
        settings.colormap,
        float(overlay.layer.opacity),
        settings.hatch,
        (column, row),
        float(camera.zoom),
    )


def decode_missing_genes(
    overlay: PredictionOverlay, prediction: Prediction, genes: list[int] | None = None
) -> Iterator[float]:
    """Fill in the genes (columns, all when None) that nobody has looked at yet; yields the share
    that is done. What is known stays as it is."""
    lacking = prediction.find_incomplete_columns()
    wanted = lacking if genes is None else lacking[np.isin(lacking, genes)]
    for start in range(0, len(prediction.values) if len(wanted) else 0, DECODE_CHUNK):
        rows = slice(start, start + DECODE_CHUNK)
        block = prediction.values[rows][:, wanted]
        unknown = ~np.isfinite(block)
        block[unknown] = overlay.decode(prediction.tokens[rows], wanted.tolist())[unknown]
        prediction.values[rows, wanted] = block
        yield min(1.0, (start + DECODE_CHUNK) / len(prediction.values))


def build_saved_result(snapshot: ResultSnapshot) -> Iterator[float | SavedResult]:
    """For a thread: the share of decoding that is done, and last what is saved.

    Raises OutputError without a finished tile, SlideError when the slide cannot be read.
    """
    from ...export.picture import SlideOverview
    from ...export.saved import SavedResult, SlideRecord
    from ..trust import get_reliability

    overlay, slide, source = snapshot.overlay, snapshot.slide, snapshot.source
    whole, reference = overlay.prediction, overlay.reference
    rows = np.flatnonzero(whole.predicted_mask)  # a map that still grows is saved as far as it is
    if not len(rows):
        raise OutputError("The map has no finished tile yet; predict it first.")
    prediction = whole.take(rows)
    yield from decode_missing_genes(overlay, prediction)
    reliability = None if reference is None else get_reliability(whole, reference, rows)
    picture = None if source is None else source.overview
    if slide is not None and picture is None:
        picture = SlideOverview.from_slide(slide.slide)
    record = prediction.provenance
    if source is not None:
        about = source.slide_record
    elif slide is not None:
        about = SlideRecord.from_slide(slide.slide, record["mpp"], record["mpp_origin"])
    else:
        raise OutputError("The slide of this map was closed; open it again, then save the map.")
    if slide is not None and source is not None:
        about = replace(about, path=SlideRecord.from_slide(slide.slide, about.mpp, about.mpp_origin).path)
    versions = {} if source is None else source.versions
    yield SavedResult(
        prediction,
        about,
        snapshot.card,
        reliability,
        snapshot.regions,
        snapshot.view,
        versions,
        picture,
    )
