"""Color conversion: decoded pixels to 8-bit RGB, and an embedded ICC profile to sRGB."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .sources.slide_source import SourceError


def convert_to_rgb8(pixels: NDArray[Any], *, premultiplied: bool = False) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 1 to 4) pixels as (H, W, 3) uint8.

    Gray is repeated; a second or fourth channel is opacity and is laid on white;
    16-bit samples are taken to fill their range, so 65535 becomes 255 (the high byte).
    Unreadable for other sample types and channel counts.
    """
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    elif pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise SourceError(
            f"pixels of type {pixels.dtype.name} are not an H&E image; "
            "export it as RGB with 8 or 16 bits per channel"
        )
    channels = pixels.shape[2]
    if channels in (2, 4):
        return composite_on_white(pixels[:, :, :-1], pixels[:, :, -1:], premultiplied)
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    if channels != 3:
        raise SourceError(f"{channels} channels are not an H&E image; export it as RGB")
    return pixels


def composite_on_white(
    color: NDArray[np.uint8], alpha: NDArray[np.uint8], premultiplied: bool
) -> NDArray[np.uint8]:
    """Colour (H, W, 1 or 3) of opacity alpha (H, W, 1) over white, as (H, W, 3)."""
    if (alpha == 255).all():
        over = color
    else:
        opacity = alpha.astype(np.uint16)
        light = color.astype(np.uint16) * (255 if premultiplied else opacity)
        over = np.minimum((light + (255 - opacity) * 255 + 127) // 255, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(over, (*over.shape[:2], 3)))


def convert_cmyk_to_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 4) inks as (H, W, 3) light."""
    light = 255 - pixels.astype(np.uint16)
    return ((light[:, :, :3] * light[:, :, 3:] + 127) // 255).astype(np.uint8)


# Rows changed at once: Pillow copies them twice, at four bytes a px.
ICC_BAND_ROWS = 1024


@dataclass(frozen=True, eq=False)
class IccTransform:
    """From stored RGB to sRGB; may be called from several threads at once.

    name : e.g. "ICC profile GT450 (3fa2c41b) to sRGB"; the digits tell profiles of one name apart.
    """

    name: str
    transform: Any

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 to the same."""
        from PIL import Image

        out = np.empty_like(pixels)
        for top in range(0, len(pixels), ICC_BAND_ROWS):
            band = Image.fromarray(np.ascontiguousarray(pixels[top : top + ICC_BAND_ROWS]))
            out[top : top + ICC_BAND_ROWS] = np.asarray(self.transform.apply(band))
        return out


@lru_cache(maxsize=8)
def create_icc_transform(icc_profile: bytes | None) -> IccTransform | None:
    """The change that a profile (ICC.1:2022, any version) asks for, None without a profile.

    The rendering intent is the profile's own. Unreadable when it is damaged or not of RGB.
    """
    if not icc_profile:
        return None
    from PIL import ImageCms

    advice = "open the slide without its ICC profile"
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc_profile))
        if profile.profile.xcolor_space.strip() != "RGB":
            raise SourceError(
                f"its ICC profile is of {profile.profile.xcolor_space.strip()} colours, "
                f"not of RGB; {advice}"
            )
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            ImageCms.Intent(profile.profile.rendering_intent),
            # Without the cache of the last pixel a transform may be shared by threads.
            ImageCms.Flags.NOCACHE,
        )
        title = " ".join((profile.profile.profile_description or "without a name").split())
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError) as error:
        raise SourceError(f"its ICC profile is damaged; {advice}") from error
    mark = hashlib.sha256(icc_profile).hexdigest()[:8]
    return IccTransform(f"ICC profile {title[:60]} ({mark}) to sRGB", transform)
