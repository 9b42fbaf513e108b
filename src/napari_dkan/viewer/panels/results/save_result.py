"""Snapshot the selected map or the canvas, and save it as a result file or a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Shapes
from napari.utils.colormaps import ensure_colormap

from ....errors import OutputError
from ....export.figure_content import FigureExtent, FigureStyle
from ....inference.prediction import Prediction
from ...jobs.target_from_layers import region_from_layer
from ...layers.contrast_limits import percentile_limits
from ...layers.reliability_overlay import get_reliability
from ...session.prediction_overlay import PredictionOverlay
from ...session.slide_layer import ViewerSlide
from ...session.viewer_session import ViewerSession

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from shapely.geometry.base import BaseGeometry

    from ....export.figure_content import HistologySource
    from ....export.saved_result import SavedResult, SlideRecord, ViewSettings
    from .restore_result import LocatedResult, RestoredResult


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
    session: ViewerSession,
    overlay: PredictionOverlay,
    regions: Shapes | None,
    source: SavedResult | None = None,
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
    return ResultSnapshot(
        overlay, slide, card, drawn, capture_view(session, overlay, slide), source
    )


def capture_view(
    session: ViewerSession, overlay: PredictionOverlay, slide: ViewerSlide | None
) -> ViewSettings:
    """How the map is looked at."""
    from ....export.saved_result import ViewSettings

    settings, camera = session.settings, session.viewer.scene.camera
    centre = tuple(float(v) for v in camera.center[-2:])
    if slide is not None:
        row, column = (float(v) for v in slide.layer.world_to_data(centre)[-2:])
    else:
        row, column = (v / float(overlay.prediction.provenance["mpp"]) for v in centre)
    return ViewSettings(
        session.gene if session.gene in overlay.prediction.panel else None,
        tuple(g for g in session.pinned if g in overlay.prediction.panel),
        settings.contrast_limits.fixed,
        settings.colormap,
        float(overlay.layer.opacity),
        settings.hatch_unreliable,
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
    from ....export.saved_result import SavedResult, SlideRecord
    from ....export.slide_overview import SlideOverview
    from ...layers.reliability_overlay import get_reliability

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
        about = replace(
            about, path=SlideRecord.from_slide(slide.slide, about.mpp, about.mpp_origin).path
        )
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


@dataclass(frozen=True, eq=False)
class CanvasSnapshot:
    """The maps of one slide on the canvas, lowest first, and how they are shown.

    histology : None where the slide is neither here nor visible. box : of the canvas, um on the
    slide. regions : level-0 px.
    """

    overlays: tuple[PredictionOverlay, ...]
    look: FigureStyle
    hatch: bool
    histology: HistologySource | None
    mpp: float
    box: FigureExtent
    regions: BaseGeometry | None


def snapshot_canvas(
    session: ViewerSession, regions: Shapes | None, restored: Sequence[RestoredResult]
) -> CanvasSnapshot:
    """What is on the canvas now: the chosen map and those beside it on its slide.

    Raises OutputError when no map of the shown gene is visible.
    """
    chosen, gene = get_selected_map(session), session.gene
    slide = None if chosen is None else find_overlay_slide(session, chosen)
    here = [
        o
        for o in session.overlays
        if o.layer.visible and gene in o.prediction.panel and o.prediction.predicted_mask.any()
    ]
    shown = [o for o in here if find_overlay_slide(session, o) is slide]
    if chosen is None or gene is None or not shown:
        raise OutputError(
            f"No predicted map of {gene or 'a gene'} is visible; predict a region, or switch its "
            "layer on."
        )
    order = list(session.viewer.layers)
    shown.sort(key=lambda o: order.index(o.layer))
    back = next((r for r in restored if r.overlay is shown[-1]), None)
    mpp = float(shown[-1].prediction.provenance["mpp"]) if slide is None else slide.mpp
    settings = session.settings
    coloured = [o.prediction for o in session.overlays if gene in o.prediction.panel]
    decoded = not any(len(p.find_undecoded_rows(p.panel.row(gene))) for p in coloured)
    limits = settings.contrast_limits.fixed
    if limits is None and decoded:  # maps share their limits, hidden ones too
        limits = percentile_limits([p.get_gene_values(gene) for p in coloured])
    colours = ensure_colormap(settings.colormap).map(np.linspace(0, 1, 256))
    opacity = float(shown[-1].layer.opacity)
    histology: HistologySource | None = None if back is None else back.saved.overview
    if slide is not None:
        histology = slide.slide if slide.layer.visible else None
    drawn = None
    if slide is None and back is not None:
        outlined = back.regions is not None and back.regions in order and back.regions.visible
        drawn = back.saved.regions if outlined else None
    if regions is not None and regions.visible and slide is not None and len(regions.data):
        drawn = region_from_layer(regions, slide)
    look = FigureStyle(gene, limits, colours, opacity)
    box = _canvas_bounds(session, slide, mpp)
    return CanvasSnapshot(tuple(shown), look, settings.hatch_unreliable, histology, mpp, box, drawn)


def _canvas_bounds(session: ViewerSession, slide: ViewerSlide | None, mpp: float) -> FigureExtent:
    """The part of the slide on the canvas, in um from its corner."""
    camera, (height, width) = session.viewer.scene.camera, session.viewer.canvas.size
    middle = np.asarray(camera.center[-2:], float)
    half = np.array([height, width]) / (2 * max(camera.zoom, 1e-9))
    corners = np.stack([middle - half, middle + half])
    if slide is not None:
        corners = np.stack([slide.layer.world_to_data(c)[-2:] for c in corners]) * mpp
    (top, left), (bottom, right) = corners.tolist()
    return FigureExtent(min(left, right), min(top, bottom), max(left, right), max(top, bottom))


def save_snapshot(path: Path, snapshot: ResultSnapshot) -> Iterator[str]:
    """Save a map as what the name's ending says. Raises DkanError in words for the person."""
    from ....export.export_formats import find_export_format, write_result

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
    from ....export.figure_content import FigureMap, build_figure
    from ....export.figure_rendering import write_figure

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
    write_figure(
        path,
        build_figure(
            maps, snapshot.look, snapshot.histology, snapshot.mpp, snapshot.box, snapshot.regions
        ),
    )
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
        said.append(
            f"Its slide {_describe_missing_slide(saved.slide_record)}; open it, or press Locate slide."
        )
    elif abs(slide.mpp / saved.slide_record.mpp - 1) > 0.01:
        said.append(
            f"It was predicted at {saved.slide_record.mpp:.4g} um/px; the slide is open at "
            f"{slide.mpp:.4g} um/px."
        )
    return " ".join(said)
