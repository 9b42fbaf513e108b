"""An opened slide: image pyramid with a pixel size, lazy level arrays and patch resampling."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SlideError
from .color_conversion import create_icc_transform
from .lazy_level import LazyLevel
from .patch_resampling import resample_patch
from .pixel_size import PixelSize, PixelSizeMetadata
from .reader_errors import LevelRegion, translate_reader_errors
from .scan_area import ScanArea
from .slide_location import file_stamp, slide_stem
from .sources.slide_source import Level, SlideSource

# A level this little coarser than requested still counts as fine enough.
DOWNSAMPLE_TOLERANCE = 1.01

# Bytes hashed at each of five positions of a file.
FINGERPRINT_SAMPLE_BYTES = 65_536


class Slide:
    """One opened slide. Reading is thread-safe; use as a context manager or call `close`.

    Pixels are used as stored: an EXIF orientation is not applied, since spot files and regions
    of other programs count stored pixels.

    Every method that reads raises only SlideError when the file is damaged, was changed or is
    gone, and its subclass DamagedTileError when only the requested region cannot be decoded.

    Parameters
    ----------
    path
        The local file, None for pixels that come from elsewhere.
    source
        Reads the pixels.
    label
        Name of the slide in messages; default the file name.
    location
        The path or URL; "" for arrays in memory.
    content_hash
        Computes a hash of the content of arrays, for the fingerprint.
    apply_icc
        Convert colors to sRGB by the slide's ICC profile, if it has one.
    is_default_image
        The image is the one that is opened without a choice; another one of the file has another
        fingerprint.

    Attributes
    ----------
    name : str
        The label without suffix.
    levels : tuple of Level
        Finest first; a slide above 4,096 px always has coarse levels.
    color_conversion : str
        "" for colors as stored, else for example "ICC profile ... to sRGB".
    pixel_size : PixelSize or None
        None when the file does not state it; it is never guessed.
    pixel_size_note : str
        A sentence about a stated pixel size that could not be used or is only an estimate, or "".
    images : tuple of FileImage
        All images of the file; empty where the format has only one.
    image_name : str
        The one of them that is open, "" where there is only one.
    chosen_image : str
        That name where it was chosen, "" for the image that is opened without a choice.
    scan_area : ScanArea
        Where the scan area and the glass lie.
    """

    def __init__(
        self,
        path: Path | None,
        source: SlideSource,
        *,
        label: str = "",
        location: str = "",
        content_hash: Callable[[], bytes] | None = None,
        apply_icc: bool = False,
        is_default_image: bool = True,
    ) -> None:
        self.path = path
        self.location = location or ("" if path is None else str(path))
        self.label = label or Path(self.location).name
        self.name = (
            slide_stem(Path(self.label).name) if self.location else self.label.removesuffix(".ome")
        )
        self.levels: tuple[Level, ...] = source.levels
        self.pixel_size: PixelSize | None = source.pixel_size_metadata.pixel_size
        self.pixel_size_note = source.pixel_size_metadata.note
        self.images = source.contents.images
        opened = source.contents.image
        self.image_name = opened.name if opened is not None and len(self.images) > 1 else ""
        self.scan_area = source.scan_area or ScanArea.of_image(self.width, self.height)
        self.chosen_image = "" if is_default_image else self.image_name
        self._source = source
        self._content_hash = content_hash
        self._icc_transform = create_icc_transform(source.icc_profile) if apply_icc else None
        self.color_conversion = "" if self._icc_transform is None else self._icc_transform.name
        # A single chunk is decoded whole: damage in it affects the slide, not a region.
        self._is_single_chunk = (
            source.chunk_size[0] >= self.width and source.chunk_size[1] >= self.height
        )
        self._file_stamp = None if path is None else file_stamp(path)
        self._fingerprint: str | None = None
        self._lock = Lock()
        self._n_readers = 0
        self._closed = False

    @classmethod
    def from_arrays(
        cls, name: str, arrays: Sequence[Any], pixel_size: PixelSize | None = None
    ) -> Slide:
        """Create a slide from arrays that are open already.

        A large image without lower levels gets coarse ones, computed when they are read.

        Parameters
        ----------
        name
            Label of the slide in messages.
        arrays
            Levels (H, W, 3 or 4), finest first; see `ArraySource` for types and ranges.
        pixel_size
            Of level 0, None if unknown.

        Raises
        ------
        SlideError
            The arrays are not an RGB image.
        """
        from .sources.array_source import ArraySource
        from .sources.downsampled_source import add_coarse_levels

        with translate_reader_errors(name):
            source = ArraySource(arrays, PixelSizeMetadata(pixel_size))
            return cls(
                None, add_coarse_levels(source), label=name, content_hash=source.hash_content
            )

    @property
    def width(self) -> int:
        """Width in level-0 px."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """Height in level-0 px."""
        return self.levels[0].height

    @property
    def scan_origin(self) -> tuple[int, int]:
        """(x, y) from which QuPath counts; (0, 0) unless the whole glass was opened."""
        return self.scan_area.scan[:2]

    @property
    def mpp(self) -> float | None:
        """Micrometres per level-0 px, None when unknown."""
        return None if self.pixel_size is None else self.pixel_size.mpp

    def read_region(
        self, x: int, y: int, width: int, height: int, level: int = 0
    ) -> NDArray[np.uint8]:
        """Read pixels (height, width, 3) uint8 with their top left corner at (x, y).

        Coordinates and sizes are in px of the level. Outside the slide is white.
        """
        if not 0 <= level < len(self.levels):
            raise SlideError(f"The slide {self.label} has no level {level}.")
        if width < 0 or height < 0:
            raise SlideError(f"A region of {width} x {height} px cannot be read.")
        size = self.levels[level]
        left, right = max(x, 0), min(x + width, size.width)
        top, bottom = max(y, 0), min(y + height, size.height)
        region = (
            None
            if self._is_single_chunk
            else LevelRegion(left, top, right, bottom, size.downsample)
        )
        with self._guard_read(region):
            if left >= right or top >= bottom:
                return np.full((height, width, 3), 255, np.uint8)
            pixels = self._source.read(level, left, top, right - left, bottom - top)
            if self._icc_transform is not None:
                pixels = self._icc_transform(pixels)
        if pixels.shape[:2] == (height, width):
            return pixels
        out = np.full((height, width, 3), 255, np.uint8)
        out[top - y : bottom - y, left - x : right - x] = pixels
        return out

    def read_patch(
        self,
        x: float,
        y: float,
        side: float,
        px: int,
        on_resize: Callable[[float], None] | None = None,
    ) -> NDArray[np.uint8]:
        """Read a square centred on (x, y) and resample it to (px, px, 3) uint8.

        Level-0 pixel i covers i to i + 1, so the square covers x - side / 2 to x + side / 2. It
        is read from the coarsest level that is still fine enough, with subpixel position and
        anti-aliasing (triangle filter). Where no resampling is needed, pixels are returned as
        they are. Outside the slide is white.

        Parameters
        ----------
        x, y, side
            In level-0 px.
        px
            Side of the result in px.
        on_resize
            Called with the seconds spent on resampling.
        """
        if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(side)):
            raise SlideError("A square needs a finite centre and side.")
        if side <= 0 or px < 1:
            raise SlideError(f"A square of {side:g} px cannot be read as {px} px.")
        level = self.best_level_for_downsample(side / px)
        factor = self.levels[level].downsample
        return resample_patch(
            lambda left, top, width, height: self.read_region(left, top, width, height, level),
            (x - side / 2) / factor,
            (y - side / 2) / factor,
            side / factor,
            px,
            on_resize,
        )

    def best_level_for_downsample(self, downsample: float) -> int:
        """Return the index of the coarsest level that still resolves `downsample` level-0 px."""
        fine = [
            i
            for i, lv in enumerate(self.levels)
            if lv.downsample <= downsample * DOWNSAMPLE_TOLERANCE
        ]
        return max(fine, key=lambda i: self.levels[i].downsample, default=0)

    def pyramid(self) -> list[LazyLevel]:
        """Return a lazy array (H, W, 3) uint8 per level, as napari's multiscale images need."""
        return [LazyLevel(self, index) for index in range(len(self.levels))]

    def prefetch(self) -> None:
        """Start decoding level 0 in the background where it can only be decoded whole.

        Only JPEG and PNG need this, so that zooming in does not wait; slides stored in tiles
        ignore it.
        """
        with self._guard_read():
            self._source.prefetch()

    def fingerprint(self) -> str:
        """Return a hash of the size and of samples of the stored content.

        Cheap to compute, different for different slides, and the same with and without the ICC
        profile.
        """
        if self._fingerprint is None:
            self._fingerprint = self._compute_fingerprint()
        return self._fingerprint

    def _compute_fingerprint(self) -> str:
        digest = hashlib.sha256(repr([(lv.width, lv.height) for lv in self.levels]).encode())
        digest.update(self.chosen_image.encode())
        if self._content_hash is not None:
            with self._guard_read():
                digest.update(self._content_hash())
            return digest.hexdigest()
        if self.path is None or self.path.is_dir():
            for index in sorted({0, len(self.levels) - 1}):
                level = self.levels[index]
                for fraction in (0.25, 0.5, 0.75):
                    x, y = int(level.width * fraction) - 32, int(level.height * fraction) - 32
                    digest.update(self._read_stored_patch(index, x, y, 64))
            return digest.hexdigest()
        with self._guard_read(), self.path.open("rb") as file:
            size = self.path.stat().st_size
            digest.update(str(size).encode())
            for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
                file.seek(int(max(size - FINGERPRINT_SAMPLE_BYTES, 0) * fraction))
                digest.update(file.read(FINGERPRINT_SAMPLE_BYTES))
        return digest.hexdigest()

    def _read_stored_patch(self, index: int, x: int, y: int, side: int) -> bytes:
        """Read a square of a level as stored, cropped at the edges of the level."""
        level = self.levels[index]
        left, right = max(x, 0), min(x + side, level.width)
        top, bottom = max(y, 0), min(y + side, level.height)
        with self._guard_read(LevelRegion(left, top, right, bottom, level.downsample)):
            return self._source.read(index, left, top, right - left, bottom - top).tobytes()

    def close(self) -> None:
        """Close the file. Reads that run in other threads finish; later ones raise SlideError."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            is_unused = self._n_readers == 0
        if is_unused:
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
    def _guard_read(self, region: LevelRegion | None = None) -> Iterator[None]:
        """Keep the source open during a read and translate every failure into a SlideError."""
        with self._lock:
            if self._closed:
                raise SlideError(f"The slide {self.label} has been closed; open it again.")
            self._n_readers += 1
        try:
            with translate_reader_errors(self.path or self.label, region):
                # An open file stays readable after it was deleted, and a deleted zarr folder
                # reads as blank; neither may be taken for the slide.
                if self.path is not None and file_stamp(self.path) != self._file_stamp:
                    raise SlideError(
                        f"The slide {self.label} was changed while it was open; open it again."
                    )
                yield
        finally:
            with self._lock:
                self._n_readers -= 1
                is_last_reader = self._closed and self._n_readers == 0
            if is_last_reader:
                self._source.close()
