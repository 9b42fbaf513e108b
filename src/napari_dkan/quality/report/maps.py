"""Maps: spots in colours over the faded slide, with a colour bar and a scale bar."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .colours import LEVELS, Scale, colour_bar
from .ground import WIDTH, Ground, data_uri
from .markup import Children, Markup, joined, tag

MANY = 6000  # spots from which a map is a picture: as drawings they would fill the page's limit
RASTER_PX = 720
BAR = 58.0  # height of the colour bar below a map


@dataclass(frozen=True)
class Canvas:
    """Where the spots of a section are drawn.

    at : (N, 2) in units of a drawing. size : of a spot, in those units. tiles : squares that
    touch, not round spots.
    """

    ground: Ground
    at: NDArray[np.float64]
    size: float
    tiles: bool = False

    def defined(self) -> Markup:
        """What all maps of the page share: the slide's picture, and an edge around the spots."""
        edge = None
        if not self.tiles and len(self.at) <= MANY:
            edge = tag("path", id="edge", d=_path(self.at), stroke_width=self.size + 1.2)
        shared = tag("defs", self.ground.picture(), edge)
        return tag("svg", shared, class_="defs", width=0, height=0, aria_hidden="true")

    def map(
        self,
        title: str,
        values: NDArray[np.floating],
        scale: Scale,
        units: str,
        above: Children = None,
    ) -> Markup:
        """A figure of values (N,), NaN left empty; above : drawn over the spots."""
        height = self.ground.drawn_height
        edge = tag("use", href="#edge", class_="edge") if not self.tiles else None
        if len(self.at) > MANY:
            edge = None
        drawing = tag(
            "svg",
            tag("use", href="#ground", class_="faded"),
            edge,
            self._spots(values, scale),
            above,
            self.ground.scale_bar(),
            tag("rect", y=height, width=WIDTH, height=BAR, fill="#ffffff"),  # over cut tiles
            tag("rect", width=WIDTH, height=height, class_="frame"),
            colour_bar(scale, units, WIDTH, height + 10),
            viewBox=f"0 0 {WIDTH:g} {height + BAR:.1f}",
            role="img",
            aria_label=title,
        )
        return tag("figure", tag("figcaption", title), drawing)

    def _spots(self, values: NDArray[np.floating], scale: Scale) -> Markup:
        levels, palette = scale.levels(values), scale.palette()
        if len(self.at) > MANY:
            return self._raster(levels, palette)
        drawn = [
            tag("path", d=_path(self.at[levels == i]), stroke=palette[i])
            for i in range(LEVELS)
            if (levels == i).any()
        ]
        kind = "tiles" if self.tiles else "spots"
        return tag("g", drawn, class_=kind, stroke_width=self.size)

    def _raster(self, levels: NDArray[np.int64], palette: list[str]) -> Markup:
        factor = RASTER_PX / WIDTH
        height = int(np.ceil(self.ground.drawn_height * factor))
        pixels = np.zeros((height, RASTER_PX), np.uint8)
        side = max(1, int(np.ceil(self.size * factor)))
        corner = np.rint(self.at * factor - side / 2).astype(int)
        known = levels >= 0
        for dy in range(side):
            for dx in range(side):
                x, y = (corner[known] + (dx, dy)).T
                inside = (x >= 0) & (y >= 0) & (x < RASTER_PX) & (y < height)
                pixels[y[inside], x[inside]] = levels[known][inside] + 1
        uri = data_uri(pixels, ["#ffffff", *palette])
        return tag("image", width=WIDTH, height=height / factor, href=uri, class_="raster")


def overview(ground: Ground, marks: NDArray[np.floating]) -> Markup:
    """The whole slide, a frame around the part that the maps show, and dots at marks (K, 2)."""
    scale = WIDTH / ground.slide_width
    height = ground.slide_height * scale
    box = [v * scale for v in (ground.x, ground.y, ground.width, ground.height)]
    return tag(
        "figure",
        tag("figcaption", "The slide; maps show the frame"),
        tag(
            "svg",
            tag("image", width=WIDTH, height=height, href=data_uri(ground.thumbnail)),
            tag("path", d=_path(np.asarray(marks) * scale), class_="marks"),
            tag("rect", x=box[0], y=box[1], width=box[2], height=box[3], class_="shown"),
            tag("rect", width=WIDTH, height=height, class_="frame"),
            viewBox=f"0 0 {WIDTH:g} {height:.1f}",
            role="img",
            aria_label="The slide",
        ),
    )


def circles(canvas: Canvas, found: Iterable[tuple[float, float, float]]) -> Markup:
    """Numbered rings around places (x, y, radius) in level-0 px."""
    rings = []
    for i, (x, y, radius) in enumerate(found, 1):
        (cx, cy), r = canvas.ground.at(np.array([[x, y]]))[0], radius * canvas.ground.scale
        place = {"cx": float(cx), "cy": float(cy), "r": float(r)}
        rings += [tag("circle", **place, class_="ring-back"), tag("circle", **place, class_="ring")]
        rings.append(
            tag("text", i, x=float(cx), y=max(float(cy - r - 4), 14.0), class_="halo number")
        )
    return joined(rings)


def crosses(canvas: Canvas, rows: NDArray[np.bool_]) -> Markup:
    """A cross over each of these spots."""
    half = min(canvas.size * 0.32, 4.0)
    d = "".join(
        f"M{x - half:.1f} {y - half:.1f}l{2 * half:.1f} {2 * half:.1f}m0 {-2 * half:.1f}"
        f"l{-2 * half:.1f} {2 * half:.1f}"
        for x, y in canvas.at[rows]
    )
    return joined(tag("path", d=d, class_="cross-back"), tag("path", d=d, class_="cross"))


def _path(at: NDArray[np.floating]) -> str:
    """Lines of no length: round ends make them spots, square ends tiles. The shortest there is."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in at)
