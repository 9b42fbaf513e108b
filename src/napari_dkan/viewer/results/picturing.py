"""What the canvas shows, as a figure needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Shapes
from napari.utils.colormaps import ensure_colormap

from ...errors import OutputError
from ...export.figure_parts import FigureExtent
from ...export.figure_scene import FigureStyle
from ..overlay import PredictionOverlay, percentile_limits
from ..places import region_from_layer
from ..session import ViewerSlide, ViewerSession
from .gathering import get_selected_map, find_overlay_slide

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ...export.figure_ground import HistologySource
    from .restoring import RestoredResult


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


def snapshot_canvas(session: ViewerSession, regions: Shapes | None, restored: Sequence[RestoredResult]) -> CanvasSnapshot:
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
    limits = settings.limits.fixed
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
    return CanvasSnapshot(tuple(shown), look, settings.hatch, histology, mpp, box, drawn)


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
