"""The slide under the maps: which part of it is shown, as a picture that lies in the page once."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from ...slide import Slide
from ...slide.overview import read_overview
from .markup import SafeMarkup, build_element

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


def read_map_background(slide: Slide, xy: NDArray[np.floating], margin_px: float, mpp: float) -> MapBackground:
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
