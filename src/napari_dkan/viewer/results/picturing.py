"""What the canvas shows, as a figure needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Shapes
from napari.utils.colormaps import ensure_colormap

from ...errors import OutputError
from ...export.figure_parts import Box
from ...export.figure_scene import Look
from ..overlay import Overlay, robust_limits
from ..places import shapes_region
from ..session import OpenSlide, Session
from .gathering import chosen_map, slide_of

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ...export.figure_ground import Histology
    from .restoring import Reopened


@dataclass(frozen=True, eq=False)
class Seen:
    """The maps of one slide on the canvas, lowest first, and how they are shown.

    histology : None where the slide is neither here nor visible. box : of the canvas, um on the
    slide. regions : level-0 px.
    """

    overlays: tuple[Overlay, ...]
    look: Look
    hatch: bool
    histology: Histology | None
    mpp: float
    box: Box
    regions: BaseGeometry | None


def seen(session: Session, regions: Shapes | None, reopened: Sequence[Reopened]) -> Seen:
    """What is on the canvas now: the chosen map and those beside it on its slide.

    Raises OutputError when no map of the shown gene is visible.
    """
    chosen, gene = chosen_map(session), session.gene
    slide = None if chosen is None else slide_of(session, chosen)
    here = [
        o
        for o in session.overlays
        if o.layer.visible and gene in o.prediction.panel and o.prediction.done.any()
    ]
    shown = [o for o in here if slide_of(session, o) is slide]
    if chosen is None or gene is None or not shown:
        raise OutputError(
            f"No predicted map of {gene or 'a gene'} is visible; predict a region, or switch its "
            "layer on."
        )
    order = list(session.viewer.layers)
    shown.sort(key=lambda o: order.index(o.layer))
    back = next((r for r in reopened if r.overlay is shown[-1]), None)
    mpp = float(shown[-1].prediction.provenance["mpp"]) if slide is None else slide.mpp
    settings = session.settings
    coloured = [o.prediction for o in session.overlays if gene in o.prediction.panel]
    decoded = not any(len(p.undecoded(p.panel.row(gene))) for p in coloured)
    limits = settings.limits.fixed
    if limits is None and decoded:  # maps share their limits, hidden ones too
        limits = robust_limits([p.gene(gene) for p in coloured])
    colours = ensure_colormap(settings.colormap).map(np.linspace(0, 1, 256))
    opacity = float(shown[-1].layer.opacity)
    histology: Histology | None = None if back is None else back.saved.picture
    if slide is not None:
        histology = slide.slide if slide.layer.visible else None
    drawn = None
    if slide is None and back is not None:
        outlined = back.regions is not None and back.regions in order and back.regions.visible
        drawn = back.saved.regions if outlined else None
    if regions is not None and regions.visible and slide is not None and len(regions.data):
        drawn = shapes_region(regions, slide)
    look = Look(gene, limits, colours, opacity)
    box = _canvas(session, slide, mpp)
    return Seen(tuple(shown), look, settings.hatch, histology, mpp, box, drawn)


def _canvas(session: Session, slide: OpenSlide | None, mpp: float) -> Box:
    """The part of the slide on the canvas, in um from its corner."""
    camera, (height, width) = session.viewer.scene.camera, session.viewer.canvas.size
    middle = np.asarray(camera.center[-2:], float)
    half = np.array([height, width]) / (2 * max(camera.zoom, 1e-9))
    corners = np.stack([middle - half, middle + half])
    if slide is not None:
        corners = np.stack([slide.layer.world_to_data(c)[-2:] for c in corners]) * mpp
    (top, left), (bottom, right) = corners.tolist()
    return Box(min(left, right), min(top, bottom), max(left, right), max(top, bottom))
