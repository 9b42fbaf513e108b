"""The slide under the maps: which part of it is shown, as a picture that lies in the page once."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from ...slide import Slide
from ...slide.overview import read_overview
from .markup import Markup, tag

WIDTH = 360.0  # of every map, in units of the drawing
THUMBNAIL_PX = 640
GROUND_PX = 900
SMALLEST_UM = 1000.0  # a map of a few spots still shows where they are
SLIMMEST = 0.8  # width against height; a slimmer map would be taller than a screen
SCALE_BARS_UM = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)


@dataclass(frozen=True)
class Ground:
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
    def scale(self) -> float:
        """Units of a drawing per level-0 px."""
        return WIDTH / self.width

    @property
    def drawn_height(self) -> float:
        return self.height * self.scale

    def at(self, xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """Level-0 px (N, 2) -> units of a drawing."""
        return (np.asarray(xy, np.float64) - (self.x, self.y)) * self.scale

    def picture(self) -> Markup:
        """The picture, to be defined once and used by every map as ``#ground``."""
        return tag(
            "image",
            id="ground",
            width=WIDTH,
            height=self.drawn_height,
            preserveAspectRatio="none",
            href=data_uri(self.pixels),
        )

    def scale_bar(self) -> Markup:
        """A bar of a round length, at the bottom left, labelled in um or mm."""
        target = self.width * self.mpp / 5
        um = min(SCALE_BARS_UM, key=lambda length: abs(np.log(length / target)))
        label = f"{um // 1000} mm" if um >= 1000 else f"{um} µm"
        length, y = um / self.mpp * self.scale, self.drawn_height - 10
        return tag(
            "g",
            tag("path", d=f"M10 {y:.1f}h{length:.1f}", class_="scalebar-back"),
            tag("path", d=f"M10 {y:.1f}h{length:.1f}", class_="scalebar"),
            tag("text", label, x=10, y=y - 6, class_="halo"),
        )


def ground_of(slide: Slide, xy: NDArray[np.floating], margin_px: float, mpp: float) -> Ground:
    """The part of a slide around spots (N, 2), with a margin. Raises SlideError."""
    from PIL import Image

    low, high = xy.min(axis=0) - margin_px, xy.max(axis=0) + margin_px
    least = np.maximum(high - low, SMALLEST_UM / mpp)
    least[0] = max(least[0], SLIMMEST * least[1])
    low, high = (low + high - least) / 2, (low + high + least) / 2
    size = np.array([slide.width, slide.height], float)
    low, high = np.maximum(low, 0), np.minimum(high, size)
    overview, downsample = read_overview(slide, mpp)
    whole = Image.fromarray(overview)
    part = whole.crop((*np.floor(low / downsample), *np.ceil(high / downsample)))
    # What is shown is what was cut out, to whole pixels of the overview.
    corner = np.floor(low / downsample) * downsample
    extent = np.array(part.size) * downsample
    part.thumbnail((GROUND_PX, GROUND_PX))
    whole.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    return Ground(
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


def data_uri(pixels: NDArray[np.uint8], palette: list[str] | None = None) -> str:
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
