"""Maps: spots in colours over the faded slide, with a colour bar and a scale bar."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .colours import N_COLOR_LEVELS, MapColorScale, draw_color_bar
from .ground import MAP_WIDTH, MapBackground, encode_data_uri
from .markup import MarkupChildren, SafeMarkup, concatenate, build_element

MAX_VECTOR_SPOTS = 6000  # spots from which a map is a picture: as drawings they would fill the page's limit
RASTER_PX = 720
COLOR_BAR_HEIGHT = 58.0  # height of the colour bar below a map


@dataclass(frozen=True)
class MapCanvas:
    """Where the spots of a section are drawn.

    at : (N, 2) in units of a drawing. size : of a spot, in those units. tiles : squares that
    touch, not round spots.
    """

    background: MapBackground
    positions: NDArray[np.float64]
    spot_size: float
    is_tiled: bool = False

    def draw_shared_defs(self) -> SafeMarkup:
        """What all maps of the page share: the slide's picture, and an edge around the spots."""
        edge = None
        if not self.is_tiled and len(self.positions) <= MAX_VECTOR_SPOTS:
            edge = build_element("path", id="edge", d=_dots_path(self.positions), stroke_width=self.spot_size + 1.2)
        shared = build_element("defs", self.background.draw_image(), edge)
        return build_element("svg", shared, class_="defs", width=0, height=0, aria_hidden="true")

    def draw_map(
        self,
        title: str,
        values: NDArray[np.floating],
        scale: MapColorScale,
        units: str,
        overlays: MarkupChildren = None,
    ) -> SafeMarkup:
        """A figure of values (N,), NaN left empty; above : drawn over the spots."""
        height = self.background.drawing_height
        edge = build_element("use", href="#edge", class_="edge") if not self.is_tiled else None
        if len(self.positions) > MAX_VECTOR_SPOTS:
            edge = None
        drawing = build_element(
            "svg",
            build_element("use", href="#ground", class_="faded"),
            edge,
            self._draw_spots(values, scale),
            overlays,
            self.background.draw_scale_bar(),
            build_element("rect", y=height, width=MAP_WIDTH, height=COLOR_BAR_HEIGHT, fill="#ffffff"),  # over cut tiles
            build_element("rect", width=MAP_WIDTH, height=height, class_="frame"),
            draw_color_bar(scale, units, MAP_WIDTH, height + 10),
            viewBox=f"0 0 {MAP_WIDTH:g} {height + COLOR_BAR_HEIGHT:.1f}",
            role="img",
            aria_label=title,
        )
        return build_element("figure", build_element("figcaption", title), drawing)

    def _draw_spots(self, values: NDArray[np.floating], scale: MapColorScale) -> SafeMarkup:
        levels, palette = scale.to_levels(values), scale.palette()
        if len(self.positions) > MAX_VECTOR_SPOTS:
            return self._draw_raster(levels, palette)
        drawn = [
            build_element("path", d=_dots_path(self.positions[levels == i]), stroke=palette[i])
            for i in range(N_COLOR_LEVELS)
            if (levels == i).any()
        ]
        kind = "tiles" if self.is_tiled else "spots"
        return build_element("g", drawn, class_=kind, stroke_width=self.spot_size)

    def _draw_raster(self, levels: NDArray[np.int64], palette: list[str]) -> SafeMarkup:
        factor = RASTER_PX / MAP_WIDTH
        height = int(np.ceil(self.background.drawing_height * factor))
        pixels = np.zeros((height, RASTER_PX), np.uint8)
        side = max(1, int(np.ceil(self.spot_size * factor)))
        corner = np.rint(self.positions * factor - side / 2).astype(int)
        known = levels >= 0
        for dy in range(side):
            for dx in range(side):
                x, y = (corner[known] + (dx, dy)).T
                inside = (x >= 0) & (y >= 0) & (x < RASTER_PX) & (y < height)
                pixels[y[inside], x[inside]] = levels[known][inside] + 1
        uri = encode_data_uri(pixels, ["#ffffff", *palette])
        return build_element("image", width=MAP_WIDTH, height=height / factor, href=uri, class_="raster")


def draw_slide_overview(ground: MapBackground, marks: NDArray[np.floating]) -> SafeMarkup:
    """The whole slide, a frame around the part that the maps show, and dots at marks (K, 2)."""
    scale = MAP_WIDTH / ground.slide_width
    height = ground.slide_height * scale
    box = [v * scale for v in (ground.x, ground.y, ground.width, ground.height)]
    return build_element(
        "figure",
        build_element("figcaption", "The slide; maps show the frame"),
        build_element(
            "svg",
            build_element("image", width=MAP_WIDTH, height=height, href=encode_data_uri(ground.thumbnail)),
            build_element("path", d=_dots_path(np.asarray(marks) * scale), class_="marks"),
            build_element("rect", x=box[0], y=box[1], width=box[2], height=box[3], class_="shown"),
            build_element("rect", width=MAP_WIDTH, height=height, class_="frame"),
            viewBox=f"0 0 {MAP_WIDTH:g} {height:.1f}",
            role="img",
            aria_label="The slide",
        ),
    )


def draw_rings(canvas: MapCanvas, circles: Iterable[tuple[float, float, float]]) -> SafeMarkup:
    """Numbered rings around places (x, y, radius) in level-0 px."""
    rings = []
    for i, (x, y, radius) in enumerate(circles, 1):
        (cx, cy), r = canvas.background.to_drawing(np.array([[x, y]]))[0], radius * canvas.background.units_per_px
        place = {"cx": float(cx), "cy": float(cy), "r": float(r)}
        rings += [build_element("circle", **place, class_="ring-back"), build_element("circle", **place, class_="ring")]
        rings.append(
            build_element("text", i, x=float(cx), y=max(float(cy - r - 4), 14.0), class_="halo number")
        )
    return concatenate(rings)


def draw_crosses(canvas: MapCanvas, rows: NDArray[np.bool_]) -> SafeMarkup:
    """A cross over each of these spots."""
    half = min(canvas.spot_size * 0.32, 4.0)
    d = "".join(
        f"M{x - half:.1f} {y - half:.1f}l{2 * half:.1f} {2 * half:.1f}m0 {-2 * half:.1f}"
        f"l{-2 * half:.1f} {2 * half:.1f}"
        for x, y in canvas.positions[rows]
    )
    return concatenate(build_element("path", d=d, class_="cross-back"), build_element("path", d=d, class_="cross"))


def _dots_path(at: NDArray[np.floating]) -> str:
    """Lines of no length: round ends make them spots, square ends tiles. The shortest there is."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in at)
