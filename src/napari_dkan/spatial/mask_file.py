"""Mask files: PNG and TIFF images of labels, read no larger than outlines of tiles need."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError

ENOUGH = 2_048  # px along the longest side: 50 px of a slide of 100,000
LONGEST = 8_192
MOST_PNG = 2**28  # px; a PNG can only be decoded whole
MOST_TIFF = 2**33
SPARSE = 2**26  # px that may be there without any bytes, and
UNPACKED = 2_000  # px that a byte may stand for: more are the claim of a damaged file
MOST_CHUNK = 2**29  # bytes of a TIFF's tile or strip
MOST_COLOURS = 256

PNG = b"\x89PNG"
TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

# what Pillow and tifffile raise on damaged files
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    SyntaxError,  # Pillow, of a broken PNG
    ImportError,  # a codec that is not installed
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class Mask:
    """A label image.

    labels : (h, w) bool or whole numbers, 0 outside; of a picture in colours 0xRRGGBB.
    shape : rows and columns of the image in the file.
    step : file pixels in a pixel of `labels`.
    coloured : whether the labels are colours.
    """

    labels: NDArray
    shape: tuple[int, int]
    step: int = 1
    coloured: bool = False


def is_mask(start: bytes) -> bool:
    """By the first bytes of a file."""
    return start[:4] == PNG or start[:4] in TIFF


def read_mask(path: Path) -> Mask:
    """Read a PNG or TIFF mask; of a pyramid a level that is fine enough.

    Raises SpotsError naming the file when it is damaged, too large, or no image of labels.
    """
    try:
        with path.open("rb") as file:
            png = file.read(4) == PNG
        return _labelled(*(_png(path) if png else _tiff(path)), path)
    except FileNotFoundError:
        raise SpotsError(f"There is no file {path}; check the path.") from None
    except MemoryError:
        raise _too_large(path) from None
    except _UNREADABLE as error:
        raise SpotsError(
            f"{path.name} could not be read as a mask; export it again as PNG or TIFF."
        ) from error


def _png(path: Path) -> tuple[NDArray, tuple[int, int], int]:
    from PIL.PngImagePlugin import PngImageFile

    with PngImageFile(path) as image:
        width, height = image.size
        if width * height > MOST_PNG:
            raise _too_large(path)
        step = _step(height, width)
        return np.asarray(image)[::step, ::step].copy(), (height, width), step


def _tiff(path: Path) -> tuple[NDArray, tuple[int, int], int]:
    import tifffile
    import zarr

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        level = _level(series.levels)
        chosen: Any = series.levels[level]
        if chosen.keyframe.chunks and _bytes(chosen.keyframe) > MOST_CHUNK:
            raise _too_large(path)
        with series.aszarr(level=level) as store:
            array: Any = zarr.open_array(store=store, mode="r")
            if array.ndim == 3 and array.shape[0] == 1:
                shape = array.shape[1:]
                rows = lambda a, b: array[0, a:b]  # noqa: E731
            else:
                shape = array.shape
                rows = lambda a, b: array[a:b]  # noqa: E731
            if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (3, 4)):
                raise SpotsError(
                    f"{path.name} is a stack of images ({' x '.join(map(str, array.shape))}); "
                    "export the mask as one flat image."
                )
            most = min(MOST_TIFF, SPARSE + UNPACKED * path.stat().st_size)
            if shape[0] * shape[1] > most:
                raise _too_large(path)
            step = _step(*shape[:2])
            block = max(step, (chosen.keyframe.chunks[0] or 1) // step * step)
            parts = [rows(a, a + block)[::step, ::step] for a in range(0, shape[0], block)]
            return np.concatenate(parts), (int(shape[0]), int(shape[1])), step


def _level(levels: Any) -> int:
    """The smallest level that is fine enough."""
    sizes = [max(sorted(level.shape)[-2:]) for level in levels]
    fine = [i for i, size in enumerate(sizes) if size >= ENOUGH]
    return min(fine, key=lambda i: sizes[i], default=0)


def _bytes(page: Any) -> int:
    return int(np.prod([float(n) for n in page.chunks])) * int(page.dtype.itemsize)


def _step(rows: int, columns: int) -> int:
    return -(-max(rows, columns) // LONGEST)


def _labelled(pixels: NDArray, shape: tuple[int, int], step: int, path: Path) -> Mask:
    """Whole numbers as they are; colours as numbers, black and transparent pixels as 0."""
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # gray or palette, with transparency
        pixels = np.where(pixels[..., 1] > 0, pixels[..., 0], 0)
    if pixels.dtype.kind == "f" and (pixels == np.rint(pixels)).all() and abs(pixels).max() < 2**31:
        pixels = pixels.astype(np.int32)
    if pixels.dtype.kind not in "bui":
        raise SpotsError(
            f"{path.name} holds fractions, not labels; set a threshold and save whole numbers."
        )
    if pixels.ndim == 2:
        return Mask(pixels, shape, step)
    if pixels.dtype != np.uint8:
        raise SpotsError(f"{path.name} is a picture, not a mask; save labels as gray values.")
    packed = np.zeros(pixels.shape[:2], np.int32)
    for channel in range(3):
        packed = packed << 8 | pixels[..., channel]
    if pixels.shape[2] == 4:
        packed[pixels[..., 3] == 0] = 0
    every = max(1, packed.size // 1_000_000)
    if len(np.unique(packed.ravel()[::every])) > MOST_COLOURS:
        raise SpotsError(
            f"{path.name} is a picture, not a mask: it has more than {MOST_COLOURS} colours; "
            "save labels as gray values."
        )
    return Mask(packed, shape, step, coloured=True)


def _too_large(path: Path) -> SpotsError:
    return SpotsError(
        f"{path.name} is too large for a mask; export it at a lower resolution, such as a "
        "sixteenth of the slide."
    )
