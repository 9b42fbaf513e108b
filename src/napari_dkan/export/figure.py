"""A figure to pass on: a predicted map over the histology, with all that it takes to read it.

Drawn with matplotlib's Figure alone; pyplot, which keeps figures in a global list, has no part in
it, so that any thread may write one.
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

from ..errors import OutputError
from ..files import written_whole
from .figure_parts import Box, FigureInput, GridHeat, Legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from shapely.geometry.base import BaseGeometry

KINDS = (".png", ".svg", ".pdf")
DPI = 300
WIDTH, TALLEST, SLIMMEST = 5.6, 7.5, 1.2  # inches of the picture
MARGIN, BAR_ROOM, TITLE_ROOM = 0.2, 1.4, 0.42  # inches
LINE, LETTERS = 0.155, 114  # inches and letters of a line of the caption
LETTER = 0.06  # inches of a letter beside the colour bar
SCALE_BARS_UM = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
BAR_SHARE = 0.3  # of the picture's width, at most
REGION = "#00b8d4"
VEIL, STRIPE = (0.88, 0.88, 0.88, 0.45), (0.1, 0.1, 0.1, 0.8)

_one_at_a_time = Lock()


def write_figure(path: str | Path, picture: FigureInput) -> Path:
    """Write it as PNG, SVG (its text stays text) or PDF, as the name ends; whole or not at all.

    Raises OutputError naming the file when its kind is none of these or it cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise OutputError(f"{path.name} is no figure; let its name end in .png, .svg or .pdf.")
    with written_whole(path) as temporary, _one_at_a_time, _text_as_text():
        figure = _drawn(picture)
        about = f"{picture.legend.gene} {picture.legend.kind}"
        # tissue hardly gets any smaller by trying harder
        more: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}} if kind == ".png" else {}
        figure.savefig(temporary, format=kind[1:], dpi=DPI, metadata={"Title": about}, **more)
    return path


@contextmanager
def _text_as_text() -> Iterator[None]:
    """Words that any program can find and change; matplotlib has no setting of one figure's."""
    from matplotlib import rcParams

    svg, pdf = rcParams["svg.fonttype"], rcParams["pdf.fonttype"]
    rcParams["svg.fonttype"], rcParams["pdf.fonttype"] = "none", 42
    try:
        yield
    finally:
        rcParams["svg.fonttype"], rcParams["pdf.fonttype"] = svg, pdf


def _drawn(picture: FigureInput) -> Figure:
    from matplotlib.figure import Figure

    box, legend = picture.box, picture.legend
    caption = [line for part in _caption(picture) for line in _lines(part, LETTERS)]
    width = min(WIDTH, TALLEST * box.width / box.height)
    high = max(width * box.height / box.width, SLIMMEST)
    below = 0.12 + LINE * (len(caption) + 0.8)
    size = MARGIN + WIDTH + BAR_ROOM, below + high + TITLE_ROOM
    figure = Figure(size, facecolor="white")

    def place(x: float, y: float, wide: float, tall: float) -> Axes:
        return figure.add_axes((x / size[0], y / size[1], wide / size[0], tall / size[1]))

    axes = place(MARGIN, below, width, high)
    _picture(axes, picture)
    _scale_bar(axes, box, high)
    tall = min(high, 3.0)
    _colour_bar(place(MARGIN + width + 0.15, below, 0.16, tall), legend, int(tall / LETTER))
    words: dict[str, Any] = {"parse_math": False, "family": "DejaVu Sans", "color": "black"}
    left, top = MARGIN / size[0], 1 - 0.12 / size[1]
    title = f"{legend.gene} - {legend.kind}"
    figure.text(left, top, _plain(title), size=13, weight="bold", va="top", **words)
    first = (below - 0.12) / size[1]
    for number, line in enumerate(caption):
        at = first - number * LINE / size[1]
        figure.text(left, at, _plain(line), size=7.5, va="top", **words)
    return figure


def _caption(picture: FigureInput) -> list[str]:
    scale, *expected = picture.legend.units.splitlines()
    said = [picture.caption, f"Colours: {scale}.", *expected]
    if len(picture.unreliable):
        said.append(f"Hatched: not to be relied on ({len(picture.unreliable):,} tiles here).")
    return [*said, "Predicted from the H&E image, not measured. Research only, not for diagnosis."]


def _picture(axes: Axes, picture: FigureInput) -> None:
    from matplotlib.collections import LineCollection, PolyCollection

    box, legend = picture.box, picture.legend
    if picture.ground is not None:
        _image(axes, picture.ground.pixels, picture.ground.box, "antialiased")
    for heat in picture.heats:
        if isinstance(heat, GridHeat):
            _image(axes, _painted(heat.values, legend, picture.opacity), heat.box, "nearest")
        else:
            reach = heat.side / 2
            known = np.isfinite(heat.values)
            corners = _squares(np.hstack([heat.xy - reach, heat.xy + reach])[known])
            colours = _painted(heat.values[known], legend, picture.opacity)
            axes.add_collection(
                PolyCollection(corners, facecolors=colours, edgecolors="white", linewidths=0.2)
            )
    if len(picture.unreliable):
        axes.add_collection(
            PolyCollection(
                _squares(picture.unreliable),
                facecolors=[VEIL],
                edgecolors=[STRIPE],
                linewidths=0,
                hatch="//////",
            )
        )
    if picture.regions is not None:
        axes.add_collection(LineCollection(_rings(picture.regions), colors=REGION, linewidths=1.2))
    axes.set_xlim(box.left, box.right)
    axes.set_ylim(box.bottom, box.top)
    axes.set_aspect("auto")
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(linewidth=0.5, color="0.4")


def _image(axes: Axes, pixels: NDArray, box: Box, interpolation: str) -> None:
    extent = (box.left, box.right, box.bottom, box.top)
    axes.imshow(pixels, extent=extent, interpolation=interpolation, origin="upper")


def _painted(values: NDArray[np.float32], legend: Legend, opacity: float) -> NDArray[np.float64]:
    """RGBA of values of any shape; clear where there is none, so that gaps stay empty."""
    known = np.isfinite(values)
    low, high = legend.limits
    share = (np.where(known, values, low) - low) / max(high - low, 1e-12)
    last = len(legend.colours) - 1
    painted = legend.colours[np.rint(np.clip(share, 0, 1) * last).astype(np.int64)].astype(float)
    painted[..., 3] *= np.where(known, opacity, 0)
    return painted


def _squares(boxes: NDArray[np.floating]) -> list[NDArray[np.float64]]:
    """(M, 4) left, top, right, bottom -> M times (4, 2) corners."""
    left, top, right, bottom = np.asarray(boxes, np.float64).reshape(-1, 4).T
    corners = [left, top, right, top, right, bottom, left, bottom]
    return list(np.stack(corners, axis=1).reshape(-1, 4, 2))


def _rings(region: BaseGeometry) -> list[NDArray[np.float64]]:
    polygons = [p for p in getattr(region, "geoms", [region]) if not p.is_empty]
    return [np.asarray(r.coords)[:, :2] for p in polygons for r in (p.exterior, *p.interiors)]


def _scale_bar(axes: Axes, box: Box, inches: float) -> None:
    """A round length in micrometres, on a patch of its own so that it shows on any tissue."""
    from matplotlib.patches import Rectangle

    fits = [um for um in SCALE_BARS_UM if um <= BAR_SHARE * box.width]
    length = fits[-1] if fits else BAR_SHARE * box.width
    inch = box.height / inches
    left, low = box.left + 0.2 * inch, box.bottom - 0.2 * inch
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


def _colour_bar(axes: Axes, legend: Legend, letters: int) -> None:
    """letters : that fit beside it in a line."""
    low, high = legend.limits
    column = np.asarray(legend.colours, float)[:, None]
    axes.imshow(column, extent=(0, 1, low, high), origin="lower", aspect="auto")
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.tick_params(labelsize=7.5, width=0.5, length=2.5)
    lines = _lines(legend.units.splitlines()[0], letters)
    label = "\n".join([*_lines(f"{legend.gene} {legend.kind}", letters), *lines])
    axes.set_ylabel(_plain(label), size=7.5, parse_math=False, family="DejaVu Sans")
    for side in axes.spines.values():
        side.set(linewidth=0.5, color="0.4")


def _lines(text: str, letters: int) -> list[str]:
    return textwrap.wrap(text, letters, break_on_hyphens=False)


def _plain(text: str) -> str:
    """Without the control characters that a file's name may have and no SVG can."""
    bad = ("Cc", "Cf", "Cs", "Co", "Cn")
    return "".join("?" if c != "\n" and category(c) in bad else c for c in text)
