"""Read OME-Zarr 0.4 and 0.5 (NGFF) with zarr."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ..channel_check import check_channels, check_fourth_channel, check_sample_type, check_used_bits
from ..color_conversion import convert_to_rgb8
from ..file_images import FileContents, choose_image
from ..reader_errors import SourceError
from .ome_zarr_images import ZarrImage, find_zarr_images, pixel_size_from_multiscales
from .slide_source import MAX_IMAGE_PX, TiledSource, levels_from_sizes
from .tile_cache import TileCache, choose_cache_capacity, group_small_chunks

if TYPE_CHECKING:
    from zarr.abc.store import Store


# zarr needs a millisecond per chunk, so small chunks are read together up to this many px.
MIN_READ_PX = 512

# The opacity is checked in squares of this side, so many along each axis of the coarsest level.
OPACITY_SAMPLE_PX, OPACITY_SAMPLES = 128, 4


class OmeZarrSource(TiledSource):
    """One multiscale image of an OME-Zarr folder or store.

    Its axes are y and x, optionally c of 1, 3 or 4 channels, and t and z of length one, in any
    order. Four channels are RGB with opacity. The format does not define ICC profiles.

    Parameters
    ----------
    location
        The folder or the store.
    image
        Name or number of the image; None for the scan.
    """

    def __init__(self, location: Path | Store, image: str | int | None = None) -> None:
        folder = location if isinstance(location, Path) else None
        self._store = None if isinstance(location, Path) else location
        group = zarr.open(str(location) if isinstance(location, Path) else location, mode="r")
        if not isinstance(group, zarr.Group):
            raise SourceError("it is a Zarr array but not an OME-Zarr image")
        images, described = find_zarr_images(group, folder)
        self.contents = FileContents(tuple(described), choose_image(described, image))
        chosen = images[self.contents.index]
        self._axes, self._arrays = chosen.axes, chosen.arrays()
        sizes = [self._validate_array(array, chosen) for array in self._arrays]
        self.levels = levels_from_sizes(sizes)
        self._check_opacity(chosen)
        self.pixel_size_metadata = pixel_size_from_multiscales(chosen.metadata)
        width, height = (self._arrays[0].chunks[self._axes.index(axis)] for axis in "xy")
        self.chunk_size = (
            group_small_chunks(width, MIN_READ_PX),
            group_small_chunks(height, MIN_READ_PX),
        )
        self.cache = TileCache(choose_cache_capacity(self.levels[0].width, self.chunk_size[1]))
        check_used_bits(self._arrays[-1].dtype, self)

    def _validate_array(self, array: Any, image: ZarrImage) -> tuple[int, int]:
        if array.ndim != len(self._axes):
            raise SourceError("its axes do not match its arrays")
        sizes = dict(zip(self._axes, array.shape, strict=True))
        if not {"x", "y"} <= sizes.keys():
            raise SourceError("it has no x and y axes")
        if math.prod(array.chunks) > 3 * MAX_IMAGE_PX:
            raise SourceError(
                f"it is stored in chunks of {math.prod(array.chunks):,} values; export it again "
                "in chunks of about 512 x 512 px"
            )
        if sizes["x"] < 1 or sizes["y"] < 1:
            raise SourceError("its image is empty")
        for axis, size in sizes.items():
            if axis not in "xyc" and size != 1:
                raise SourceError(f"its axis {axis} has {size} entries; export one of them as RGB")
        check_channels(int(sizes.get("c", 1)), image.channel_names(), image.channel_colors())
        check_sample_type(array.dtype)
        return int(sizes["x"]), int(sizes["y"])

    def _check_opacity(self, image: ZarrImage) -> None:
        """Raise SourceError if a fourth channel is not opacity."""
        coarsest = self._arrays[-1]
        sizes = dict(zip(self._axes, coarsest.shape, strict=True))
        if sizes.get("c") != 4:
            return
        starts = {
            axis: {
                max(0, (2 * i + 1) * sizes[axis] // (2 * OPACITY_SAMPLES) - OPACITY_SAMPLE_PX // 2)
                for i in range(OPACITY_SAMPLES)
            }
            for axis in "yx"
        }
        samples = []
        for y in starts["y"]:
            for x in starts["x"]:
                spans: dict[str, slice | int] = {
                    "y": slice(y, y + OPACITY_SAMPLE_PX),
                    "x": slice(x, x + OPACITY_SAMPLE_PX),
                    "c": 3,
                }
                samples.append(np.ravel(coarsest[tuple(spans.get(axis, 0) for axis in self._axes)]))
        check_fourth_channel(np.concatenate(samples), image.channel_names())

    def read_tile(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        """Decode the chunks of one tile."""
        width, height = self.chunk_size
        spans = {
            "x": slice(column * width, (column + 1) * width),
            "y": slice(row * height, (row + 1) * height),
            "c": slice(None),
        }
        pixels = np.asarray(self._arrays[level][tuple(spans.get(axis, 0) for axis in self._axes)])
        axes = [axis for axis in self._axes if axis in spans]
        return convert_to_rgb8(
            pixels.transpose([axes.index(axis) for axis in "yxc" if axis in axes])
        )

    def close(self) -> None:
        """Release the cached tiles and close the store."""
        super().close()
        if self._store is not None:
            self._store.close()
