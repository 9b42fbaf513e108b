"""One resolution of a TIFF: where its tiles or strips lie, and how they become RGB."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import add
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from .colour import convert_cmyk_to_rgb, convert_to_rgb8
from .source import SourceError

# Rows read together from an image stored as one uncompressed block.
BAND_ROWS = 256

ASSOCIATED_ALPHA = 1

# The decoder fills what a JPEG lacks with gray and says nothing, so its end mark must be there.
JPEG_COMPRESSION = 7
JPEG_END_MARKER = b"\xff\xd9"


class TiffLevel:
    """Tiles of a level as RGB.

    The channels of a pixel lie together, in planes of one page, or in one page each (an OME
    image with three channels); `planes` hides the difference.
    read_bytes(page, offset, count) reads from the file, thread-safely.
    """

    def __init__(self, series: Any, read_bytes: Callable[[Any, int, int], bytes]) -> None:
        pages = [page for page in series.pages if page is not None]
        self._page = page = series.keyframe
        self._read_bytes = read_bytes
        self.width, self.height = int(page.imagewidth), int(page.imagelength)
        if self.width < 1 or self.height < 1:
            raise SourceError("its image is empty")
        self._photometric = page.photometric
        check_supported_image(series, page, len(pages))
        self._is_jpeg = page.compression == JPEG_COMPRESSION
        self._pages = pages
        self.icc_profile: bytes | None = page.iccprofile
        in_page = int(page.samplesperpixel) if page.planarconfig == 2 else 1
        self._planes = [(which, plane) for which in range(len(pages)) for plane in range(in_page)]
        self._jpeg_tables = [getattr(source, "jpegtables", None) for source in pages]
        # Offsets are read from the file when first asked for: do it here, in one thread.
        self._segments = [(source.dataoffsets, source.databytecounts) for source in pages]
        self.end_offset = max(max(map(add, *segments), default=0) for segments in self._segments)
        # An uncompressed image in one block needs no decoding: its rows are read in bands.
        self._is_uncompressed_block = bool(page.is_memmappable) and not page.is_tiled
        if self._is_uncompressed_block:
            self.chunk_size = (self.width, min(BAND_ROWS, self.height))
        elif page.is_tiled:
            self.chunk_size = (int(page.tilewidth), int(page.tilelength))
        else:
            self.chunk_size = (self.width, min(int(page.rowsperstrip), self.height))
        self._n_columns = math.ceil(self.width / self.chunk_size[0])
        self._segments_per_plane = self._n_columns * math.ceil(self.height / self.chunk_size[1])
        expected = self._segments_per_plane * in_page
        if not self._is_uncompressed_block and any(len(offsets) < expected for offsets, _ in self._segments):
            raise SourceError("its list of tiles is incomplete; copy or export it again")

    def read_tile(self, column: int, row: int) -> NDArray[np.uint8]:
        """One chunk as (h, w, 3) uint8, cut at the edge or not."""
        read = self._read_band if self._is_uncompressed_block else self._decode_segment
        parts = [read(which, plane, column, row) for which, plane in self._planes]
        present = [part for part in parts if part is not None]
        if not present:  # Never scanned: writers leave such tiles out.
            return np.full((self.chunk_size[1], self.chunk_size[0], 3), 255, np.uint8)
        if len(present) != len(parts):
            raise SourceError("a colour channel of a tile is missing")
        return self._convert_to_rgb8(present[0] if len(present) == 1 else np.concatenate(present, axis=2))

    def _decode_segment(self, which: int, plane: int, column: int, row: int) -> NDArray[Any] | None:
        index = plane * self._segments_per_plane + row * self._n_columns + column
        offsets, counts = self._segments[which]
        if counts[index] == 0:
            return None
        data = self._read_bytes(self._pages[which], offsets[index], counts[index])
        if self._is_jpeg and JPEG_END_MARKER not in data:
            raise SourceError("a tile is cut short")
        options = {"jpegtables": self._jpeg_tables[which]} if self._jpeg_tables[which] else {}
        decoded, _, shape = self._page.decode(data, index, **options)
        if decoded is None or decoded.size == 0:
            raise SourceError("a tile cannot be decoded")
        return decoded[0, : shape[1], : shape[2]]

    def _read_band(self, which: int, plane: int, column: int, row: int) -> NDArray[Any]:
        page = self._page
        samples = 1 if page.planarconfig == 2 else page.samplesperpixel
        dtype = np.dtype(page.parent.byteorder + page.dtype.char)
        top = row * self.chunk_size[1]
        rows = min(self.chunk_size[1], self.height - top)
        per_row = self.width * samples * dtype.itemsize
        start = self._segments[which][0][0] + (plane * self.height + top) * per_row
        data = self._read_bytes(self._pages[which], start, rows * per_row)
        pixels = np.frombuffer(data, dtype).reshape(rows, self.width, samples)
        return pixels.astype(page.dtype, copy=False)

    def _convert_to_rgb8(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        photometric = tifffile.PHOTOMETRIC
        if self._photometric == photometric.PALETTE:
            colours = (np.asarray(self._page.colormap) >> 8).astype(np.uint8)
            return np.ascontiguousarray(colours.T[pixels[:, :, 0]])
        if self._photometric == photometric.SEPARATED:
            wide = pixels.dtype == np.uint16
            return convert_cmyk_to_rgb((pixels >> 8).astype(np.uint8) if wide else pixels)
        if self._photometric == photometric.MINISWHITE:
            pixels = ~pixels
        extra = self._page.extrasamples
        return convert_to_rgb8(pixels, premultiplied=bool(extra) and extra[0] == ASSOCIATED_ALPHA)


def check_supported_image(series: Any, page: Any, pages: int) -> None:
    """Unreadable, in words, for TIFFs that are no single RGB or gray image."""
    photometric = tifffile.PHOTOMETRIC
    channels = page.samplesperpixel * pages
    spatial = dict(zip(series.axes, series.shape, strict=True))
    for axis, name in (("Z", "focal planes"), ("T", "time points"), ("I", "images")):
        if spatial.get(axis, 1) > 1:
            raise SourceError(f"it has {spatial[axis]} {name}; export one of them as an RGB image")
    if channels not in (1, 2, 3, 4) or (pages > 1 and channels != 3):
        raise SourceError(f"it has {channels} channels; an H&E slide is RGB")
    if page.dtype is None or page.dtype.kind not in "bu" or page.dtype.itemsize > 2:
        kind = "of an unknown type" if page.dtype is None else page.dtype.name
        raise SourceError(f"its pixels are {kind}; export it as RGB with 8 or 16 bits per channel")
    if page.photometric == photometric.YCBCR and page.compression in (1, 5, 8, 32946):
        raise SourceError("it stores YCbCr colours without JPEG; export it as RGB")
    known = (
        photometric.MINISWHITE,
        photometric.MINISBLACK,
        photometric.RGB,
        photometric.PALETTE,
        photometric.YCBCR,
        photometric.SEPARATED,
    )
    if page.photometric not in known:
        raise SourceError(f"its colours are stored as {page.photometric!s:.40}; export it as RGB")
