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
from ..file_images import FileContents
from ..pixel_size import PixelSizeMetadata
from ..reader_errors import SourceError
from ..scan_area import ScanArea
from .slide_source import MAX_IMAGE_PX, MIN_PYRAMID_SIDE_PX, Level

CONVERT_ADVICE = "convert it to a tiled, pyramidal TIFF"

# A JPEG decodes straight to a half, a quarter or an eighth, ten times faster than in full.
JPEG_FACTORS = (1, 2, 4, 8)


class JpegPngSource:
    """A JPEG or PNG file, opened from its header; each level is decoded once, when first read.

    The lower levels of a large JPEG come from its scaled decoding, so an overview does not wait
    for level 0. Their pixels are the same whether or not level 0 has been decoded.
    """

    # Pixels per inch in a JPEG or PNG refer to the printed page, not to the slide.
    pixel_size_metadata = PixelSizeMetadata()
    contents = FileContents()
    scan_area: ScanArea | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_header(path) as image:
            width, height = image.size
            self.icc_profile: bytes | None = image.info.get("icc_profile")
            scalable = image.format == "JPEG" and max(width, height) > MIN_PYRAMID_SIDE_PX
        if width * height > MAX_IMAGE_PX:
            raise SourceError(
                f"{width:,} x {height:,} px are too many for a flat image (at most 2^30); "
                f"{CONVERT_ADVICE}"
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
        """Return pixels (height, width, 3) of a region inside the level."""
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
        """Start decoding level 0 in a thread."""
        if not self._prefetching:
            self._prefetching = True
            Thread(
                target=self._prefetch_level_0, name=f"decode {self._path.name}", daemon=True
            ).start()

    def _prefetch_level_0(self) -> None:
        # Reading level 0 raises the same error later.
        with suppress(OSError, ValueError, SyntaxError, MemoryError, RuntimeError, SourceError):
            self._decode_level(0)

    def close(self) -> None:
        """Release the decoded images."""
        self._decoded = [None] * len(self.levels)


def check_free_memory(width: int, height: int) -> None:
    """Raise SourceError if an RGB image does not fit into the free memory.

    The operating system may end the program if it is decoded nevertheless.
    """
    import psutil

    needed, free = 3 * width * height, psutil.virtual_memory().available
    if needed > free:
        raise SourceError(
            f"its {width:,} x {height:,} px take {needed / 2**30:.1f} GB of memory, of which "
            f"{free / 2**30:.1f} GB are free; {CONVERT_ADVICE}"
        )


def open_header(path: Path) -> ImageFile:
    """Open an image without decoding it.

    Pillow's Image.open has a size limit meant for web uploads, below a single ST section. These
    files are chosen by the user, and their size is checked from the header.
    """
    with path.open("rb") as file:
        is_png = file.read(4) == b"\x89PNG"
    return PngImageFile(path) if is_png else JpegImageFile(path)


def decode_image(path: Path, factor: int) -> NDArray[np.uint8]:
    """Decode the whole image as (H, W, 3), a JPEG reduced by a factor of 1, 2, 4 or 8."""
    with open_header(path) as image:
        if factor > 1:
            image.draft(image.mode, (image.width // factor, image.height // factor))
        elif image.mode == "RGB" and "transparency" not in image.info:
            start = image.fp.tell() if image.fp else 0
            pixels = (
                decode_jpeg_fast(path, start) if image.format == "JPEG" else decode_png_fast(path)
            )
            if pixels is not None:
                return pixels
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
    """Decode a JPEG with imagecodecs: the pixels of Pillow in a third of the time.

    Returns None where imagecodecs is not installed, or where the file may be cut short, which
    imagecodecs does not report: the end marker must follow the `start` of the image data (an
    earlier one belongs to a thumbnail).
    """
    try:
        from imagecodecs import jpeg8_decode
    except ImportError:
        return None
    data = path.read_bytes()
    return jpeg8_decode(data) if data.rfind(b"\xff\xd9") > start else None


def decode_png_fast(path: Path) -> NDArray[np.uint8] | None:
    """Decode a PNG with imagecodecs: the pixels of Pillow in half the time, a third of the memory.

    Returns None where imagecodecs is not installed. It raises for a file that is cut short.
    """
    try:
        from imagecodecs import png_decode
    except ImportError:
        return None
    return convert_to_rgb8(png_decode(path.read_bytes()))
