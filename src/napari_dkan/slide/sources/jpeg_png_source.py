"""Read JPEG and PNG files, which can only be decoded as a whole."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from ..color_conversion import convert_to_rgb8
from ..pixel_size import PixelSizeMetadata
from .downsampled_source import MIN_PYRAMID_SIDE_PX
from .slide_source import Level, SourceError

# Decoded, this is 3 GiB of RGB. Pillow's own limit is meant for web uploads and lies below a
# single ST section; we open files the user chose, and state the size from the header.
MAX_IMAGE_PX = 2**30

CONVERT_ADVICE = "convert it to a tiled, pyramidal TIFF"

# A JPEG decodes straight to a half, a quarter or an eighth, ten times faster than in full.
JPEG_FACTORS = (1, 2, 4, 8)


class JpegPngSource:
    """Opened from the header; each level is decoded when first read, once, and kept.

    The lower levels of a large JPEG come from its scaled decoding, so an overview does not wait
    for level 0. Their pixels are the same whether or not level 0 has been decoded.
    """

    pixel_size_metadata = (
        PixelSizeMetadata()
    )  # Pixels per inch in a JPEG or PNG speak of paper, not of the glass.

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_header(path) as image:
            width, height = image.size
            self.icc_profile: bytes | None = image.info.get("icc_profile")
            scalable = image.format == "JPEG" and max(width, height) > MIN_PYRAMID_SIDE_PX
        if width * height > MAX_IMAGE_PX:
            raise SourceError(
                f"{width:,} x {height:,} px are too many for a flat image (at most 2^30); {CONVERT_ADVICE}"
            )
        check_free_memory(width, height)
        self._factors = JPEG_FACTORS if scalable else (1,)
        self.levels = tuple(
            Level(-(-width // factor), -(-height // factor), float(factor))
            for factor in self._factors
        )
        self.chunk_size = (width, height)
        self._locks = tuple(Lock() for _ in self.levels)
        self._decoded: list[NDArray[np.uint8] | None] = [None] * len(self.levels)
        self._prefetching = False

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        return self._decode_level(level)[y : y + height, x : x + width].copy()

    def _decode_level(self, level: int) -> NDArray[np.uint8]:
        with self._locks[level]:
            pixels = self._decoded[level]
            if pixels is None:
                check_free_memory(self.levels[level].width, self.levels[level].height)
                pixels = self._decoded[level] = decode_image(self._path, self._factors[level])
                if pixels.shape[:2] != (self.levels[level].height, self.levels[level].width):
                    raise SourceError("its size is not what its header says")
            return pixels

    def prefetch(self) -> None:
        if not self._prefetching:
            self._prefetching = True
            Thread(
                target=self._prefetch_level_0, name=f"decode {self._path.name}", daemon=True
            ).start()

    def _prefetch_level_0(self) -> None:
        # Whoever reads level 0 meets the same error, and is told.
        with suppress(OSError, ValueError, SyntaxError, MemoryError, RuntimeError, SourceError):
            self._decode_level(0)

    def close(self) -> None:
        self._decoded = [None] * len(self.levels)


def check_free_memory(width: int, height: int) -> None:
    """Unreadable where an image does not fit into the memory that is free: to find out by
    decoding it may end the program, with everything that is open in it."""
    import psutil

    needed, free = 3 * width * height, psutil.virtual_memory().available
    if needed > free:
        raise SourceError(
            f"its {width:,} x {height:,} px take {needed / 2**30:.1f} GB of memory, of which "
            f"{free / 2**30:.1f} GB are free; {CONVERT_ADVICE}"
        )


def open_header(path: Path) -> ImageFile:
    """The image, not decoded yet. Not through Image.open, whose size limit is below ours."""
    with path.open("rb") as file:
        png = file.read(4) == b"\x89PNG"
    return PngImageFile(path) if png else JpegImageFile(path)


def decode_image(path: Path, factor: int) -> NDArray[np.uint8]:
    """The whole image as (H, W, 3), reduced by a factor of 1, 2, 4 or 8 if it is a JPEG."""
    with open_header(path) as image:
        if factor > 1:
            image.draft(image.mode, (image.width // factor, image.height // factor))
        elif image.mode == "RGB" and "transparency" not in image.info:
            start = image.fp.tell() if image.fp else 0
            whole = (
                decode_jpeg_fast(path, start) if image.format == "JPEG" else decode_png_fast(path)
            )
            if whole is not None:
                return whole
        if image.mode.startswith("I;16"):
            return convert_to_rgb8(np.asarray(image).astype(np.uint16))
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            return convert_to_rgb8(np.asarray(image.convert("RGBA")))
        if image.mode in ("I", "F"):
            raise SourceError(
                "32-bit gray is not an H&E image; export it as RGB with 8 or 16 bits per channel"
            )
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def decode_jpeg_fast(path: Path, start: int) -> NDArray[np.uint8] | None:
    """What Pillow gives in a third of the time, or None where imagecodecs is absent or cannot
    be trusted: it fills a file that is cut short, so the end mark must follow the `start` of
    the picture (an earlier one belongs to a thumbnail)."""
    try:
        from imagecodecs import jpeg8_decode
    except ImportError:
        return None
    data = path.read_bytes()
    return jpeg8_decode(data) if data.rfind(b"\xff\xd9") > start else None


def decode_png_fast(path: Path) -> NDArray[np.uint8] | None:
    """What Pillow gives, in half the time and a third of the memory, or None where imagecodecs
    is absent. It refuses a file that is cut short or damaged."""
    try:
        from imagecodecs import png_decode
    except ImportError:
        return None
    return convert_to_rgb8(png_decode(path.read_bytes()))
