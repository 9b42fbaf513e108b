"""Read plain, tiled and pyramidal TIFF, OME-TIFF and Aperio SVS with tifffile."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from operator import add
from pathlib import Path
from threading import Lock
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from ..color_conversion import convert_cmyk_to_rgb, convert_to_rgb8
from ..pixel_size import (
    PixelSizeMetadata,
    choose_pixel_size,
    convert_unit_to_um,
    pixel_size_from_objective,
    pixel_size_from_sides,
)
from ..reader_errors import SourceError
from .slide_source import MAX_IMAGE_PX, TiledSource, levels_from_sizes
from .tile_cache import TileCache, choose_cache_capacity

UM_PER_RESOLUTION_UNIT = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre


def read_tiff_pixel_size(tif: Any, width: int, height: int) -> PixelSizeMetadata:
    """Read the pixel size of a TIFF for the image of this size.

    Taken from OME-XML, else Aperio's description, else the resolution tags, else the objective.
    """
    xml = tif.ome_metadata or ""
    aperio = tif.pages.first.description if tif.is_svs else ""
    try:
        ome = ElementTree.fromstring(xml) if xml else None
        unparsed = PixelSizeMetadata()
    except ElementTree.ParseError:
        ome, unparsed = None, PixelSizeMetadata(note="The OME metadata cannot be parsed.")
    return choose_pixel_size(
        unparsed if ome is None else _pixel_size_from_ome(ome, width, height),
        pixel_size_from_sides(*2 * (_read_aperio_number(aperio, "MPP"),), "Aperio metadata"),
        _pixel_size_from_resolution(tif.pages.first.tags),
        pixel_size_from_objective(
            None if ome is None else _magnification_from_ome(ome, width, height)
        ),
        pixel_size_from_objective(_read_aperio_number(aperio, "AppMag")),
    )


def _pixel_size_from_ome(root: ElementTree.Element, width: int, height: int) -> PixelSizeMetadata:
    for pixels in root.iterfind(".//{*}Pixels"):
        if _has_size(pixels, width, height):
            return pixel_size_from_sides(
                _read_physical_size(pixels, "X"), _read_physical_size(pixels, "Y"), "OME metadata"
            )
    return PixelSizeMetadata()


def _magnification_from_ome(root: ElementTree.Element, width: int, height: int) -> float | None:
    """Return the nominal magnification of the objective of the image of this size."""
    for image in root.iterfind(".//{*}Image"):
        settings = image.find("{*}ObjectiveSettings")
        if settings is None or not any(
            _has_size(pixels, width, height) for pixels in image.iterfind("{*}Pixels")
        ):
            continue
        for objective in root.iterfind(".//{*}Objective"):
            if objective.get("ID") == settings.get("ID"):
                return _parse_number(objective.get("NominalMagnification"), 1.0)
    return None


def _has_size(pixels: ElementTree.Element, width: int, height: int) -> bool:
    return (pixels.get("SizeX"), pixels.get("SizeY")) == (str(width), str(height))


def _read_physical_size(pixels: ElementTree.Element, axis: str) -> float | None:
    # The default unit of the OME schema is the micrometre.
    unit = convert_unit_to_um(pixels.get(f"PhysicalSize{axis}Unit", "um"))
    return None if unit is None else _parse_number(pixels.get(f"PhysicalSize{axis}"), unit)


def _read_aperio_number(description: str, name: str) -> float | None:
    match = re.search(rf"(?:^|\|)\s*{name}\s*=\s*([^|\s]+)", description)
    return _parse_number(match[1], 1.0) if match else None


def _pixel_size_from_resolution(tags: Any) -> PixelSizeMetadata:
    unit = UM_PER_RESOLUTION_UNIT.get(int(_read_tag(tags, "ResolutionUnit") or 0))
    if unit is None:
        return PixelSizeMetadata()
    sides = []
    for name in ("XResolution", "YResolution"):
        numerator, denominator = _read_tag(tags, name) or (0, 0)
        sides.append(unit * denominator / numerator if numerator and denominator else None)
    return pixel_size_from_sides(sides[0], sides[1], "TIFF resolution")


def _read_tag(tags: Any, name: str) -> Any:
    tag = tags.get(name)
    return None if tag is None else tag.value


def _parse_number(text: str | None, scale: float) -> float | None:
    try:
        return None if text is None else float(text) * scale
    except ValueError:
        return None


# Rows read together from an image stored as one uncompressed block.
BAND_ROWS = 256

ASSOCIATED_ALPHA = 1

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

    Raises
    ------
    SourceError
        The level is not a single RGB or gray image, or its list of tiles is incomplete.
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
        decoded, _, shape = self._page.decode(data, index, **options)
        if decoded is None or decoded.size == 0:
            raise SourceError("a tile cannot be decoded")
        tile: NDArray[Any] = decoded[0, : shape[1], : shape[2]]
        return tile

    def _read_band(self, page_index: int, plane: int, column: int, row: int) -> NDArray[Any]:
        page = self._page
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
            colors = (np.asarray(self._page.colormap) >> 8).astype(np.uint8)
            return np.ascontiguousarray(colors.T[pixels[:, :, 0]])
        if self._photometric == photometric.SEPARATED:
            is_16_bit = pixels.dtype == np.uint16
            return convert_cmyk_to_rgb((pixels >> 8).astype(np.uint8) if is_16_bit else pixels)
        if self._photometric == photometric.MINISWHITE:
            pixels = ~pixels
        extra = self._page.extrasamples
        return convert_to_rgb8(pixels, premultiplied=bool(extra) and extra[0] == ASSOCIATED_ALPHA)


def check_supported_image(series: Any, page: Any, pages: int) -> None:
    """Raise SourceError for a TIFF that is not a single RGB or gray image."""
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
    supported = (
        photometric.MINISWHITE,
        photometric.MINISBLACK,
        photometric.RGB,
        photometric.PALETTE,
        photometric.YCBCR,
        photometric.SEPARATED,
    )
    if page.photometric not in supported:
        raise SourceError(f"its colours are stored as {page.photometric!s:.40}; export it as RGB")


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
    """Reads tiles or strips from their offset in the file; decoded ones are cached."""

    def __init__(self, path: Path) -> None:
        self._tif = tifffile.TiffFile(path)
        try:
            self._lock = Lock()
            self._levels = [
                TiffLevel(series, self._read_bytes) for series in find_level_series(self._tif)
            ]
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
                self._tif, self.levels[0].width, self.levels[0].height
            )
        except BaseException:
            self._tif.close()
            raise
        self.cache = TileCache(choose_cache_capacity(self.levels[0].width, self.chunk_size[1]))

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


def find_level_series(tif: tifffile.TiffFile) -> list[Any]:
    """Return the series of tifffile that hold the levels of the slide, finest first.

    tifffile groups pyramids in SubIFDs and most flat ones. Where levels are separate images
    (flat OME pyramids), smaller images of the same shape, type and tiling are taken as levels.
    """
    if not tif.series:
        raise SourceError("it holds no image; copy or export it again")
    main = max(tif.series, key=lambda series: series.size)
    levels = list(main.levels)
    if len(levels) == 1 and not tif.is_svs:
        others = [series for series in tif.series if series is not main]
        levels += [series for series in others if _is_level_of(series, main)]
        levels.sort(key=lambda series: -series.size)
    return levels


def _is_level_of(series: Any, main: Any) -> bool:
    page, first = series.keyframe, main.keyframe
    if (series.axes, series.dtype) != (main.axes, main.dtype) or len(series.shape) < 2:
        return False
    if page.is_tiled != first.is_tiled or page.imagewidth >= first.imagewidth:
        return False
    factor = first.imagewidth / page.imagewidth
    return bool(abs(first.imagelength / factor - page.imagelength) <= 1)
