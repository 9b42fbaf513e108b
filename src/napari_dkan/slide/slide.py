"""Slide: a pyramid of regions with a pixel size, whatever file it comes from."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SlideError
from .icc import colour_change
from .lazy_level import LazyLevel
from .pixel_size import Measured, PixelSize
from .plainly import Place, gone, plainly
from .resample import resample
from .source import Level, Source

__all__ = ["Level", "Slide"]

# A level this little coarser than asked for still counts as fine enough.
TOLERANCE = 1.01

# Bytes hashed at each of five places of a file.
SAMPLE = 65_536

# One of these lies at the root of every zarr folder.
ZARR_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")


def is_zarr(folder: Path) -> bool:
    """Whether a folder is the root of a zarr hierarchy."""
    return any((folder / name).exists() for name in ZARR_FILES)


class Slide:
    """One opened slide. All reading is thread-safe; use as a context manager or close().

    path : the local file, None for pixels that come from elsewhere.
    location : where they come from: the path, an address, or "" for an array in memory.
    label, name : what messages call it, the file's name or whatever else; and its stem.
    levels : finest first; a slide above 4,096 px always has coarse ones.
    colours : "" as they are stored, else how they were changed: "ICC profile ... to sRGB".
    pixel_size : None when the file does not say (never guessed); pixel_size_note is then a
        sentence about what it says that could not be used, or "".
    width, height : level-0 px. Pixels are taken as stored: an EXIF orientation is not applied,
        as spot files and regions of other programs count stored pixels.

    Everything here that reads raises SlideError, and nothing else, when the file is damaged,
    has been changed, or is gone; its subclass DamagedTile where only the place that was asked
    for cannot be decoded and others can.
    """

    def __init__(
        self,
        path: Path | None,
        source: Source,
        *,
        label: str = "",
        location: str = "",
        content: Callable[[], bytes] | None = None,
        icc: bool = False,
    ) -> None:
        """content : what tells an array from others of its size, for the fingerprint.
        icc : turn colours into sRGB by the slide's own ICC profile, where it brings one."""
        self.path = path
        self.location = location or ("" if path is None else str(path))
        self.label = label or Path(self.location).name
        file = Path(self.label) if self.location else None
        self.name = self.label if file is None else file.name.removesuffix(file.suffix)
        self.name = self.name.removesuffix(".ome")
        self.levels: tuple[Level, ...] = source.levels
        self.pixel_size: PixelSize | None = source.measured.size
        self.pixel_size_note = source.measured.note
        self._source = source
        self._content = content
        self._colour = colour_change(source.icc) if icc else None
        self.colours = "" if self._colour is None else self._colour.name
        # One block is decoded whole: damage in it is damage of the slide, not of a place.
        self._one_block = source.chunk[0] >= self.width and source.chunk[1] >= self.height
        self._stamp = None if path is None else stamp(path)
        self._fingerprint: str | None = None
        self._lock = Lock()
        self._readers = 0
        self._closed = False

    @classmethod
    def of_arrays(
        cls, name: str, arrays: Sequence[Any], pixel_size: PixelSize | None = None
    ) -> Slide:
        """An image that is open already, as levels (H, W, 3 or 4) from the finest on; see
        `array_source.ArraySource`. One that is large and alone gets coarser levels, made when
        they are looked at. Raises SlideError when the arrays are no RGB picture."""
        from .array_source import ArraySource
        from .reduced import with_overview

        with plainly(name):
            source = ArraySource(arrays, Measured(pixel_size))
            return cls(None, with_overview(source), label=name, content=source.content)

    @property
    def width(self) -> int:
        return self.levels[0].width

    @property
    def height(self) -> int:
        return self.levels[0].height

    @property
    def mpp(self) -> float | None:
        """Micrometres per level-0 px, None when unknown."""
        return None if self.pixel_size is None else self.pixel_size.mpp

    def read_region(
        self, x: int, y: int, width: int, height: int, level: int = 0
    ) -> NDArray[np.uint8]:
        """Pixels (height, width, 3) uint8 with their top left corner at (x, y), all in px of
        that level. Outside the slide is white."""
        if not 0 <= level < len(self.levels):
            raise SlideError(f"The slide {self.label} has no level {level}.")
        if width < 0 or height < 0:
            raise SlideError(f"A region of {width} x {height} px cannot be read.")
        size = self.levels[level]
        left, right = max(x, 0), min(x + width, size.width)
        top, bottom = max(y, 0), min(y + height, size.height)
        place = None if self._one_block else Place(left, top, right, bottom, size.downsample)
        with self._reading(place):
            if left >= right or top >= bottom:
                return np.full((height, width, 3), 255, np.uint8)
            inside = self._source.read(level, left, top, right - left, bottom - top)
            if self._colour is not None:
                inside = self._colour(inside)
        if inside.shape[:2] == (height, width):
            return inside
        out = np.full((height, width, 3), 255, np.uint8)
        out[top - y : bottom - y, left - x : right - x] = inside
        return out

    def read_square(
        self,
        x: float,
        y: float,
        side: float,
        px: int,
        on_resize: Callable[[float], None] | None = None,
    ) -> NDArray[np.uint8]:
        """The square of `side` level-0 px centred on (x, y), resampled to (px, px, 3) uint8.

        Level-0 pixel i covers i to i + 1, so the square covers x - side / 2 to x + side / 2. It
        is read from the coarsest level that is still fine enough, placed to a fraction of a
        pixel and anti-aliased (triangle filter); where it needs no resampling, pixels are
        returned as they are. Outside the slide is white. on_resize : is told how many of the
        seconds went into resampling.
        """
        if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(side)):
            raise SlideError("A square needs a finite centre and side.")
        if side <= 0 or px < 1:
            raise SlideError(f"A square of {side:g} px cannot be read as {px} px.")
        level = self.level_for(side / px)
        factor = self.levels[level].downsample
        return resample(
            lambda left, top, width, height: self.read_region(left, top, width, height, level),
            (x - side / 2) / factor,
            (y - side / 2) / factor,
            side / factor,
            px,
            on_resize,
        )

    def level_for(self, downsample: float) -> int:
        """The coarsest level that still resolves `downsample` level-0 px."""
        fine = [i for i, lv in enumerate(self.levels) if lv.downsample <= downsample * TOLERANCE]
        return max(fine, key=lambda i: self.levels[i].downsample, default=0)

    def pyramid(self) -> list[LazyLevel]:
        """One lazy, read-only array (H, W, 3) uint8 per level, as napari's multiscale takes."""
        return [LazyLevel(self, index) for index in range(len(self.levels))]

    def prefetch(self) -> None:
        """Start decoding in the background where level 0 can only be decoded whole (JPEG, PNG),
        so that zooming in finds it there. Does nothing for slides stored in tiles."""
        with self._reading():
            self._source.prefetch()

    def fingerprint(self) -> str:
        """A hash of size and sampled content as stored: cheap, different for different slides,
        and the same with and without the ICC profile."""
        if self._fingerprint is None:
            self._fingerprint = self._sampled()
        return self._fingerprint

    def _sampled(self) -> str:
        digest = hashlib.sha256(repr([(lv.width, lv.height) for lv in self.levels]).encode())
        if self._content is not None:
            with self._reading():
                digest.update(self._content())
            return digest.hexdigest()
        if self.path is None or self.path.is_dir():
            for index in sorted({0, len(self.levels) - 1}):
                level = self.levels[index]
                for part in (0.25, 0.5, 0.75):
                    x, y = int(level.width * part) - 32, int(level.height * part) - 32
                    digest.update(self._stored(index, x, y, 64))
            return digest.hexdigest()
        with self._reading(), self.path.open("rb") as file:
            size = self.path.stat().st_size
            digest.update(str(size).encode())
            for part in (0.0, 0.25, 0.5, 0.75, 1.0):
                file.seek(int(max(size - SAMPLE, 0) * part))
                digest.update(file.read(SAMPLE))
        return digest.hexdigest()

    def _stored(self, index: int, x: int, y: int, side: int) -> bytes:
        """A square of a level, cut at its edges, as it is stored."""
        level = self.levels[index]
        left, right = max(x, 0), min(x + side, level.width)
        top, bottom = max(y, 0), min(y + side, level.height)
        with self._reading(Place(left, top, right, bottom, level.downsample)):
            return self._source.read(index, left, top, right - left, bottom - top).tobytes()

    def close(self) -> None:
        """Let go of the file. Reads under way in other threads finish; later ones raise."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            last = self._readers == 0
        if last:
            self._source.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _reading(self, place: Place | None = None) -> Iterator[None]:
        """Keeps the file open meanwhile and turns every failure into a SlideError, of the
        place that is read or of the whole file."""
        with self._lock:
            if self._closed:
                raise SlideError(f"The slide {self.label} has been closed; open it again.")
            self._readers += 1
        try:
            with plainly(self.path or self.label, place):
                # An open file can be read on after it was deleted, and a deleted zarr folder
                # reads as blank; neither may pass for the slide.
                if self.path is not None and stamp(self.path) != self._stamp:
                    raise SlideError(
                        f"The slide {self.label} was changed while it was open; open it again."
                    )
                yield
        finally:
            with self._lock:
                self._readers -= 1
                last = self._closed and self._readers == 0
            if last:
                self._source.close()


def stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file, None for a zarr folder; SlideError when it is gone."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise gone(path) from error
    if not S_ISDIR(found.st_mode):
        return found.st_size, found.st_mtime_ns
    if is_zarr(path):
        return None
    raise gone(path)
