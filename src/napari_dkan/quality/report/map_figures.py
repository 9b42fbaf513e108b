"""Maps of the report: spots in colors over the faded slide, with color bar and scale bar.

The classes hold numbers, path strings and data URIs; ``templates/figures.html.j2`` draws them.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from ...inference.map_colors import DEFAULT_COLORMAP
from ...slide import Slide
from ...slide.overview import read_overview
from .map_scales import (
    COLOR_BAR_HEIGHT,
    MAP_WIDTH,
    N_COLOR_LEVELS,
    ColorBar,
    MapColorScale,
    make_color_bar,
)

THUMBNAIL_PX = 640
BACKGROUND_PX = 900
MIN_EXTENT_UM = 1000.0  # smallest side of a map, so that a few spots still show their context
MIN_ASPECT_RATIO = 0.8  # width to height; a narrower map would be taller than a screen
SCALE_BARS_UM = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
MAX_VECTOR_SPOTS = 6000  # maps of more spots are images, which need less of the page's size limit
RASTER_PX = 720


@dataclass(frozen=True)
class ScaleBar:
    """A scale bar in drawing units, at the bottom left of a map."""

    label: str
    length: float
    y: float


@dataclass(frozen=True)
class MapBackground:
    """The part of a slide that maps are drawn on.

    Attributes
    ----------
    x, y, width, height : float
        Extent in level-0 px.
    mpp : float
        um per level-0 px.
    pixels : (h, w, 3) uint8 array
        Image of this part.
    thumbnail : (h, w, 3) uint8 array
        Image of the whole slide.
    slide_width, slide_height : int
        Size of the slide in level-0 px.
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
        """Drawing units per level-0 px."""
        return MAP_WIDTH / self.width

    @property
    def drawing_height(self) -> float:
        """Height in drawing units."""
        return self.height * self.units_per_px

    @property
    def image_uri(self) -> str:
        """The image as a data URI."""
        return encode_data_uri(self.pixels)

    @property
    def scale_bar(self) -> ScaleBar:
        """A bar of a round length, about a fifth of the width."""
        target = self.width * self.mpp / 5
        um = min(SCALE_BARS_UM, key=lambda length: abs(np.log(length / target)))
        label = f"{um // 1000} mm" if um >= 1000 else f"{um} µm"
        return ScaleBar(label, um / self.mpp * self.units_per_px, self.drawing_height - 10)

    def to_drawing(self, xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """Transform level-0 px (N, 2) to drawing units."""
        return (np.asarray(xy, np.float64) - (self.x, self.y)) * self.units_per_px


def read_map_background(
    slide: Slide, xy: NDArray[np.floating], margin_px: float, mpp: float
) -> MapBackground:
    """Read the part of a slide around spots (N, 2), with a margin.

    Raises
    ------
    SlideError
        If the slide cannot be read.
    """
    from PIL import Image

    low, high = xy.min(axis=0) - margin_px, xy.max(axis=0) + margin_px
    extent = np.maximum(high - low, MIN_EXTENT_UM / mpp)
    extent[0] = max(extent[0], MIN_ASPECT_RATIO * extent[1])
    low, high = (low + high - extent) / 2, (low + high + extent) / 2
    size = np.array([slide.width, slide.height], float)
    low, high = np.maximum(low, 0), np.minimum(high, size)
    overview, downsample = read_overview(slide, mpp)
    overview_image = Image.fromarray(overview)
    crop = overview_image.crop((*np.floor(low / downsample), *np.ceil(high / downsample)))
    # The crop consists of whole pixels of the overview, so its extent differs from the request.
    corner = np.floor(low / downsample) * downsample
    extent = np.array(crop.size) * downsample
    crop.thumbnail((BACKGROUND_PX, BACKGROUND_PX))
    overview_image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return MapBackground(
        float(corner[0]),
        float(corner[1]),
        float(extent[0]),
        float(extent[1]),
        mpp,
        np.asarray(crop),
        np.asarray(overview_image),
        slide.width,
        slide.height,
    )


def encode_data_uri(pixels: NDArray[np.uint8], palette: list[str] | None = None) -> str:
    """Encode an image as a data URI: RGB as JPEG, palette indices as PNG with 0 transparent."""
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


@dataclass(frozen=True)
class Ring:
    """A ring around an error region, in drawing units."""

    x: float
    y: float
    radius: float
    label_y: float


@dataclass(frozen=True)
class MapFigure:
    """A map: spots of one color level share a path, or all spots are one image.

    Attributes
    ----------
    background : MapBackground
        What the spots are drawn over.
    paths : list of (str, str)
        Color and path of each level, () where the spots are an image.
    raster_uri, raster_height : str, float
        The image of the spots, "" where they are paths, and its height in drawing units.
    has_edge : bool
        Whether an edge is drawn around the spots.
    rings : tuple of Ring
        Numbered from 1.
    crosses : str
        Path of crosses over spots, "" for none.
    """

    title: str
    background: MapBackground
    color_bar: ColorBar
    units: str
    spot_size: float
    is_tiled: bool
    has_edge: bool
    paths: list[tuple[str, str]]
    raster_uri: str = ""
    raster_height: float = 0.0
    rings: tuple[Ring, ...] = ()
    crosses: str = ""

    @property
    def view_box(self) -> str:
        """Extent of the drawing."""
        return f"0 0 {MAP_WIDTH:g} {self.background.drawing_height + COLOR_BAR_HEIGHT:.1f}"


@dataclass(frozen=True)
class MapCanvas:
    """Where the spots of a section are drawn.

    Attributes
    ----------
    positions : (N, 2) array
        Centres in drawing units.
    spot_size : float
        Diameter of a spot or side of a tile, in drawing units.
    is_tiled : bool
        Whether spots are drawn as squares that touch each other.
    colormap : str
        Of values and scores.
    """

    background: MapBackground
    positions: NDArray[np.float64]
    spot_size: float
    is_tiled: bool = False
    colormap: str = DEFAULT_COLORMAP

    @property
    def has_edge(self) -> bool:
        """Whether an edge is drawn around the spots."""
        return not self.is_tiled and len(self.positions) <= MAX_VECTOR_SPOTS

    @property
    def edge_path(self) -> str:
        """Path of all spots."""
        return _dots_path(self.positions)

    def make_map(
        self,
        title: str,
        values: NDArray[np.floating],
        scale: MapColorScale,
        units: str,
        rings: tuple[Ring, ...] = (),
        crosses: str = "",
    ) -> MapFigure:
        """Lay out a map of values (N,); spots of NaN stay empty."""
        levels, palette = scale.to_levels(values), scale.palette()
        paths: list[tuple[str, str]] = []
        raster_uri, raster_height = "", 0.0
        if len(self.positions) > MAX_VECTOR_SPOTS:
            raster_uri, raster_height = self._render_raster(levels, palette)
        else:
            paths = [
                (palette[level], _dots_path(self.positions[levels == level]))
                for level in range(N_COLOR_LEVELS)
                if (levels == level).any()
            ]
        return MapFigure(
            title,
            self.background,
            make_color_bar(scale),
            units,
            self.spot_size,
            self.is_tiled,
            self.has_edge,
            paths,
            raster_uri,
            raster_height,
            rings,
            crosses,
        )

    def _render_raster(self, levels: NDArray[np.int64], palette: list[str]) -> tuple[str, float]:
        """Data URI of the spots as an image, and its height in drawing units."""
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
        return encode_data_uri(pixels, ["#ffffff", *palette]), height / factor


@dataclass(frozen=True)
class OverviewFigure:
    """The whole slide, a frame around the part that maps show, and dots at the spots."""

    image_uri: str
    height: float
    marks: str
    frame: tuple[float, float, float, float]

    @property
    def view_box(self) -> str:
        """Extent of the drawing."""
        return f"0 0 {MAP_WIDTH:g} {self.height:.1f}"


def make_overview(background: MapBackground, xy: NDArray[np.floating]) -> OverviewFigure:
    """Lay out the overview with dots at positions (N, 2) in level-0 px."""
    scale = MAP_WIDTH / background.slide_width
    x, y = background.x * scale, background.y * scale
    return OverviewFigure(
        encode_data_uri(background.thumbnail),
        background.slide_height * scale,
        _dots_path(np.asarray(xy) * scale),
        (x, y, background.width * scale, background.height * scale),
    )


def make_rings(
    background: MapBackground, circles: Iterable[tuple[float, float, float]]
) -> tuple[Ring, ...]:
    """Return rings for circles (x, y, radius) in level-0 px."""
    rings = []
    for x, y, radius in circles:
        cx, cy = background.to_drawing(np.array([[x, y]]))[0].tolist()
        r = radius * background.units_per_px
        rings.append(Ring(cx, cy, r, max(cy - r - 4, 14.0)))
    return tuple(rings)


def crosses_path(canvas: MapCanvas, mask: NDArray[np.bool_]) -> str:
    """Return the path of crosses over the spots of a mask (N,)."""
    half = min(canvas.spot_size * 0.32, 4.0)
    return "".join(
        f"M{x - half:.1f} {y - half:.1f}l{2 * half:.1f} {2 * half:.1f}m0 {-2 * half:.1f}"
        f"l{-2 * half:.1f} {2 * half:.1f}"
        for x, y in canvas.positions[mask]
    )


def _dots_path(positions: NDArray[np.floating]) -> str:
    """Lines of zero length: round caps make them spots, square caps tiles."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in positions)
