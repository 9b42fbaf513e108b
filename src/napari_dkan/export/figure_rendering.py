"""Render a figure with matplotlib as PNG, SVG or PDF.

It uses matplotlib.figure.Figure without pyplot, so that any thread may write a figure.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from unicodedata import category

import numpy as np
import shapely
from numpy.typing import NDArray

from ..atomic_write import atomic_write
from ..errors import OutputError
from .figure_content import FigureContent, FigureLegend, GridHeatmap
from .histology import FigureExtent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from shapely.geometry.base import BaseGeometry


FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
FIGURE_DPI = 300
MAX_MAP_WIDTH_IN, MAX_MAP_HEIGHT_IN, MIN_MAP_HEIGHT_IN = 5.6, 7.5, 1.2
MARGIN_IN, COLOR_BAR_WIDTH_IN, TITLE_HEIGHT_IN = 0.2, 1.4, 0.42
CAPTION_LINE_IN, CAPTION_LINE_CHARS = 0.155, 114
COLOR_BAR_CHAR_IN = 0.06  # width of a character of the color bar's label
SCALE_BAR_LENGTHS_UM = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
MAX_SCALE_BAR_FRACTION = 0.3  # of the map's width
REGION_COLOR = "#00b8d4"
HATCH_FACE_COLOR, HATCH_LINE_COLOR = (0.88, 0.88, 0.88, 0.45), (0.1, 0.1, 0.1, 0.8)

_render_lock = Lock()  # rcParams are global


def load_matplotlib() -> None:
    """Import what draws figures, which takes a second; a window does it before it is asked."""
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_pdf
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401


def write_figure(path: str | Path, content: FigureContent) -> Path:
    """Write a PNG, SVG or PDF atomically, as the file name ends; text stays editable.

    Raises
    ------
    OutputError
        When the suffix is another one or the file cannot be written.
    """
    from matplotlib import rc_context

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FIGURE_SUFFIXES:
        raise OutputError(f"{path.name} is no figure; let its name end in .png, .svg or .pdf.")
    with (
        atomic_write(path) as temporary,
        _render_lock,
        rc_context({"svg.fonttype": "none", "pdf.fonttype": 42}),  # text stays editable
    ):
        figure = render_figure(content)
        title = f"{content.legend.gene} {content.legend.value_kind}"
        # Histology hardly compresses better at higher levels.
        options: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}} if suffix == ".png" else {}
        figure.savefig(
            temporary, format=suffix[1:], dpi=FIGURE_DPI, metadata={"Title": title}, **options
        )
    return path


def render_figure(content: FigureContent) -> Figure:
    """Draw a figure of the content."""
    from matplotlib.figure import Figure

    extent, legend = content.extent, content.legend
    caption = [
        line for part in _build_caption(content) for line in _wrap_text(part, CAPTION_LINE_CHARS)
    ]
    width = min(MAX_MAP_WIDTH_IN, MAX_MAP_HEIGHT_IN * extent.width / extent.height)
    height = max(width * extent.height / extent.width, MIN_MAP_HEIGHT_IN)
    bottom = 0.12 + CAPTION_LINE_IN * (len(caption) + 0.8)
    size = MARGIN_IN + MAX_MAP_WIDTH_IN + COLOR_BAR_WIDTH_IN, bottom + height + TITLE_HEIGHT_IN
    figure = Figure(size, facecolor="white")

    def add_axes(x: float, y: float, wide: float, tall: float) -> Axes:
        """Axes at a place and of a size in inches."""
        return figure.add_axes((x / size[0], y / size[1], wide / size[0], tall / size[1]))

    axes = add_axes(MARGIN_IN, bottom, width, height)
    _draw_maps(axes, content)
    _draw_scale_bar(axes, extent, height)
    bar_height = min(height, 3.0)
    bar_axes = add_axes(MARGIN_IN + width + 0.15, bottom, 0.16, bar_height)
    _draw_color_bar(bar_axes, legend, int(bar_height / COLOR_BAR_CHAR_IN))
    style: dict[str, Any] = {"parse_math": False, "family": "DejaVu Sans", "color": "black"}
    left, top = MARGIN_IN / size[0], 1 - 0.12 / size[1]
    title = f"{legend.gene} - {legend.value_kind}"
    figure.text(
        left, top, _replace_control_characters(title), size=13, weight="bold", va="top", **style
    )
    caption_top = (bottom - 0.12) / size[1]
    for number, line in enumerate(caption):
        y = caption_top - number * CAPTION_LINE_IN / size[1]
        figure.text(left, y, _replace_control_characters(line), size=7.5, va="top", **style)
    return figure


def _build_caption(content: FigureContent) -> list[str]:
    scale, *expectation = content.legend.units.splitlines()
    sentences = [content.caption, f"Colours: {scale}.", *expectation]
    if count := len(content.unreliable_boxes):
        sentences.append(f"Hatched: not to be relied on ({count:,} tiles here).")
    return [
        *sentences,
        "Predicted from the H&E image, not measured. Research only, not for diagnosis.",
    ]


def _draw_maps(axes: Axes, content: FigureContent) -> None:
    from matplotlib.collections import LineCollection, PolyCollection

    extent, legend = content.extent, content.legend
    if content.histology is not None:
        _draw_image(axes, content.histology.pixels, content.histology.extent, "antialiased")
    for heat in content.heatmaps:
        if isinstance(heat, GridHeatmap):
            _draw_image(
                axes, _apply_colormap(heat.values, legend, content.opacity), heat.extent, "nearest"
            )
        else:
            half = heat.side / 2
            known = np.isfinite(heat.values)
            corners = _make_box_corners(np.hstack([heat.xy - half, heat.xy + half])[known])
            colors = _apply_colormap(heat.values[known], legend, content.opacity)
            axes.add_collection(
                PolyCollection(corners, facecolors=colors, edgecolors="white", linewidths=0.2)
            )
    if len(content.unreliable_boxes):
        axes.add_collection(
            PolyCollection(
                _make_box_corners(content.unreliable_boxes),
                facecolors=[HATCH_FACE_COLOR],
                edgecolors=[HATCH_LINE_COLOR],
                linewidths=0,
                hatch="//////",
            )
        )
    if content.regions is not None:
        axes.add_collection(
            LineCollection(
                _extract_polygon_rings(content.regions), colors=REGION_COLOR, linewidths=1.2
            )
        )
    axes.set_xlim(extent.left, extent.right)
    axes.set_ylim(extent.bottom, extent.top)
    axes.set_aspect("auto")
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(linewidth=0.5, color="0.4")


def _draw_image(
    axes: Axes, pixels: NDArray[Any], extent_um: FigureExtent, interpolation: str
) -> None:
    extent = (extent_um.left, extent_um.right, extent_um.bottom, extent_um.top)
    axes.imshow(pixels, extent=extent, interpolation=interpolation, origin="upper")


def _apply_colormap(
    values: NDArray[np.float32], legend: FigureLegend, opacity: float
) -> NDArray[np.float64]:
    """RGBA of values of any shape, transparent where a value is not finite."""
    known = np.isfinite(values)
    low, high = legend.limits
    fraction = (np.where(known, values, low) - low) / max(high - low, 1e-12)
    last = len(legend.colors) - 1
    rgba = legend.colors[np.rint(np.clip(fraction, 0, 1) * last).astype(np.int64)].astype(float)
    rgba[..., 3] *= np.where(known, opacity, 0)
    return rgba


def _make_box_corners(boxes: NDArray[np.floating]) -> list[NDArray[np.float64]]:
    """(M, 4) left, top, right and bottom -> M times (4, 2) corners."""
    left, top, right, bottom = np.asarray(boxes, np.float64).reshape(-1, 4).T
    corners = [left, top, right, top, right, bottom, left, bottom]
    return list(np.stack(corners, axis=1).reshape(-1, 4, 2))


def _extract_polygon_rings(region: BaseGeometry) -> list[NDArray[np.float64]]:
    polygons = [p for p in shapely.get_parts(region) if not p.is_empty]
    return [np.asarray(r.coords)[:, :2] for p in polygons for r in (p.exterior, *p.interiors)]


def _draw_scale_bar(axes: Axes, extent: FigureExtent, inches: float) -> None:
    """Draw a bar of a round length on a white background."""
    from matplotlib.patches import Rectangle

    fits = [um for um in SCALE_BAR_LENGTHS_UM if um <= MAX_SCALE_BAR_FRACTION * extent.width]
    length = fits[-1] if fits else MAX_SCALE_BAR_FRACTION * extent.width
    inch = extent.height / inches
    left, low = extent.left + 0.2 * inch, extent.bottom - 0.2 * inch
    label = f"{length:,.3g} \u00b5m" if length < 1 else f"{length:,.0f} \u00b5m"
    wide = max(length, 0.075 * inch * len(label))
    backing = Rectangle(
        (left - 0.1 * inch, low - 0.3 * inch),
        wide + 0.2 * inch,
        0.4 * inch,
        facecolor="white",
        alpha=0.8,
        zorder=5,
    )
    bar = Rectangle((left, low - 0.05 * inch), length, 0.05 * inch, facecolor="black", zorder=6)
    axes.add_patch(backing)
    axes.add_patch(bar)
    axes.text(left, low - 0.09 * inch, label, size=8, va="bottom", family="DejaVu Sans", zorder=6)


def _draw_color_bar(axes: Axes, legend: FigureLegend, line_chars: int) -> None:
    """Draw the colors with a label of lines of up to ``line_chars`` characters."""
    low, high = legend.limits
    column = np.asarray(legend.colors, float)[:, None]
    axes.imshow(column, extent=(0, 1, low, high), origin="lower", aspect="auto")
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.tick_params(labelsize=7.5, width=0.5, length=2.5)
    lines = _wrap_text(legend.units.splitlines()[0], line_chars)
    label = "\n".join([*_wrap_text(f"{legend.gene} {legend.value_kind}", line_chars), *lines])
    axes.set_ylabel(
        _replace_control_characters(label), size=7.5, parse_math=False, family="DejaVu Sans"
    )
    for side in axes.spines.values():
        side.set(linewidth=0.5, color="0.4")


def _wrap_text(text: str, line_chars: int) -> list[str]:
    return textwrap.wrap(text, line_chars, break_on_hyphens=False)


def _replace_control_characters(text: str) -> str:
    """Replace control characters, which SVG cannot contain but file names can."""
    bad = ("Cc", "Cf", "Cs", "Co", "Cn")
    return "".join("?" if c != "\n" and category(c) in bad else c for c in text)
