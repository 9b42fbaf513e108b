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

MIN_LEVEL_SIDE_PX = 2_048  # px along the longest side: 50 px of a slide of 100,000
MAX_SIDE_PX = 8_192
MAX_PNG_PX = 2**28  # px; a PNG can only be decoded whole
MAX_TIFF_PX = 2**33
MAX_SPARSE_PX = 2**26  # px that may be there without any bytes, and
MAX_PX_PER_BYTE = 2_000  # px that a byte may stand for: more are the claim of a damaged file
MAX_CHUNK_BYTES = 2**29  # bytes of a TIFF's tile or strip
MAX_COLOURS = 256

PNG_SIGNATURE = b"\x89PNG"
TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

# what Pillow and tifffile raise on damaged files
_DECODE_ERRORS = (
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
class LabelMask:
    """A label image.

    labels : (h, w) bool or whole numbers, 0 outside; of a picture in colours 0xRRGGBB.
    shape : rows and columns of the image in the file.
    step : file pixels in a pixel of `labels`.
    coloured : whether the labels are colours.
    """

    labels: NDArray
    shape: tuple[int, int]
    stride: int = 1
    is_rgb: bool = False


def is_mask_file(header: bytes) -> bool:
    """By the first bytes of a file."""
    return header[:4] == PNG_SIGNATURE or header[:4] in TIFF_SIGNATURES


def read_mask(path: Path) -> LabelMask:
    """Read a PNG or TIFF mask; of a pyramid a level that is fine enough.

    Raises SpotsError naming the file when it is damaged, too large, or no image of labels.
    """
    try:
        with path.open("rb") as file:
            png = file.read(4) == PNG_SIGNATURE
        return _labels_from_pixels(*(_read_png(path) if png else _read_tiff(path)), path)
    except FileNotFoundError:
        raise SpotsError(f"There is no file {path}; check the path.") from None
    except MemoryError:
        raise _mask_too_large_error(path) from None
    except _DECODE_ERRORS as error:
        raise SpotsError(
            f"{path.name} could not be read as a mask; export it again as PNG or TIFF."
        ) from error


def _read_png(path: Path) -> tuple[NDArray, tuple[int, int], int]:
    from PIL.PngImagePlugin import PngImageFile

    with PngImageFile(path) as image:
        width, height = image.size
        if width * height > MAX_PNG_PX:
            raise _mask_too_large_error(path)
        step = _choose_stride(height, width)
        return np.asarray(image)[::step, ::step].copy(), (height, width), step


def _read_tiff(path: Path) -> tuple[NDArray, tuple[int, int], int]:
    import tifffile
    import zarr

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        level = _choose_level(series.levels)
        chosen: Any = series.levels[level]
        if chosen.keyframe.chunks and _chunk_bytes(chosen.keyframe) > MAX_CHUNK_BYTES:
            raise _mask_too_large_error(path)
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
            most = min(MAX_TIFF_PX, MAX_SPARSE_PX + MAX_PX_PER_BYTE * path.stat().st_size)
            if shape[0] * shape[1] > most:
                raise _mask_too_large_error(path)
            step = _choose_stride(*shape[:2])
            block = max(step, (chosen.keyframe.chunks[0] or 1) // step * step)
            parts = [rows(a, a + block)[::step, ::step] for a in range(0, shape[0], block)]
            return np.concatenate(parts), (int(shape[0]), int(shape[1])), step


def _choose_level(levels: Any) -> int:
    """The smallest level that is fine enough."""
    sizes = [max(sorted(level.shape)[-2:]) for level in levels]
    fine = [i for i, size in enumerate(sizes) if size >= MIN_LEVEL_SIDE_PX]
    return min(fine, key=lambda i: sizes[i], default=0)


def _chunk_bytes(page: Any) -> int:
    return int(np.prod([float(n) for n in page.chunks])) * int(page.dtype.itemsize)


def _choose_stride(rows: int, columns: int) -> int:
    return -(-max(rows, columns) // MAX_SIDE_PX)


def _labels_from_pixels(pixels: NDArray, shape: tuple[int, int], step: int, path: Path) -> LabelMask:
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
        return LabelMask(pixels, shape, step)
    if pixels.dtype != np.uint8:
        raise SpotsError(f"{path.name} is a picture, not a mask; save labels as gray values.")
    packed = np.zeros(pixels.shape[:2], np.int32)
    for channel in range(3):
        packed = packed << 8 | pixels[..., channel]
    if pixels.shape[2] == 4:
        packed[pixels[..., 3] == 0] = 0
    every = max(1, packed.size // 1_000_000)
    if len(np.unique(packed.ravel()[::every])) > MAX_COLOURS:
        raise SpotsError(
            f"{path.name} is a picture, not a mask: it has more than {MAX_COLOURS} colours; "
            "save labels as gray values."
        )
    return LabelMask(packed, shape, step, is_rgb=True)


def _mask_too_large_error(path: Path) -> SpotsError:
    return SpotsError(
        f"{path.name} is too large for a mask; export it at a lower resolution, such as a "
        "sixteenth of the slide."
    )
