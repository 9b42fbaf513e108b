"""Masks: read label images from PNG and TIFF, and trace them as polygons along pixel edges."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

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


def _labels_from_pixels(
    pixels: NDArray, shape: tuple[int, int], step: int, path: Path
) -> LabelMask:
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


MAX_EDGES = 1_500_000  # straight pieces of outline; so many take seconds


def mask_scale(
    shape: Sequence[int], width: int, height: int, mask_name: str = "The mask"
) -> tuple[float, float]:
    """Level-0 px in one pixel of a mask (rows, columns) of a slide, along x and y.

    Programs that shrink a slide round its size down or up, so a power of two, else a whole
    number, is taken where it fits to a pixel; then it is exact at the far edge too.

    Raises SpotsError when the mask has not the slide's proportions.
    """
    rows, columns = (int(n) for n in shape[:2])
    if min(rows, columns) < 1:
        raise SpotsError(f"{mask_name} is empty; export the mask of the whole slide.")
    low = max(width / (columns + 1), height / (rows + 1))
    high = min(width / max(columns - 1, 0.5), height / max(rows - 1, 0.5))
    if low >= high:
        raise SpotsError(
            f"{mask_name} is {columns:,} x {rows:,} px, which are not the proportions of the slide "
            f"({width:,} x {height:,} px); export the mask of the whole slide."
        )
    x, y = width / columns, height / rows
    for whole in (2.0 ** round(math.log2(math.sqrt(x * y))), float(round(math.sqrt(x * y)))):
        if low < whole < high:
            return whole, whole
    return x, y


def polygons_from_mask(
    labels: NDArray, scale: tuple[float, float] = (1.0, 1.0), mask_name: str = "The mask"
) -> dict[int, BaseGeometry]:
    """Polygons of every label but 0 of an image (H, W) of bool or whole numbers.

    The outlines run along pixel edges, so areas are those of the pixels; holes are kept. Pixels
    that touch at a corner only are separate polygons. scale : level-0 px per pixel, (x, y).

    Raises SpotsError when the outline is so ragged that it would take very long.
    """
    image = np.asarray(labels)
    if image.ndim != 2 or image.dtype.kind not in "bui":
        raise ValueError(
            f"a mask is a flat image of whole numbers, not {image.shape} {image.dtype}"
        )
    lines = _trace_outlines(np.pad(image, 1), mask_name)
    if not len(lines):
        return {}
    faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(lines)))
    inside = shapely.get_coordinates(shapely.point_on_surface(faces))
    column, row = np.floor(inside).astype(np.int64).T
    of_face = image[row, column]
    sizes = np.asarray(scale, dtype=np.float64)
    made = {}
    for label in np.unique(of_face[of_face != 0]):
        parts = shapely.transform(faces[of_face == label], lambda xy: xy * sizes)
        # Faces of one label meet in corners only.
        made[int(label)] = parts[0] if len(parts) == 1 else MultiPolygon(list(parts))
    return made


def _trace_outlines(padded: NDArray, mask_name: str) -> NDArray[np.float64]:
    """(N, 2, 2) straight pieces (x, y) between unlike pixels, cut where others join them.

    padded : with a frame of 0, of which the inner corner is the origin.
    """
    across = padded[1:] != padded[:-1]  # [r, c]: a piece along x at the height r
    along = padded[:, 1:] != padded[:, :-1]  # [r, c]: a piece along y at the place c
    pieces = []
    for edges, others, swap in ((across, along, False), (along.T, across.T, True)):
        # A piece goes on over a corner where no other piece starts.
        corner = others[:-1] | others[1:]
        bound = np.zeros((edges.shape[0], edges.shape[1] + 1), bool)
        bound[:, 1:-1] = corner | (edges[:, 1:] != edges[:, :-1])
        bound[:, 0] = bound[:, -1] = True
        line, start = np.nonzero(edges & bound[:, :-1])
        _, end = np.nonzero(edges & bound[:, 1:])
        if len(start) > MAX_EDGES:
            raise SpotsError(
                f"{mask_name} is too ragged to be outlined; smooth it, or leave out single cells."
            )
        ends = np.stack([[start, line], [end + 1, line]]).transpose(2, 0, 1) - (1, 0)
        pieces.append(ends[:, :, ::-1] if swap else ends)
    return np.concatenate(pieces).astype(np.float64)
