"""Convert decoded pixels to 8-bit RGB, and from an embedded ICC profile to sRGB."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .reader_errors import SourceError

# Rows converted at once: Pillow copies them twice, at four bytes per px.
ICC_BAND_ROWS = 1024


def convert_to_rgb8(pixels: NDArray[Any], *, premultiplied: bool = False) -> NDArray[np.uint8]:
    """Convert (H, W) or (H, W, 1 to 4) pixels to (H, W, 3) uint8.

    Gray is repeated. A second or fourth channel is opacity, composited on white. 16-bit samples
    fill their range, so 65535 becomes 255 (the high byte).

    Parameters
    ----------
    pixels
        bool, uint8 or uint16.
    premultiplied
        The color is already multiplied by the opacity.

    Raises
    ------
    SourceError
        Other sample types and channel counts.
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
    """Composite color (H, W, 1 or 3) with opacity alpha (H, W, 1) on white, as (H, W, 3)."""
    if (alpha == 255).all():
        over = color
    else:
        opacity = alpha.astype(np.uint16)
        light = color.astype(np.uint16) * (255 if premultiplied else opacity)
        over = np.minimum((light + (255 - opacity) * 255 + 127) // 255, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(over, (*over.shape[:2], 3)))


def convert_cmyk_to_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert (H, W, 4) CMYK to (H, W, 3) RGB, without a profile."""
    light = 255 - pixels.astype(np.uint16)
    return ((light[:, :, :3] * light[:, :, 3:] + 127) // 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class IccTransform:
    """Conversion from stored RGB to sRGB; may be called from several threads at once.

    Attributes
    ----------
    name
        For example "ICC profile GT450 (3fa2c41b) to sRGB"; the digits distinguish profiles of
        the same name.
    transform
        Pillow's ImageCmsTransform.
    """

    name: str
    transform: Any

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert (H, W, 3) uint8."""
        from PIL import Image

        out = np.empty_like(pixels)
        for top in range(0, len(pixels), ICC_BAND_ROWS):
            band = Image.fromarray(np.ascontiguousarray(pixels[top : top + ICC_BAND_ROWS]))
            out[top : top + ICC_BAND_ROWS] = np.asarray(self.transform.apply(band))
        return out


@lru_cache(maxsize=8)
def create_icc_transform(icc_profile: bytes | None) -> IccTransform | None:
    """Create the transform for a profile (ICC.1:2022, any version), None without a profile.

    The rendering intent is the one stated in the profile.

    Raises
    ------
    SourceError
        The profile is damaged or not of RGB.
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
            # A transform that does not cache the last pixel can be shared by threads.
            ImageCms.Flags.NOCACHE,
        )
        title = " ".join((profile.profile.profile_description or "without a name").split())
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError) as error:
        raise SourceError(f"its ICC profile is damaged; {advice}") from error
    digest = hashlib.sha256(icc_profile).hexdigest()[:8]
    return IccTransform(f"ICC profile {title[:60]} ({digest}) to sRGB", transform)
