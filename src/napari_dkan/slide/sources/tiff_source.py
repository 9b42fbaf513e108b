"""Read plain, tiled and pyramidal TIFF, OME-TIFF and Aperio SVS with tifffile."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from operator import add
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ..channel_check import channels_error, check_channels, check_sample_type, check_used_bits
from ..color_conversion import convert_cmyk_to_rgb, convert_to_rgb8
from ..reader_errors import SourceError
from .slide_source import MAX_IMAGE_PX, TiledSource, levels_from_sizes
from .tiff_images import channel_names_from_ome, find_tiff_image
from .tiff_pixel_size import read_tiff_pixel_size
from .tile_cache import TileCache, choose_cache_capacity

# Rows read together from an image stored as one uncompressed block.
BAND_ROWS = 256

ASSOCIATED_ALPHA = 1
OPACITY_SAMPLES = (ASSOCIATED_ALPHA, 2)

# The decoder silently fills missing parts of a JPEG with gray, so the end marker is checked.
JPEG_COMPRESSION = 7
JPEG_END_MARKER = b"\xff\xd9"


class TiffLevel:
    """Tiles of one level as RGB.

    Channels are interleaved, in planes of one page, or in one page each (an OME image with three
    channels); all three are read as a list of planes.

    Parameters
    ----------
    series
        A series of tifffile, or a level of one.
    read_bytes
        ``read_bytes(page, offset, count)`` reads from the file, thread-safely.
    channel_names
        As the file gives them, to tell RGB from other channels.

    Raises
    ------
    SourceError
        The level is not a single RGB or gray image, or its list of tiles is incomplete.
    """

    def __init__(
        self,
        series: Any,
        read_bytes: Callable[[Any, int, int], bytes],
        channel_names: Sequence[str] = (),
    ) -> None:
        pages = [page for page in series.pages if page is not None]
        self.page = page = series.keyframe
        self._read_bytes = read_bytes
        self.width, self.height = int(page.imagewidth), int(page.imagelength)
        if self.width < 1 or self.height < 1:
            raise SourceError("its image is empty")
        self._photometric = page.photometric
        check_supported_image(series, page, len(pages), channel_names)
        self._is_jpeg = page.compression == JPEG_COMPRESSION
        self._pages = pages
        self.icc_profile: bytes | None = page.iccprofile
        planes_per_page = int(page.samplesperpixel) if page.planarconfig == 2 else 1
        self._planes = [(i, plane) for i in range(len(pages)) for plane in range(planes_per_page)]
        self._jpeg_tables = [getattr(source, "jpegtables", None) for source in pages]
        # tifffile reads offsets from the file on first use: use them here, in one thread.
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
        expected = self._segments_per_plane * planes_per_page
        if not self._is_uncompressed_block and any(
            len(offsets) < expected for offsets, _ in self._segments
        ):
            raise SourceError("its list of tiles is incomplete; copy or export it again")

    def read_tile(self, column: int, row: int) -> NDArray[np.uint8]:
        """Decode one chunk as (h, w, 3) uint8, cropped at the edge of the level or not."""
        read = self._read_band if self._is_uncompressed_block else self._decode_segment
        parts = [read(page_index, plane, column, row) for page_index, plane in self._planes]
        present = [part for part in parts if part is not None]
        if not present:  # not scanned: writers omit such tiles
            return np.full((self.chunk_size[1], self.chunk_size[0], 3), 255, np.uint8)
        if len(present) != len(parts):
            raise SourceError("a colour channel of a tile is missing")
        return self._convert_to_rgb8(
            present[0] if len(present) == 1 else np.concatenate(present, axis=2)
        )

    def _decode_segment(
        self, page_index: int, plane: int, column: int, row: int
    ) -> NDArray[Any] | None:
        index = plane * self._segments_per_plane + row * self._n_columns + column
        offsets, counts = self._segments[page_index]
        if counts[index] == 0:
            return None
        data = self._read_bytes(self._pages[page_index], offsets[index], counts[index])
        if self._is_jpeg and JPEG_END_MARKER not in data:
            raise SourceError("a tile is cut short")
        options = (
            {"jpegtables": self._jpeg_tables[page_index]} if self._jpeg_tables[page_index] else {}
        )
        decoded, _, shape = self.page.decode(data, index, **options)
        if decoded is None or decoded.size == 0:
            raise SourceError("a tile cannot be decoded")
        tile: NDArray[Any] = decoded[0, : shape[1], : shape[2]]
        return tile

    def _read_band(self, page_index: int, plane: int, column: int, row: int) -> NDArray[Any]:
        page = self.page
        samples = 1 if page.planarconfig == 2 else page.samplesperpixel
        dtype = np.dtype(page.parent.byteorder + page.dtype.char)
        top = row * self.chunk_size[1]
        rows = min(self.chunk_size[1], self.height - top)
        per_row = self.width * samples * dtype.itemsize
        start = self._segments[page_index][0][0] + (plane * self.height + top) * per_row
        data = self._read_bytes(self._pages[page_index], start, rows * per_row)
        pixels = np.frombuffer(data, dtype).reshape(rows, self.width, samples)
        return pixels.astype(page.dtype, copy=False)

    def _convert_to_rgb8(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        photometric = tifffile.PHOTOMETRIC
        if self._photometric == photometric.PALETTE:
            colors = (np.asarray(self.page.colormap) >> 8).astype(np.uint8)
            return np.ascontiguousarray(colors.T[pixels[:, :, 0]])
        if self._photometric == photometric.SEPARATED:
            is_16_bit = pixels.dtype == np.uint16
            return convert_cmyk_to_rgb((pixels >> 8).astype(np.uint8) if is_16_bit else pixels)
        if self._photometric == photometric.MINISWHITE:
            pixels = ~pixels
        extra = self.page.extrasamples
        return convert_to_rgb8(pixels, premultiplied=bool(extra) and extra[0] == ASSOCIATED_ALPHA)


def check_supported_image(
    series: Any, page: Any, pages: int, channel_names: Sequence[str] = ()
) -> None:
    """Raise SourceError for a TIFF that is not a single RGB or gray image."""
    photometric = tifffile.PHOTOMETRIC
    channels = page.samplesperpixel * pages
    spatial = dict(zip(series.axes, series.shape, strict=True))
    for axis, name in (("Z", "focal planes"), ("T", "time points"), ("I", "images")):
        if spatial.get(axis, 1) > 1:
            raise SourceError(f"it has {spatial[axis]} {name}; export one of them as an RGB image")
    if pages > 1 and page.samplesperpixel > 2:
        raise SourceError(f"it has {pages} images of one size; export one of them as an RGB image")
    is_gray = page.photometric in (photometric.MINISWHITE, photometric.MINISBLACK)
    has_opacity = any(extra in OPACITY_SAMPLES for extra in page.extrasamples or ())
    if channels == 2 and has_opacity:
        check_channels(1, channel_names)
    elif channels == 4 and (pages > 1 or (is_gray and not has_opacity)):
        raise channels_error(4, channel_names)
    else:
        check_channels(channels, channel_names)
    if page.dtype is None:
        raise SourceError("its pixels are of an unknown type; export it as RGB with 8 or 16 bits")
    check_sample_type(page.dtype)
    if page.photometric == photometric.YCBCR and page.compression in (1, 5, 8, 32946):
        raise SourceError("it stores YCbCr colours without JPEG; export it as RGB")
    supported = (
        photometric.MINISWHITE,
        photometric.MINISBLACK,
        photometric.RGB,
        photometric.PALETTE,
        photometric.YCBCR,
        photometric.SEPARATED,
    )
    if page.photometric not in supported:
        name = getattr(page.photometric, "name", f"type {page.photometric}")
        raise SourceError(f"its colours are stored as {name}; export it as RGB")


# Vendor layouts that OpenSlide knows and plain TIFF readers get wrong (overlaps, focal planes).
OPENSLIDE_TIFF_FLAGS = ("is_ndpi", "is_scn", "is_bif", "is_philips")

# Aperio's JPEG 2000 in YCbCr, which tifffile does not convert to RGB.
APERIO_YCBCR = 33003

# tifffile logs problems of a file, which are reported as a SlideError here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def is_openslide_tiff(path: Path) -> bool:
    """Whether OpenSlide reads this TIFF better than tifffile."""
    with tifffile.TiffFile(path) as tif:
        if any(getattr(tif, flag, False) for flag in OPENSLIDE_TIFF_FLAGS):
            return True
        return bool(len(tif.pages)) and tif.pages.first.compression == APERIO_YCBCR


class TiffSource(TiledSource):
    """Reads tiles or strips from their offset in the file; decoded ones are cached.

    Parameters
    ----------
    path
        The file.
    image
        Name or number of the image in the file; None for the scan.
    """

    def __init__(self, path: Path, image: str | int | None = None) -> None:
        self._tif = tifffile.TiffFile(path)
        try:
            self._lock = Lock()
            main, level_series, self.contents = find_tiff_image(self._tif, image)
            names = channel_names_from_ome(self._tif, main)
            self._levels = [TiffLevel(series, self._read_bytes, names) for series in level_series]
            size = path.stat().st_size
            if any(level.end_offset > size for level in self._levels):
                raise SourceError("the file is cut short; copy or export it again")
            width, height = self._levels[0].chunk_size
            if width * height > MAX_IMAGE_PX:
                raise SourceError(
                    f"it is stored as one block of {width:,} x {height:,} px; "
                    "convert it to a tiled, pyramidal TIFF"
                )
            self.levels = levels_from_sizes([(level.width, level.height) for level in self._levels])
            self.chunk_size = self._levels[0].chunk_size
            self.icc_profile = self._levels[0].icc_profile
            self.pixel_size_metadata = read_tiff_pixel_size(
                self._tif,
                main,
                self.levels[0].width,
                self.levels[0].height,
                self.contents.images[self.contents.index].is_auxiliary,
            )
            self.cache = TileCache(choose_cache_capacity(self.levels[0].width, self.chunk_size[1]))
            page = self._levels[-1].page
            if page.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.MINISBLACK):
                check_used_bits(np.dtype(page.dtype), self)
        except BaseException:
            self._tif.close()
            raise

    def tile_size(self, level: int) -> tuple[int, int]:
        """Return (width, height) of the tiles of a level in px."""
        return self._levels[level].chunk_size

    def read_tile(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        """Decode one tile or strip."""
        return self._levels[level].read_tile(column, row)

    def _read_bytes(self, page: Any, offset: int, count: int) -> bytes:
        # The lock covers seek and read; decoding happens outside it.
        with self._lock:
            file = page.parent.filehandle
            file.seek(offset)
            data: bytes = file.read(count)
        if len(data) != count:
            raise SourceError("the file is cut short; copy or export it again")
        return data

    def close(self) -> None:
        """Release the cached tiles and close the file."""
        super().close()
        self._tif.close()
