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
from ....export.figure_content import FigureStyle
from ....export.histology import FigureExtent
from ...jobs.target_from_layers import region_from_layer
from ...layers.contrast_limits import percentile_limits
from ...layers.overlay_lookup import (
    NO_TILE_MESSAGE,
    decode_missing_genes,
    find_overlay_slide,
    get_selected_map,
)
from ...layers.reliability_overlay import get_reliability
from ...layers.spread_map import decode_spread, find_spread_checkpoint
from ...session.prediction_overlay import PredictionOverlay
from ...session.slide_layer import ViewerSlide
from ...session.viewer_session import ViewerSession

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from shapely.geometry.base import BaseGeometry

    from ....export.histology import HistologySource
    from ....export.saved_result import SavedResult, ViewSettings
    from ....model import Checkpoint
    from .restore_result import RestoredResult


@dataclass(frozen=True, eq=False)
class ResultSnapshot:
    """A map and its context when the user asked to save it, for a worker thread.

    Attributes
    ----------
    overlay : PredictionOverlay
    slide : ViewerSlide or None
        None where the slide is not open.
    card : mapping
        Card of the checkpoint; empty if the checkpoint is not known.
    regions : shapely geometry or None
        Drawn regions in level-0 px.
    view : ViewSettings
    source : SavedResult or None
        The file that the map was read from.
    spread_of : Checkpoint or None
        Decodes the spread that is saved too; None to save that of the map, if any.
    """

    overlay: PredictionOverlay
    slide: ViewerSlide | None
    card: Mapping[str, Any]
    regions: BaseGeometry | None
    view: ViewSettings
    source: SavedResult | None = None
    spread_of: Checkpoint | None = None


def snapshot_result(
    session: ViewerSession,
    overlay: PredictionOverlay,
    regions: Shapes | None,
    source: SavedResult | None = None,
) -> ResultSnapshot:
    """Snapshot a map with its regions (a Shapes layer); runs in the GUI thread."""
    slide = find_overlay_slide(session, overlay)
    checkpoint = session.checkpoint
    sha256 = overlay.prediction.provenance.get("checkpoint_sha256")
    card: Mapping[str, Any] = {} if source is None else source.card
    if checkpoint is not None and checkpoint.sha256 == sha256:
        card = checkpoint.card
    region = None if source is None else source.regions
    if regions is not None and slide is not None and len(regions.data):
        region = region_from_layer(regions, slide)
    spread_of = find_spread_checkpoint(session, overlay.prediction)
    if spread_of is not None and not spread_of.network.draws_samples:
        spread_of = spread_of if session.settings.show_spread else None
    return ResultSnapshot(
        overlay, slide, card, region, capture_view(session, overlay, slide), source, spread_of
    )


def capture_view(
    session: ViewerSession, overlay: PredictionOverlay, slide: ViewerSlide | None
) -> ViewSettings:
    """Return gene, colours and camera of the canvas."""
    from ....export.saved_result import ViewSettings

    settings, camera = session.settings, session.viewer.scene.camera
    panel = overlay.prediction.panel
    centre = tuple(float(v) for v in camera.center[-2:])
    if slide is not None:
        row, column = (float(v) for v in slide.layer.world_to_data(centre)[-2:])
    else:
        row, column = (v / float(overlay.prediction.provenance["mpp"]) for v in centre)
    return ViewSettings(
        session.gene if session.gene in panel else None,
        tuple(g for g in session.pinned if g in panel),
        settings.contrast_limits.fixed,
        settings.colormap,
        float(overlay.layer.opacity),
        settings.hatch_unreliable,
        (column, row),
        float(camera.zoom),
        dict(settings.contrast_limits.by_gene),
    )


def build_saved_result(snapshot: ResultSnapshot) -> Iterator[float | SavedResult]:
    """Decode the missing genes of a map and build what is saved; for a worker thread.

    Yields
    ------
    float
        Fraction of decoding that is done.
    SavedResult
        The last item.

    Raises
    ------
    OutputError
        No tile is predicted yet, or the slide was closed.
    SlideError
        The slide cannot be read.
    """
    from ....export.histology import SlideOverview
    from ....export.saved_result import SavedResult, SlideRecord

    overlay, slide, source = snapshot.overlay, snapshot.slide, snapshot.source
    full, reference = overlay.prediction, overlay.reference
    rows = np.flatnonzero(full.predicted_mask)  # an unfinished map is saved as far as it is
    if not len(rows):
        raise OutputError(NO_TILE_MESSAGE)
    prediction = full.take(rows)
    yield from decode_missing_genes(overlay, prediction)
    if prediction.spread is None and snapshot.spread_of is not None:
        checkpoint, spread = snapshot.spread_of, np.empty_like(prediction.values)
        symbols = prediction.panel.symbols
        yield from decode_spread(checkpoint, prediction.tokens, symbols, spread)
        record = prediction.provenance | {"spread": checkpoint.network.spread_meaning}
        prediction = replace(prediction, spread=spread, provenance=record)
    reliability = None if reference is None else get_reliability(full, reference, rows)
    overview = None if source is None else source.overview
    if slide is not None and overview is None:
        overview = SlideOverview.from_slide(slide.slide)
    provenance = prediction.provenance
    if source is not None:
        slide_record = source.slide_record
    elif slide is not None:
        slide_record = SlideRecord.from_slide(
            slide.slide, provenance["mpp"], provenance["mpp_origin"]
        )
    else:
        raise OutputError("The slide of this map was closed; open it again, then save the map.")
    if slide is not None and source is not None:
        current = SlideRecord.from_slide(slide.slide, slide_record.mpp, slide_record.mpp_origin)
        slide_record = replace(slide_record, path=current.path)
    versions = {} if source is None else source.versions
    yield SavedResult(
        prediction,
        slide_record,
        snapshot.card,
        reliability,
        snapshot.regions,
        snapshot.view,
        versions,
        overview,
    )


@dataclass(frozen=True, eq=False)
class CanvasSnapshot:
    """The visible maps of one slide and how they are displayed, for a worker thread.

    Attributes
    ----------
    overlays : tuple of PredictionOverlay
        Lowest first.
    style : FigureStyle
    hatch : bool
        Whether unreliable tiles are hatched.
    histology : HistologySource or None
        None where the slide is not open or not visible.
    mpp : float
        Micrometres per level-0 px.
    extent : FigureExtent
        Of the canvas, in um on the slide.
    regions : shapely geometry or None
        In level-0 px.
    """

    overlays: tuple[PredictionOverlay, ...]
    style: FigureStyle
    hatch: bool
    histology: HistologySource | None
    mpp: float
    extent: FigureExtent
    regions: BaseGeometry | None


def snapshot_canvas(
    session: ViewerSession, regions: Shapes | None, restored: Sequence[RestoredResult]
) -> CanvasSnapshot:
    """Snapshot the canvas: the selected map and the other visible ones of its slide.

    Raises
    ------
    OutputError
        No map of the current gene is visible.
    """
    selected, gene = get_selected_map(session), session.gene
    slide = None if selected is None else find_overlay_slide(session, selected)
    overlays = [
        o
        for o in session.overlays
        if o.layer.visible
        and o.prediction.has_gene(gene)
        and o.prediction.predicted_mask.any()
        and find_overlay_slide(session, o) is slide
    ]
    if selected is None or gene is None or not overlays:
        raise OutputError(
            f"No predicted map of {gene or 'a gene'} is visible; predict a region, or switch its "
            "layer on."
        )
    order = list(session.viewer.layers)
    overlays.sort(key=lambda o: order.index(o.layer))
    top = overlays[-1]
    result = next((r for r in restored if r.overlay is top), None)
    mpp = float(top.prediction.provenance["mpp"]) if slide is None else slide.mpp
    settings = session.settings
    of_gene = [o for o in session.overlays if o.prediction.has_gene(gene)]
    predictions = [o.prediction for o in of_gene if o in overlays or not session.is_outdated(o)]
    is_decoded = not any(len(p.find_undecoded_rows(p.columns_of(gene))) for p in predictions)
    limits = settings.contrast_limits.chosen_for(gene)
    if limits is None and is_decoded:  # all maps share their limits, hidden ones too
        limits = percentile_limits([p.get_gene_values(gene) for p in predictions])
    colors = ensure_colormap(settings.colormap).map(np.linspace(0, 1, 256))
    histology: HistologySource | None = None if result is None else result.saved.overview
    if slide is not None:
        histology = slide.slide if slide.layer.visible else None
    region = None
    if slide is None and result is not None:
        layer = result.regions
        is_drawn = layer is not None and layer in order and layer.visible
        region = result.saved.regions if is_drawn else None
    if regions is not None and regions.visible and slide is not None and len(regions.data):
        region = region_from_layer(regions, slide)
    return CanvasSnapshot(
        tuple(overlays),
        FigureStyle(gene, limits, colors, float(top.layer.opacity)),
        settings.hatch_unreliable,
        histology,
        mpp,
        _canvas_bounds(session, slide, mpp),
        region,
    )


def _canvas_bounds(session: ViewerSession, slide: ViewerSlide | None, mpp: float) -> FigureExtent:
    """Visible part of the slide in um from its corner."""
    camera, (height, width) = session.viewer.scene.camera, session.viewer.canvas.size
    middle = np.asarray(camera.center[-2:], float)
    half = np.array([height, width]) / (2 * max(camera.zoom, 1e-9))
    corners = np.stack([middle - half, middle + half])
    if slide is not None:
        corners = np.stack([slide.layer.world_to_data(c)[-2:] for c in corners]) * mpp
    (top, left), (bottom, right) = corners.tolist()
    return FigureExtent(min(left, right), min(top, bottom), max(left, right), max(top, bottom))


def save_snapshot(path: Path, snapshot: ResultSnapshot) -> Iterator[str]:
    """Save a map in the format of the file suffix; yields messages for the user.

    Raises
    ------
    DkanError
    """
    from ....export.export_formats import find_export_format, write_result

    find_export_format(path)  # raises before anything is decoded
    for item in build_saved_result(snapshot):
        if isinstance(item, float):
            yield f"Decoding the genes nobody has looked at yet, {item:.0%} ..."
            continue
        yield f"Writing {path.name} ..."
        write_result(path, item)
        prediction = item.prediction
        size = f"{len(prediction.target):,} tiles x {len(prediction.panel):,} genes"
        unfinished = len(snapshot.overlay.prediction.target) - len(prediction.target)
        note = f" {unfinished:,} tiles were not predicted and are left out." if unfinished else ""
        yield f"{path.name} is saved: {size}.{note}"


def write_canvas_figure(path: Path, snapshot: CanvasSnapshot) -> Iterator[str]:
    """Write a figure of a canvas; yields messages for the user.

    Raises
    ------
    DkanError
    """
    from ....export.figure_content import FigureMap, build_figure
    from ....export.figure_rendering import write_figure

    maps = []
    for overlay in snapshot.overlays:
        full = overlay.prediction
        rows = np.flatnonzero(full.predicted_mask)
        prediction, columns = full.take(rows), full.columns_of(snapshot.style.gene)
        for fraction in decode_missing_genes(overlay, prediction, columns):
            yield f"Decoding {snapshot.style.gene}, {fraction:.0%} ..."
        reference = overlay.reference if snapshot.hatch else None
        unreliable = None
        if reference is not None:
            unreliable = get_reliability(full, reference, rows).unreliable
        maps.append(FigureMap(prediction, unreliable))
    yield f"Drawing {path.name} ..."
    write_figure(
        path,
        build_figure(
            maps,
            snapshot.style,
            snapshot.histology,
            snapshot.mpp,
            snapshot.extent,
            snapshot.regions,
        ),
    )
    yield f"{path.name} is written."
