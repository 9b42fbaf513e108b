"""Maps of the report: spots in colors over the faded slide, with color bar and scale bar, as SVG."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from ...slide import Slide
from ...slide.overview import read_overview
from .svg_markup import MarkupChildren, SafeMarkup, build_element, concatenate, format_decimal

N_COLOR_LEVELS = 64  # colours told apart; so many are more than an eye can
CLIP_PERCENTILES = (2.0, 98.0)  # as the maps in the viewer

# Nine colours each, evenly spaced; between them they are mixed.
VIRIDIS = "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725"  # viridis
BLUE_WHITE_RED = (
    "2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b"  # blue, white, red
)
ORANGES = "fff5eb fee6ce fdd0a2 fdae6b fd8d3c f16913 d94801 a63603 7f2704"  # oranges


@dataclass(frozen=True)
class MapColorScale:
    """Which colour a value has. colours : one of the above; low, high : of its ends."""

    anchors: str
    low: float
    high: float

    def to_levels(self, values: NDArray[np.floating]) -> NDArray[np.int64]:
        """(N,) -> (N,) from 0 to LEVELS - 1; values off the scale take its ends, NaN is -1."""
        known = np.isfinite(values)
        share = (np.where(known, values, self.low) - self.low) / (self.high - self.low)
        found = np.clip(np.floor(share * N_COLOR_LEVELS), 0, N_COLOR_LEVELS - 1).astype(np.int64)
        return np.where(known, found, -1)

    def palette(self) -> list[str]:
        """``#rrggbb`` of each level."""
        anchors = np.array([list(bytes.fromhex(c)) for c in self.anchors.split()], float)
        at = np.linspace(0, len(anchors) - 1, N_COLOR_LEVELS)
        mixed = [np.interp(at, np.arange(len(anchors)), anchors[:, i]) for i in range(3)]
        return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.rint(np.stack(mixed, 1)).astype(int)]


def fit_shared_scale(values: Sequence[NDArray[np.floating]]) -> MapColorScale:
    """One scale for several maps, from their values together without the extremes."""
    known = np.concatenate([v[np.isfinite(v)] for v in values])
    if not len(known):
        return MapColorScale(VIRIDIS, 0.0, 1.0)
    low, high = (float(v) for v in np.percentile(known, CLIP_PERCENTILES))
    return (
        MapColorScale(VIRIDIS, low, high)
        if high - low > 1e-6
        else MapColorScale(VIRIDIS, low - 0.05, low + 0.05)
    )


def fit_residual_scale(values: NDArray[np.floating]) -> MapColorScale:
    """Centred on 0, alike in both directions."""
    known = np.abs(values[np.isfinite(values)])
    reach = max(float(np.percentile(known, CLIP_PERCENTILES[1])), 1e-3) if len(known) else 1.0
    return MapColorScale(BLUE_WHITE_RED, -reach, reach)


def fit_error_scale(values: NDArray[np.floating]) -> MapColorScale:
    """From 0."""
    known = values[np.isfinite(values)]
    high = float(np.percentile(known, CLIP_PERCENTILES[1])) if len(known) else 1.0
    return MapColorScale(ORANGES, 0.0, max(high, 1e-6))


def draw_color_bar(scale: MapColorScale, units: str, width: float, y: float) -> SafeMarkup:
    """A bar with five numbers and what they measure, 52 units high, in a drawing this wide."""
    left, right = 27.0, width - 27.0
    step = (right - left) / N_COLOR_LEVELS
    cells = [
        # one px wider than its step, or thin gaps show between them
        build_element(
            "rect",
            x=left + i * step,
            y=y,
            width=step + (i < N_COLOR_LEVELS - 1),
            height=11,
            fill=colour,
        )
        for i, colour in enumerate(scale.palette())
    ]
    digits = 2 if scale.high - scale.low >= 0.1 else 3
    ticks = [
        build_element(
            "text",
            format_decimal(scale.low + share * (scale.high - scale.low), digits),
            x=left + share * (right - left),
            y=y + 26,
            text_anchor="middle",
        )
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    label = build_element(
        "text", units, x=width / 2, y=y + 44, text_anchor="middle", class_="units"
    )
    frame = build_element("rect", x=left, y=y, width=right - left, height=11, class_="frame")
    return build_element("g", cells, frame, ticks, label)


MAP_WIDTH = 360.0  # of every map, in units of the drawing
THUMBNAIL_PX = 640
BACKGROUND_PX = 900
MIN_EXTENT_UM = 1000.0  # a map of a few spots still shows where they are
MIN_ASPECT_RATIO = 0.8  # width against height; a slimmer map would be taller than a screen
SCALE_BARS_UM = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)


@dataclass(frozen=True)
class MapBackground:
    """The part of a slide that maps are drawn on.

    x, y, width, height : in level-0 px. mpp : um per level-0 px. pixels : (h, w, 3) uint8 of it;
    thumbnail : of the whole slide, which is slide_width x slide_height level-0 px.
    """

    x: float
    y: float
    width: float
    height: float
    mpp: float
    pixels: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8]
    slide_width: int
    slide_height: int

    @property
    def units_per_px(self) -> float:
        """Units of a drawing per level-0 px."""
        return MAP_WIDTH / self.width

    @property
    def drawing_height(self) -> float:
        return self.height * self.units_per_px

    def to_drawing(self, xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """Level-0 px (N, 2) -> units of a drawing."""
        return (np.asarray(xy, np.float64) - (self.x, self.y)) * self.units_per_px

    def draw_image(self) -> SafeMarkup:
        """The picture, to be defined once and used by every map as ``#ground``."""
        return build_element(
            "image",
            id="ground",
            width=MAP_WIDTH,
            height=self.drawing_height,
            preserveAspectRatio="none",
            href=encode_data_uri(self.pixels),
        )

    def draw_scale_bar(self) -> SafeMarkup:
        """A bar of a round length, at the bottom left, labelled in um or mm."""
        target = self.width * self.mpp / 5
        um = min(SCALE_BARS_UM, key=lambda length: abs(np.log(length / target)))
        label = f"{um // 1000} mm" if um >= 1000 else f"{um} µm"
        length, y = um / self.mpp * self.units_per_px, self.drawing_height - 10
        return build_element(
            "g",
            build_element("path", d=f"M10 {y:.1f}h{length:.1f}", class_="scalebar-back"),
            build_element("path", d=f"M10 {y:.1f}h{length:.1f}", class_="scalebar"),
            build_element("text", label, x=10, y=y - 6, class_="halo"),
        )


def read_map_background(
    slide: Slide, xy: NDArray[np.floating], margin_px: float, mpp: float
) -> MapBackground:
    """The part of a slide around spots (N, 2), with a margin. Raises SlideError."""
    from PIL import Image

    low, high = xy.min(axis=0) - margin_px, xy.max(axis=0) + margin_px
    least = np.maximum(high - low, MIN_EXTENT_UM / mpp)
    least[0] = max(least[0], MIN_ASPECT_RATIO * least[1])
    low, high = (low + high - least) / 2, (low + high + least) / 2
    size = np.array([slide.width, slide.height], float)
    low, high = np.maximum(low, 0), np.minimum(high, size)
    overview, downsample = read_overview(slide, mpp)
    whole = Image.fromarray(overview)
    part = whole.crop((*np.floor(low / downsample), *np.ceil(high / downsample)))
    # What is shown is what was cut out, to whole pixels of the overview.
    corner = np.floor(low / downsample) * downsample
    extent = np.array(part.size) * downsample
    part.thumbnail((BACKGROUND_PX, BACKGROUND_PX))
    whole.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return MapBackground(
        float(corner[0]),
        float(corner[1]),
        float(extent[0]),
        float(extent[1]),
        mpp,
        np.asarray(part),
        np.asarray(whole),
        slide.width,
        slide.height,
    )


def encode_data_uri(pixels: NDArray[np.uint8], palette: list[str] | None = None) -> str:
    """A picture inside the page: RGB as JPEG; indices into a palette as PNG, 0 transparent."""
    from PIL import Image

    out, image = BytesIO(), Image.fromarray(pixels)
    if palette is None:
        image.save(out, "JPEG", quality=82, optimize=True)
        kind = "jpeg"
    else:
        image.putpalette(b"".join(bytes.fromhex(c[1:]) for c in palette))
        image.save(out, "PNG", optimize=True, transparency=0)
        kind = "png"
    return f"data:image/{kind};base64,{b64encode(out.getvalue()).decode()}"


MAX_VECTOR_SPOTS = (
    6000  # spots from which a map is a picture: as drawings they would fill the page's limit
)
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
            edge = build_element(
                "path", id="edge", d=_dots_path(self.positions), stroke_width=self.spot_size + 1.2
            )
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
            build_element(
                "rect", y=height, width=MAP_WIDTH, height=COLOR_BAR_HEIGHT, fill="#ffffff"
            ),  # over cut tiles
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
        return build_element(
            "image", width=MAP_WIDTH, height=height / factor, href=uri, class_="raster"
        )


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
            build_element(
                "image", width=MAP_WIDTH, height=height, href=encode_data_uri(ground.thumbnail)
            ),
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
        (cx, cy), r = (
            canvas.background.to_drawing(np.array([[x, y]]))[0],
            radius * canvas.background.units_per_px,
        )
        place = {"cx": float(cx), "cy": float(cy), "r": float(r)}
        rings += [
            build_element("circle", **place, class_="ring-back"),
            build_element("circle", **place, class_="ring"),
        ]
        rings.append(
            build_element(
                "text", i, x=float(cx), y=max(float(cy - r - 4), 14.0), class_="halo number"
            )
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
    return concatenate(
        build_element("path", d=d, class_="cross-back"), build_element("path", d=d, class_="cross")
    )


def _dots_path(at: NDArray[np.floating]) -> str:
    """Lines of no length: round ends make them spots, square ends tiles. The shortest there is."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in at)
