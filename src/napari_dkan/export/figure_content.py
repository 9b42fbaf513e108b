"""The content of a figure: heatmaps, the histology below them, legend and caption.

Lengths are um from the top left corner of the slide, y downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from shapely.affinity import scale as scaled

from ..errors import OutputError
from ..inference.prediction import Prediction
from .slide_overview import SlideOverview

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ..slide import Slide
    from .saved_result import SavedResult


@dataclass(frozen=True)
class FigureExtent:
    """A rectangle in um."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


@dataclass(frozen=True, eq=False)
class HistologyImage:
    """Histology: pixels (H, W, 3) uint8, and what they cover."""

    pixels: NDArray[np.uint8]
    extent: FigureExtent


@dataclass(frozen=True, eq=False)
class GridHeatmap:
    """Values (R, C) of a tile grid, NaN where there is none, and what they cover."""

    values: NDArray[np.float32]
    extent: FigureExtent


@dataclass(frozen=True, eq=False)
class SpotHeatmap:
    """Values (N,) of squares of this side around xy (N, 2)."""

    values: NDArray[np.float32]
    xy: NDArray[np.float64]
    side: float


@dataclass(frozen=True, eq=False)
class FigureLegend:
    """What the colours mean. colours : (K, 4) RGBA 0..1 from the lower to the upper limit."""

    gene: str
    value_kind: str  # "predicted", or "predicted zero-shot"
    units: str
    limits: tuple[float, float]
    colors: NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class FigureContent:
    """All that is drawn.

    box : the part of the slide that is shown. heats : maps, the lowest first. unreliable :
    (M, 4) left, top, right, bottom of tiles not to be relied on. regions : drawn outlines in um.
    caption : sentences below; that nothing of this is for diagnosis is always added.
    """

    extent: FigureExtent
    histology: HistologyImage | None
    heatmaps: tuple[GridHeatmap | SpotHeatmap, ...]
    legend: FigureLegend
    opacity: float
    caption: str
    unreliable_boxes: NDArray[np.float64]
    regions: BaseGeometry | None = None


if TYPE_CHECKING:
    from ..slide import Slide

    HistologySource = Slide | SlideOverview

MAX_HISTOLOGY_PX = 1700  # more than what is printed


def get_histology_size(histology: HistologySource) -> tuple[float, float]:
    """Width and height in level-0 px."""
    if isinstance(histology, SlideOverview):
        height, width = histology.rgb.shape[:2]
        return width / histology.scale, height / histology.scale
    return histology.width, histology.height


def crop_histology(
    histology: HistologySource, extent: FigureExtent, mpp: float
) -> HistologyImage | None:
    """What lies in the box (um), fine enough for paper; None where the box is beside it.

    mpp : um per level-0 px. Raises SlideError when the slide is damaged there.
    """
    from PIL import Image

    wide, high = get_histology_size(histology)
    left, top = max(extent.left / mpp, 0), max(extent.top / mpp, 0)
    right, bottom = min(extent.right / mpp, wide), min(extent.bottom / mpp, high)
    if right - left < 1 or bottom - top < 1:
        return None
    coarse = max(1.0, max(right - left, bottom - top) / MAX_HISTOLOGY_PX)
    read = _crop_overview if isinstance(histology, SlideOverview) else _crop_slide
    pixels, x, y, down = read(histology, (left, top, right, bottom), coarse)  # type: ignore[arg-type]
    height, width = pixels.shape[:2]
    corners = np.array([x, y, x + width, y + height]) * down * mpp
    size = max(1, round(width * down / coarse)), max(1, round(height * down / coarse))
    if size[0] < width:
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    return HistologyImage(pixels, FigureExtent(*corners.tolist()))


# Pixels of a part (left, top, right, bottom in level-0 px), and where they lie: x and y of their
# corner in pixels of their own, each of which is so many level-0 px wide.
_PixelCrop = tuple[NDArray[np.uint8], int, int, float]
_CropCorners = tuple[float, float, float, float]


def _crop_slide(slide: Slide, corners: _CropCorners, coarse: float) -> _PixelCrop:
    level = slide.best_level_for_downsample(coarse)
    down = slide.levels[level].downsample
    x, y, width, height = _round_outward(corners, down)
    return slide.read_region(x, y, width, height, level), x, y, down


def _crop_overview(overview: SlideOverview, corners: _CropCorners, coarse: float) -> _PixelCrop:
    down = 1 / overview.scale
    x, y, width, height = _round_outward(corners, down)
    return overview.rgb[y : y + height, x : x + width], x, y, down


def _round_outward(corners: _CropCorners, down: float) -> tuple[int, int, int, int]:
    """The pixels that cover it: x, y, width, height."""
    left, top, right, bottom = (value / down for value in corners)
    x, y = int(left), int(top)
    return x, y, max(1, int(np.ceil(right)) - x), max(1, int(np.ceil(bottom)) - y)


LIMIT_PERCENTILES = 2.0, 98.0  # limits of a gene, as in the window
PADDING_FRACTION = 0.06  # around a map that is shown whole
MIN_EXTENT_UM = 500.0  # a map of a few spots still shows where they are


@dataclass(frozen=True, eq=False)
class FigureMap:
    """A prediction to show. unreliable : (N,) tiles to hatch, None for none at all."""

    prediction: Prediction
    unreliable_mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class FigureStyle:
    """How maps are drawn. limits : None for percentiles 2 and 98 of all that is shown.

    colours : a matplotlib colour map's name, or (K, 4) RGBA 0..1.
    """

    gene: str
    limits: tuple[float, float] | None = None
    colormap: str | NDArray[np.floating] = "magma"
    opacity: float = 0.65


def build_figure(
    maps: Sequence[FigureMap],
    style: FigureStyle,
    histology: HistologySource | None,
    mpp: float,
    extent: FigureExtent | None = None,
    regions: BaseGeometry | None = None,
) -> FigureContent:
    """The figure of some maps of one slide; it reads the slide, so call it in a thread.

    histology : the slide, or what little of it travelled with a result. mpp : um per level-0 px.
    box : the part of the slide to show, all of the maps when None. regions : in level-0 px.
    Raises OutputError when no map has a value of the gene, SlideError when the slide is damaged.
    """
    with_gene = [m for m in maps if style.gene in m.prediction.panel]
    shown = [m for m in with_gene if np.isfinite(m.prediction.get_gene_values(style.gene)).any()]
    if not shown:
        raise OutputError(
            f"There is no predicted map of {style.gene} to make a figure of; predict it first, "
            "or choose another gene."
        )
    last = shown[-1].prediction
    boxes = [_compute_tile_boxes(m.prediction, mpp) for m in shown]
    extent = extent or _compute_padded_extent(np.concatenate(boxes), histology, mpp)
    doubtful = [
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
        _select_visible(extent, np.concatenate([*doubtful, np.empty((0, 4))])),
        None if regions is None else scaled(regions, mpp, mpp, origin=(0, 0)),
    )


def build_result_figure(
    result: SavedResult, slide: Slide | None = None, gene: str | None = None
) -> FigureContent:
    """The figure of a saved result: all of its map, as it was looked at.

    slide : for the histology; without it the small picture that travelled along is shown. gene :
    the one that was looked at when None. Raises what `figure_of` does; SpotsError when the panel
    does not have the gene.
    """
    prediction, view = result.prediction, result.view_settings
    panel = prediction.panel
    viewed = None if view is None or view.gene not in panel else view.gene
    gene = panel.symbols[panel.row(gene)] if gene else viewed or panel.symbols[0]
    look = (
        FigureStyle(gene)
        if view is None
        else FigureStyle(gene, view.limits, view.colormap, view.opacity)
    )
    hatch = result.reliability is not None and (view is None or view.hatch)
    shown = FigureMap(
        prediction, result.reliability.unreliable if hatch and result.reliability else None
    )
    histology = result.overview if slide is None else slide
    return build_figure([shown], look, histology, result.slide_record.mpp, regions=result.regions)


def _compute_tile_boxes(prediction: Prediction, mpp: float) -> NDArray[np.float64]:
    """(N, 4) left, top, right, bottom of every tile as it is drawn, in um."""
    reach = _get_tile_side_um(prediction, mpp) / 2
    xy = prediction.target.spots.xy * mpp
    return np.hstack([xy - reach, xy + reach])


def _select_visible(extent: FigureExtent, tiles: NDArray[np.float64]) -> NDArray[np.float64]:
    left, top, right, bottom = tiles.T
    beside = (
        (right < extent.left)
        | (left > extent.right)
        | (bottom < extent.top)
        | (top > extent.bottom)
    )
    return tiles[~beside]


def _get_tile_side_um(prediction: Prediction, mpp: float) -> float:
    if prediction.target.grid is not None:
        return prediction.target.grid.pitch * mpp
    return float(prediction.target.spots.diameter_um or prediction.provenance["patch_um"])


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
    """All of the tiles with some room around, as far as the slide goes."""
    (left, top), (right, bottom) = tiles[:, :2].min(axis=0), tiles[:, 2:].max(axis=0)
    room = max(
        PADDING_FRACTION * max(right - left, bottom - top), (MIN_EXTENT_UM - (right - left)) / 2
    )
    left, top, right, bottom = left - room, top - room, right + room, bottom + room
    if histology is not None:
        width, height = get_histology_size(histology)
        left, top = max(left, 0), max(top, 0)
        right, bottom = min(right, width * mpp), min(bottom, height * mpp)
    return FigureExtent(float(left), float(top), float(right), float(bottom))


def _compute_limits(values: NDArray[np.float32]) -> tuple[float, float]:
    low, high = (float(v) for v in np.percentile(values[np.isfinite(values)], LIMIT_PERCENTILES))
    return (low, high) if high - low >= 1e-6 else (low - 0.05, low + 0.05)


def _resolve_colormap(colormap: str | NDArray[np.floating]) -> NDArray[np.floating]:
    if not isinstance(colormap, str):
        return colormap
    from matplotlib import colormaps

    if colormap not in colormaps:
        raise OutputError(f"There is no colour map {colormap!r}; choose e.g. magma or viridis.")
    return np.asarray(colormaps[colormap](np.linspace(0, 1, 256)))


def _format_caption(predictions: Sequence[Prediction]) -> str:
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
