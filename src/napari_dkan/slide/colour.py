"""Any decoded pixels as 8-bit RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .source import SourceError


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
