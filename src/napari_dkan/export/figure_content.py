"""The content of a figure: heatmaps, the histology below them, legend and caption.

Lengths are in um from the top left corner of the slide, y downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from shapely.affinity import scale

from ..errors import OutputError
from ..inference.map_colors import DEFAULT_COLORMAP
from ..inference.prediction import DISPLAY_PERCENTILES, Prediction
from .histology import FigureExtent, HistologyImage, crop_histology, get_histology_size

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ..slide import Slide
    from .histology import HistologySource
    from .saved_result import SavedResult


@dataclass(frozen=True, eq=False)
class GridHeatmap:
    """Values (R, C) of a tile grid, NaN where there is none, and their extent."""

    values: NDArray[np.float32]
    extent: FigureExtent


@dataclass(frozen=True, eq=False)
class SpotHeatmap:
    """Values (N,) of squares around centers (N, 2), and the side of the squares in um."""

    values: NDArray[np.float32]
    xy: NDArray[np.float64]
    side: float


@dataclass(frozen=True, eq=False)
class FigureLegend:
    """The legend of a heatmap.

    Attributes
    ----------
    value_kind : str
        "predicted" or "predicted zero-shot".
    limits : tuple of float
        Values of the first and the last color.
    colors : ndarray
        (K, 4) RGBA from 0 to 1.
    """

    gene: str
    value_kind: str
    units: str
    limits: tuple[float, float]
    colors: NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class FigureContent:
    """Everything that a figure shows.

    Attributes
    ----------
    extent : FigureExtent
        The part of the slide that is shown.
    heatmaps : tuple
        From bottom to top.
    caption : str
        Sentences below the figure; the sentence that it is not for diagnosis is always added.
    unreliable_boxes : ndarray
        (M, 4) left, top, right and bottom of unreliable tiles.
    regions : BaseGeometry or None
        Outlines in um.
    """

    extent: FigureExtent
    histology: HistologyImage | None
    heatmaps: tuple[GridHeatmap | SpotHeatmap, ...]
    legend: FigureLegend
    opacity: float
    caption: str
    unreliable_boxes: NDArray[np.float64]
    regions: BaseGeometry | None = None


PADDING_FRACTION = 0.06  # of the map's longer side
MIN_EXTENT_UM = 500.0  # shows the surroundings of a map of a few spots


@dataclass(frozen=True, eq=False)
class FigureMap:
    """A prediction to show, and the mask (N,) of tiles to hatch; None hatches none."""

    prediction: Prediction
    unreliable_mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class FigureStyle:
    """Gene, limits and colors of the maps.

    Attributes
    ----------
    limits : tuple of float or None
        None for the percentiles 2 and 98 of all values of the shown maps.
    colormap : str or ndarray
        Name of a matplotlib colormap, or (K, 4) RGBA from 0 to 1.
    """

    gene: str
    limits: tuple[float, float] | None = None
    colormap: str | NDArray[np.floating] = DEFAULT_COLORMAP
    opacity: float = 0.65


def build_figure(
    maps: Sequence[FigureMap],
    style: FigureStyle,
    histology: HistologySource | None,
    mpp: float,
    extent: FigureExtent | None = None,
    regions: BaseGeometry | None = None,
) -> FigureContent:
    """Compose a figure of one or more maps of one slide.

    It reads the slide: call it in a worker thread.

    Parameters
    ----------
    histology : Slide, SlideOverview or None
        The slide, or the overview image of a result.
    mpp : float
        um per level-0 px.
    extent : FigureExtent, optional
        The part of the slide to show; all of the maps when None.
    regions : BaseGeometry, optional
        Outlines in level-0 px.

    Raises
    ------
    OutputError
        When no map has a value of the gene.
    SlideError
        When the slide is damaged.
    """
    with_gene = [m for m in maps if m.prediction.has_gene(style.gene)]
    shown = [m for m in with_gene if np.isfinite(m.prediction.get_gene_values(style.gene)).any()]
    if not shown:
        raise OutputError(
            f"There is no predicted map of {style.gene} to make a figure of; predict it first, "
            "or choose another gene."
        )
    last = shown[-1].prediction
    boxes = [_compute_tile_boxes(m.prediction, mpp) for m in shown]
    extent = extent or _compute_padded_extent(np.concatenate(boxes), histology, mpp)
    hatched = [
        tiles[m.unreliable_mask & m.prediction.predicted_mask]
        for m, tiles in zip(shown, boxes, strict=True)
        if m.unreliable_mask is not None
    ]
    values = [m.prediction.get_gene_values(style.gene) for m in shown]
    legend = FigureLegend(
        style.gene,
        last.get_value_kind(style.gene),
        last.get_value_units(style.gene),
        style.limits or _compute_limits(np.concatenate(values)),
        _resolve_colormap(style.colormap),
    )
    return FigureContent(
        extent,
        None if histology is None else crop_histology(histology, extent, mpp),
        tuple(_build_heatmap(m.prediction, v, mpp) for m, v in zip(shown, values, strict=True)),
        legend,
        style.opacity,
        _format_caption([m.prediction for m in shown]),
        _select_visible(extent, np.concatenate([*hatched, np.empty((0, 4))])),
        None if regions is None else scale(regions, mpp, mpp, origin=(0, 0)),
    )


def build_result_figure(
    result: SavedResult, slide: Slide | None = None, gene: str | None = None
) -> FigureContent:
    """Compose the figure of a saved result: its whole map in its view settings.

    Parameters
    ----------
    slide : Slide, optional
        For the histology; the result's overview image when None.
    gene : str, optional
        Symbol or alias; the gene last viewed when None.

    Raises
    ------
    OutputError, SlideError
        As `build_figure`.
    SpotsError
        When the gene is not in the panel.
    """
    prediction, view = result.prediction, result.view_settings
    panel = prediction.panel
    viewed = None if view is None or view.gene not in panel else view.gene
    gene = panel.symbols[panel.row(gene)] if gene else viewed or panel.symbols[0]
    style = (
        FigureStyle(gene)
        if view is None
        else FigureStyle(gene, view.limits, view.colormap, view.opacity)
    )
    shows_hatching = view is None or view.hatch
    unreliable = result.reliability.unreliable if result.reliability and shows_hatching else None
    histology = result.overview if slide is None else slide
    figure_map = FigureMap(prediction, unreliable)
    return build_figure(
        [figure_map], style, histology, result.slide_record.mpp, regions=result.regions
    )


def _compute_tile_boxes(prediction: Prediction, mpp: float) -> NDArray[np.float64]:
    """(N, 4) left, top, right and bottom of every tile in um."""
    half = _get_tile_side_um(prediction, mpp) / 2
    xy = prediction.target.spots.xy * mpp
    boxes: NDArray[np.float64] = np.hstack([xy - half, xy + half])
    return boxes


def _select_visible(extent: FigureExtent, tiles: NDArray[np.float64]) -> NDArray[np.float64]:
    left, top, right, bottom = tiles.T
    outside = (
        (right < extent.left)
        | (left > extent.right)
        | (bottom < extent.top)
        | (top > extent.bottom)
    )
    visible: NDArray[np.float64] = tiles[~outside]
    return visible


def _get_tile_side_um(prediction: Prediction, mpp: float) -> float:
    if prediction.target.grid is not None:
        return prediction.target.grid.pitch * mpp
    return prediction.spot_diameter_um


def _build_heatmap(
    prediction: Prediction, values: NDArray[np.float32], mpp: float
) -> GridHeatmap | SpotHeatmap:
    grid = prediction.target.grid
    if grid is None:
        return SpotHeatmap(
            values, prediction.target.spots.xy * mpp, _get_tile_side_um(prediction, mpp)
        )
    raster = grid.to_raster(values)
    left, top = grid.first_cell * grid.pitch * mpp
    rows, columns = np.array(raster.shape) * grid.pitch * mpp
    return GridHeatmap(raster, FigureExtent(left, top, left + columns, top + rows))


def _compute_padded_extent(
    tiles: NDArray[np.float64], histology: HistologySource | None, mpp: float
) -> FigureExtent:
    """The extent of all tiles with a margin, clipped to the slide."""
    (left, top), (right, bottom) = tiles[:, :2].min(axis=0), tiles[:, 2:].max(axis=0)
    margin = max(
        PADDING_FRACTION * max(right - left, bottom - top), (MIN_EXTENT_UM - (right - left)) / 2
    )
    left, top, right, bottom = left - margin, top - margin, right + margin, bottom + margin
    if histology is not None:
        width, height = get_histology_size(histology)
        left, top = max(left, 0), max(top, 0)
        right, bottom = min(right, width * mpp), min(bottom, height * mpp)
    return FigureExtent(float(left), float(top), float(right), float(bottom))


def _compute_limits(values: NDArray[np.float32]) -> tuple[float, float]:
    low, high = (float(v) for v in np.percentile(values[np.isfinite(values)], DISPLAY_PERCENTILES))
    return (low, high) if high - low >= 1e-6 else (low - 0.05, low + 0.05)


def _resolve_colormap(colormap: str | NDArray[np.floating]) -> NDArray[np.floating]:
    if not isinstance(colormap, str):
        return colormap
    from matplotlib import colormaps

    if colormap not in colormaps:
        raise OutputError(f"There is no colour map {colormap!r}; choose e.g. magma or viridis.")
    return np.asarray(colormaps[colormap](np.linspace(0, 1, 256)))


def _format_caption(predictions: Sequence[Prediction]) -> str:
    """Name the models, slides, days and versions of the maps, each once."""
    records = [p.provenance for p in predictions]
    models = [
        f"{r.get('checkpoint') or 'untitled checkpoint'} ({r.get('checkpoint_sha256', '')[:8]})"
        for r in records
    ]
    days = [str(r.get("created", ""))[:10] for r in records]
    slides = [str(r.get("slide", "")) for r in records]
    versions = [f"napari-dkan\u00a0{r.get('version', '')}" for r in records]
    model, day, slide, version = (
        ", ".join(dict.fromkeys(names)) for names in (models, days, slides, versions)
    )
    return f"Predicted by the checkpoint {model} on the slide {slide}, {day}, {version}."
