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

MIN_LEVEL_SIDE_PX = 2_048  # longest side: a pixel is 50 px of a slide of 100,000 px
MAX_SIDE_PX = 8_192
MAX_PNG_PX = 2**28  # a PNG can only be decoded whole
MAX_TIFF_PX = 2**33
# A TIFF may have this many px without stored bytes, and this many per byte; more is an invalid
# claim of a damaged file.
MAX_SPARSE_PX = 2**26
MAX_PX_PER_BYTE = 2_000
MAX_CHUNK_BYTES = 2**29  # of a TIFF's tile or strip
MAX_COLOURS = 256
MAX_EDGES = 1_500_000  # straight pieces of outline; this many take seconds

PNG_SIGNATURE = b"\x89PNG"
TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

# Exceptions of Pillow and tifffile for damaged files.
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

    Attributes
    ----------
    labels
        (h, w) bool or whole numbers, 0 outside; 0xRRGGBB for a color image.
    shape
        Rows and columns of the image in the file.
    stride
        File px per px of `labels`.
    is_rgb
        Whether the labels are colors.
    """

    labels: NDArray[Any]
    shape: tuple[int, int]
    stride: int = 1
    is_rgb: bool = False


def is_mask_file(header: bytes) -> bool:
    """Whether the first bytes of a file are those of a PNG or TIFF."""
    return header[:4] == PNG_SIGNATURE or header[:4] in TIFF_SIGNATURES


def read_mask(path: Path) -> LabelMask:
    """Read a PNG or TIFF mask, from a sufficiently fine level of a pyramid.

    Raises
    ------
    SpotsError
        The file is damaged, too large or not a label image.
    """
    try:
        with path.open("rb") as file:
            is_png = file.read(4) == PNG_SIGNATURE
        return _labels_from_pixels(*(_read_png(path) if is_png else _read_tiff(path)), path)
    except FileNotFoundError:
        raise SpotsError(f"There is no file {path}; check the path.") from None
    except MemoryError:
        raise _mask_too_large_error(path) from None
    except _DECODE_ERRORS as error:
        raise SpotsError(
            f"{path.name} could not be read as a mask; export it again as PNG or TIFF."
        ) from error


def _read_png(path: Path) -> tuple[NDArray[Any], tuple[int, int], int]:
    from PIL.PngImagePlugin import PngImageFile

    with PngImageFile(path) as image:
        width, height = image.size
        if width * height > MAX_PNG_PX:
            raise _mask_too_large_error(path)
        stride = _choose_stride(height, width)
        return np.asarray(image)[::stride, ::stride].copy(), (height, width), stride


def _read_tiff(path: Path) -> tuple[NDArray[Any], tuple[int, int], int]:
    import tifffile
    import zarr

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        level = _choose_level(series.levels)
        keyframe: Any = series.levels[level].keyframe
        if keyframe.chunks and _chunk_bytes(keyframe) > MAX_CHUNK_BYTES:
            raise _mask_too_large_error(path)
        with series.aszarr(level=level) as store:
            array: Any = zarr.open_array(store=store, mode="r")
            leading: tuple[int, ...] = (0,) if array.ndim == 3 and array.shape[0] == 1 else ()
            shape = array.shape[len(leading) :]
            if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (3, 4)):
                raise SpotsError(
                    f"{path.name} is a stack of images ({' x '.join(map(str, array.shape))}); "
                    "export the mask as one flat image."
                )
            max_px = min(MAX_TIFF_PX, MAX_SPARSE_PX + MAX_PX_PER_BYTE * path.stat().st_size)
            if shape[0] * shape[1] > max_px:
                raise _mask_too_large_error(path)
            stride = _choose_stride(*shape[:2])
            block = max(stride, (keyframe.chunks[0] or 1) // stride * stride)
            parts = [
                array[(*leading, slice(row, row + block))][::stride, ::stride]
                for row in range(0, shape[0], block)
            ]
            return np.concatenate(parts), (int(shape[0]), int(shape[1])), stride


def _choose_level(levels: Any) -> int:
    """Return the index of the coarsest level that is fine enough."""
    sizes = [max(sorted(level.shape)[-2:]) for level in levels]
    fine = [i for i, size in enumerate(sizes) if size >= MIN_LEVEL_SIDE_PX]
    return min(fine, key=lambda i: sizes[i], default=0)


def _chunk_bytes(page: Any) -> int:
    return int(np.prod([float(n) for n in page.chunks])) * int(page.dtype.itemsize)


def _choose_stride(rows: int, columns: int) -> int:
    return -(-max(rows, columns) // MAX_SIDE_PX)


def _labels_from_pixels(
    pixels: NDArray[Any], shape: tuple[int, int], stride: int, path: Path
) -> LabelMask:
    """Keep whole numbers; pack colors into numbers, black and transparent pixels as 0."""
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # gray or palette, with transparency
        pixels = np.where(pixels[..., 1] > 0, pixels[..., 0], 0)
    if pixels.dtype.kind == "f" and (pixels == np.rint(pixels)).all() and abs(pixels).max() < 2**31:
        pixels = pixels.astype(np.int32)
    if pixels.dtype.kind not in "bui":
        raise SpotsError(
            f"{path.name} holds fractions, not labels; set a threshold and save whole numbers."
        )
    if pixels.ndim == 2:
        return LabelMask(pixels, shape, stride)
    if pixels.dtype != np.uint8:
        raise SpotsError(f"{path.name} is a picture, not a mask; save labels as gray values.")
    packed = np.zeros(pixels.shape[:2], np.int32)
    for channel in range(3):
        packed = packed << 8 | pixels[..., channel]
    if pixels.shape[2] == 4:
        packed[pixels[..., 3] == 0] = 0
    sample_step = max(1, packed.size // 1_000_000)
    if len(np.unique(packed.ravel()[::sample_step])) > MAX_COLOURS:
        raise SpotsError(
            f"{path.name} is a picture, not a mask: it has more than {MAX_COLOURS} colours; "
            "save labels as gray values."
        )
    return LabelMask(packed, shape, stride, is_rgb=True)


def _mask_too_large_error(path: Path) -> SpotsError:
    return SpotsError(
        f"{path.name} is too large for a mask; export it at a lower resolution, such as a "
        "sixteenth of the slide."
    )


def mask_scale(
    shape: Sequence[int], width: int, height: int, mask_name: str = "The mask"
) -> tuple[float, float]:
    """Compute the level-0 px per pixel of a mask along x and y.

    Programs that downsample a slide round its size down or up. So a power of two, else a whole
    number, is used where it fits within a pixel; it is then exact at the far edge too.

    Parameters
    ----------
    shape
        Rows and columns of the mask.
    width, height
        Of the slide in level-0 px.
    mask_name
        Name of the mask in errors.

    Raises
    ------
    SpotsError
        The mask does not have the proportions of the slide.
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
    labels: NDArray[Any], scale: tuple[float, float] = (1.0, 1.0), mask_name: str = "The mask"
) -> dict[int, BaseGeometry]:
    """Trace every label but 0 as polygons with holes.

    The outlines run along pixel edges, so areas are those of the pixels. Pixels that touch only
    at a corner are separate polygons.

    Parameters
    ----------
    labels
        (H, W) bool or whole numbers.
    scale
        Level-0 px per pixel along x and y.
    mask_name
        Name of the mask in errors.

    Raises
    ------
    SpotsError
        The outline has too many pieces to be traced in reasonable time.
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
    face_labels = image[row, column]
    px_size = np.asarray(scale, dtype=np.float64)
    polygons: dict[int, BaseGeometry] = {}
    for label in np.unique(face_labels[face_labels != 0]):
        parts = shapely.transform(faces[face_labels == label], lambda xy: xy * px_size)
        # Faces of one label touch only in corners.
        polygons[int(label)] = parts[0] if len(parts) == 1 else MultiPolygon(list(parts))
    return polygons


def _trace_outlines(padded: NDArray[Any], mask_name: str) -> NDArray[np.float64]:
    """Return (N, 2, 2) straight pieces (x, y) between unequal pixels, split at crossings.

    ``padded`` has a frame of 0, whose inner corner is the origin.
    """
    horizontal_edges = padded[1:] != padded[:-1]  # [r, c]: along x at height r
    vertical_edges = padded[:, 1:] != padded[:, :-1]  # [r, c]: along y at column c
    pieces = []
    for edges, crossing, is_vertical in (
        (horizontal_edges, vertical_edges, False),
        (vertical_edges.T, horizontal_edges.T, True),
    ):
        # A piece continues over a corner where no crossing edge starts.
        has_crossing = crossing[:-1] | crossing[1:]
        is_end = np.zeros((edges.shape[0], edges.shape[1] + 1), bool)
        is_end[:, 1:-1] = has_crossing | (edges[:, 1:] != edges[:, :-1])
        is_end[:, 0] = is_end[:, -1] = True
        line, start = np.nonzero(edges & is_end[:, :-1])
        _, end = np.nonzero(edges & is_end[:, 1:])
        if len(start) > MAX_EDGES:
            raise SpotsError(
                f"{mask_name} is too ragged to be outlined; smooth it, or leave out single cells."
            )
        ends = np.stack([[start, line], [end + 1, line]]).transpose(2, 0, 1) - (1, 0)
        pieces.append(ends[:, :, ::-1] if is_vertical else ends)
    return np.concatenate(pieces).astype(np.float64)
