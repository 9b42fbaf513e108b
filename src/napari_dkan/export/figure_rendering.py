"""Render a figure with matplotlib as PNG, SVG or PDF.

Uses matplotlib.figure.Figure without pyplot, so that any thread may write one.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from ..atomic_write import atomic_write
from ..errors import OutputError
from .figure_content import FigureContent, FigureExtent, FigureLegend, GridHeatmap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from shapely.geometry.base import BaseGeometry


FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
FIGURE_DPI = 300
MAX_MAP_WIDTH_IN, MAX_MAP_HEIGHT_IN, MIN_MAP_HEIGHT_IN = 5.6, 7.5, 1.2  # inches of the picture
MARGIN_IN, COLOR_BAR_WIDTH_IN, TITLE_HEIGHT_IN = 0.2, 1.4, 0.42  # inches
CAPTION_LINE_IN, CAPTION_LINE_CHARS = 0.155, 114  # inches and letters of a line of the caption
COLOR_BAR_CHAR_IN = 0.06  # inches of a letter beside the colour bar
SCALE_BAR_LENGTHS_UM = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
MAX_SCALE_BAR_FRACTION = 0.3  # of the picture's width, at most
REGION_COLOR = "#00b8d4"
HATCH_FACE_COLOR, HATCH_LINE_COLOR = (0.88, 0.88, 0.88, 0.45), (0.1, 0.1, 0.1, 0.8)

_render_lock = Lock()


def write_figure(path: str | Path, content: FigureContent) -> Path:
    """Write it as PNG, SVG (its text stays text) or PDF, as the name ends; whole or not at all.

    Raises OutputError naming the file when its kind is none of these or it cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in FIGURE_SUFFIXES:
        raise OutputError(f"{path.name} is no figure; let its name end in .png, .svg or .pdf.")
    with atomic_write(path) as temporary, _render_lock, _keep_text_editable():
        figure = _render(content)
        about = f"{content.legend.gene} {content.legend.value_kind}"
        # tissue hardly gets any smaller by trying harder
        more: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}} if kind == ".png" else {}
        figure.savefig(
            temporary, format=kind[1:], dpi=FIGURE_DPI, metadata={"Title": about}, **more
        )
    return path


@contextmanager
def _keep_text_editable() -> Iterator[None]:
    """Words that any program can find and change; matplotlib has no setting of one figure's."""
    from matplotlib import rcParams

    svg, pdf = rcParams["svg.fonttype"], rcParams["pdf.fonttype"]
    rcParams["svg.fonttype"], rcParams["pdf.fonttype"] = "none", 42
    try:
        yield
    finally:
        rcParams["svg.fonttype"], rcParams["pdf.fonttype"] = svg, pdf


def _render(content: FigureContent) -> Figure:
    from matplotlib.figure import Figure

    box, legend = content.extent, content.legend
    caption = [
        line for part in _build_caption(content) for line in _wrap_text(part, CAPTION_LINE_CHARS)
    ]
    width = min(MAX_MAP_WIDTH_IN, MAX_MAP_HEIGHT_IN * box.width / box.height)
    high = max(width * box.height / box.width, MIN_MAP_HEIGHT_IN)
    below = 0.12 + CAPTION_LINE_IN * (len(caption) + 0.8)
    size = MARGIN_IN + MAX_MAP_WIDTH_IN + COLOR_BAR_WIDTH_IN, below + high + TITLE_HEIGHT_IN
    figure = Figure(size, facecolor="white")

    def place(x: float, y: float, wide: float, tall: float) -> Axes:
        return figure.add_axes((x / size[0], y / size[1], wide / size[0], tall / size[1]))

    axes = place(MARGIN_IN, below, width, high)
    _draw_maps(axes, content)
    _draw_scale_bar(axes, box, high)
    tall = min(high, 3.0)
    _draw_color_bar(
        place(MARGIN_IN + width + 0.15, below, 0.16, tall), legend, int(tall / COLOR_BAR_CHAR_IN)
    )
    words: dict[str, Any] = {"parse_math": False, "family": "DejaVu Sans", "color": "black"}
    left, top = MARGIN_IN / size[0], 1 - 0.12 / size[1]
    title = f"{legend.gene} - {legend.value_kind}"
    figure.text(
        left, top, _replace_control_characters(title), size=13, weight="bold", va="top", **words
    )
    first = (below - 0.12) / size[1]
    for number, line in enumerate(caption):
        at = first - number * CAPTION_LINE_IN / size[1]
        figure.text(left, at, _replace_control_characters(line), size=7.5, va="top", **words)
    return figure


def _build_caption(content: FigureContent) -> list[str]:
    scale, *expected = content.legend.units.splitlines()
    said = [content.caption, f"Colours: {scale}.", *expected]
    if len(content.unreliable_boxes):
        said.append(f"Hatched: not to be relied on ({len(content.unreliable_boxes):,} tiles here).")
    return [*said, "Predicted from the H&E image, not measured. Research only, not for diagnosis."]


def _draw_maps(axes: Axes, content: FigureContent) -> None:
    from matplotlib.collections import LineCollection, PolyCollection

    box, legend = content.extent, content.legend
    if content.histology is not None:
        _draw_image(axes, content.histology.pixels, content.histology.extent, "antialiased")
    for heat in content.heatmaps:
        if isinstance(heat, GridHeatmap):
            _draw_image(
                axes, _apply_colormap(heat.values, legend, content.opacity), heat.extent, "nearest"
            )
        else:
            reach = heat.side / 2
            known = np.isfinite(heat.values)
            corners = _make_box_corners(np.hstack([heat.xy - reach, heat.xy + reach])[known])
            colours = _apply_colormap(heat.values[known], legend, content.opacity)
            axes.add_collection(
                PolyCollection(corners, facecolors=colours, edgecolors="white", linewidths=0.2)
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
    axes.set_xlim(box.left, box.right)
    axes.set_ylim(box.bottom, box.top)
    axes.set_aspect("auto")
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(linewidth=0.5, color="0.4")


def _draw_image(axes: Axes, pixels: NDArray, extent_um: FigureExtent, interpolation: str) -> None:
    extent = (extent_um.left, extent_um.right, extent_um.bottom, extent_um.top)
    axes.imshow(pixels, extent=extent, interpolation=interpolation, origin="upper")


def _apply_colormap(
    values: NDArray[np.float32], legend: FigureLegend, opacity: float
) -> NDArray[np.float64]:
    """RGBA of values of any shape; clear where there is none, so that gaps stay empty."""
    known = np.isfinite(values)
    low, high = legend.limits
    share = (np.where(known, values, low) - low) / max(high - low, 1e-12)
    last = len(legend.colors) - 1
    painted = legend.colors[np.rint(np.clip(share, 0, 1) * last).astype(np.int64)].astype(float)
    painted[..., 3] *= np.where(known, opacity, 0)
    return painted


def _make_box_corners(boxes: NDArray[np.floating]) -> list[NDArray[np.float64]]:
    """(M, 4) left, top, right, bottom -> M times (4, 2) corners."""
    left, top, right, bottom = np.asarray(boxes, np.float64).reshape(-1, 4).T
    corners = [left, top, right, top, right, bottom, left, bottom]
    return list(np.stack(corners, axis=1).reshape(-1, 4, 2))


def _extract_polygon_rings(region: BaseGeometry) -> list[NDArray[np.float64]]:
    polygons = [p for p in getattr(region, "geoms", [region]) if not p.is_empty]
    return [np.asarray(r.coords)[:, :2] for p in polygons for r in (p.exterior, *p.interiors)]


def _draw_scale_bar(axes: Axes, extent: FigureExtent, inches: float) -> None:
    """A round length in micrometres, on a patch of its own so that it shows on any tissue."""
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
    """letters : that fit beside it in a line."""
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
    """Without the control characters that a file's name may have and no SVG can."""
    bad = ("Cc", "Cf", "Cs", "Co", "Cn")
    return "".join("?" if c != "\n" and category(c) in bad else c for c in text)
