"""What a figure shows: predicted maps, the histology under them, and the words that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from shapely.affinity import scale as scaled

from ..errors import OutputError
from ..inference.prediction import Prediction
from .figure_ground import ground_of, size_of
from .figure_parts import Box, FigureInput, GridHeat, Legend, SpotsHeat

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ..slide import Slide
    from .figure_ground import Histology
    from .saved import Saved

PERCENTILES = 2.0, 98.0  # limits of a gene, as in the window
ROOM = 0.06  # around a map that is shown whole
SMALLEST_UM = 500.0  # a map of a few spots still shows where they are


@dataclass(frozen=True, eq=False)
class Map:
    """A prediction to show. unreliable : (N,) tiles to hatch, None for none at all."""

    prediction: Prediction
    unreliable: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Look:
    """How maps are drawn. limits : None for percentiles 2 and 98 of all that is shown.

    colours : a matplotlib colour map's name, or (K, 4) RGBA 0..1.
    """

    gene: str
    limits: tuple[float, float] | None = None
    colours: str | NDArray[np.floating] = "magma"
    opacity: float = 0.65


def figure_of(
    maps: Sequence[Map],
    look: Look,
    histology: Histology | None,
    mpp: float,
    box: Box | None = None,
    regions: BaseGeometry | None = None,
) -> FigureInput:
    """The figure of some maps of one slide; it reads the slide, so call it in a thread.

    histology : the slide, or what little of it travelled with a result. mpp : um per level-0 px.
    box : the part of the slide to show, all of the maps when None. regions : in level-0 px.
    Raises OutputError when no map has a value of the gene, SlideError when the slide is damaged.
    """
    with_gene = [m for m in maps if look.gene in m.prediction.panel]
    shown = [m for m in with_gene if np.isfinite(m.prediction.gene(look.gene)).any()]
    if not shown:
        raise OutputError(
            f"There is no predicted map of {look.gene} to make a figure of; predict it first, "
            "or choose another gene."
        )
    last = shown[-1].prediction
    boxes = [_tiles(m.prediction, mpp) for m in shown]
    box = box or _around(np.concatenate(boxes), histology, mpp)
    doubtful = [
        tiles[m.unreliable & m.prediction.done]
        for m, tiles in zip(shown, boxes, strict=True)
        if m.unreliable is not None
    ]
    values = [m.prediction.gene(look.gene) for m in shown]
    legend = Legend(
        look.gene,
        last.kind(look.gene),
        last.units(look.gene),
        look.limits or _limits(np.concatenate(values)),
        _colours(look.colours),
    )
    return FigureInput(
        box,
        None if histology is None else ground_of(histology, box, mpp),
        tuple(_heat(m.prediction, v, mpp) for m, v in zip(shown, values, strict=True)),
        legend,
        look.opacity,
        _caption([m.prediction for m in shown]),
        _within(box, np.concatenate([*doubtful, np.empty((0, 4))])),
        None if regions is None else scaled(regions, mpp, mpp, origin=(0, 0)),
    )


def saved_figure(saved: Saved, slide: Slide | None = None, gene: str | None = None) -> FigureInput:
    """The figure of a saved result: all of its map, as it was looked at.

    slide : for the histology; without it the small picture that travelled along is shown. gene :
    the one that was looked at when None. Raises what `figure_of` does; SpotsError when the panel
    does not have the gene.
    """
    prediction, view = saved.prediction, saved.view
    panel = prediction.panel
    viewed = None if view is None or view.gene not in panel else view.gene
    gene = panel.symbols[panel.row(gene)] if gene else viewed or panel.symbols[0]
    look = Look(gene) if view is None else Look(gene, view.limits, view.colormap, view.opacity)
    hatch = saved.reliability is not None and (view is None or view.hatch)
    shown = Map(prediction, saved.reliability.unreliable if hatch and saved.reliability else None)
    histology = saved.picture if slide is None else slide
    return figure_of([shown], look, histology, saved.slide.mpp, regions=saved.regions)


def _tiles(prediction: Prediction, mpp: float) -> NDArray[np.float64]:
    """(N, 4) left, top, right, bottom of every tile as it is drawn, in um."""
    reach = _side(prediction, mpp) / 2
    xy = prediction.target.spots.xy * mpp
    return np.hstack([xy - reach, xy + reach])


def _within(box: Box, tiles: NDArray[np.float64]) -> NDArray[np.float64]:
    left, top, right, bottom = tiles.T
    beside = (right < box.left) | (left > box.right) | (bottom < box.top) | (top > box.bottom)
    return tiles[~beside]


def _side(prediction: Prediction, mpp: float) -> float:
    if prediction.target.grid is not None:
        return prediction.target.grid.pitch * mpp
    return float(prediction.target.spots.diameter_um or prediction.provenance["patch_um"])


def _heat(prediction: Prediction, values: NDArray[np.float32], mpp: float) -> GridHeat | SpotsHeat:
    grid = prediction.target.grid
    if grid is None:
        return SpotsHeat(values, prediction.target.spots.xy * mpp, _side(prediction, mpp))
    raster = grid.raster(values)
    left, top = grid.corner * grid.pitch * mpp
    rows, columns = np.array(raster.shape) * grid.pitch * mpp
    return GridHeat(raster, Box(left, top, left + columns, top + rows))


def _around(tiles: NDArray[np.float64], histology: Histology | None, mpp: float) -> Box:
    """All of the tiles with some room around, as far as the slide goes."""
    (left, top), (right, bottom) = tiles[:, :2].min(axis=0), tiles[:, 2:].max(axis=0)
    room = max(ROOM * max(right - left, bottom - top), (SMALLEST_UM - (right - left)) / 2)
    left, top, right, bottom = left - room, top - room, right + room, bottom + room
    if histology is not None:
        width, height = size_of(histology)
        left, top = max(left, 0), max(top, 0)
        right, bottom = min(right, width * mpp), min(bottom, height * mpp)
    return Box(float(left), float(top), float(right), float(bottom))


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    low, high = (float(v) for v in np.percentile(values[np.isfinite(values)], PERCENTILES))
    return (low, high) if high - low >= 1e-6 else (low - 0.05, low + 0.05)


def _colours(colours: str | NDArray[np.floating]) -> NDArray[np.floating]:
    if not isinstance(colours, str):
        return colours
    from matplotlib import colormaps

    if colours not in colormaps:
        raise OutputError(f"There is no colour map {colours!r}; choose e.g. magma or viridis.")
    return np.asarray(colormaps[colours](np.linspace(0, 1, 256)))


def _caption(predictions: Sequence[Prediction]) -> str:
    """Which model, slide, day and version; each once, as several maps may differ in them."""
    records = [p.provenance for p in predictions]
    models = [
        f"{r.get('checkpoint') or 'untitled checkpoint'} ({r.get('checkpoint_sha256', '')[:8]})"
        for r in records
    ]
    days = [str(r.get("created", ""))[:10] for r in records]
    slides = [str(r.get("slide", "")) for r in records]
    versions = [f"napari-dkan\u00a0{r.get('version', '')}" for r in records]
    model, day, slide, version = (
        ", ".join(dict.fromkeys(each)) for each in (models, days, slides, versions)
    )
    return f"Predicted by the DKAN checkpoint {model} on the slide {slide}, {day}, {version}."
