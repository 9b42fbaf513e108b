"""Read OME-Zarr 0.4 and 0.5 with zarr."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ..color_conversion import convert_to_rgb8
from ..pixel_size import PixelSizeMetadata, convert_unit_to_um, pixel_size_from_sides
from .slide_source import SourceError, levels_from_sizes
from .tile_cache import TileCache, assemble_region, choose_cache_capacity, group_small_chunks

if TYPE_CHECKING:
    from zarr.abc.store import Store


# Small chunks cost zarr a millisecond each: together they are read up to this many px.
MIN_READ_PX = 512

# A chunk is decoded whole, however little of it is wanted: this is 3 GiB of RGB.
MAX_CHUNK_PX = 2**30


class OmeZarrSource:
    """The first multiscale image of a folder: axes y and x, optionally c of 1, 3 or 4 channels,
    and t and z of length one, in any order."""

    icc_profile: bytes | None = None  # The format has no place for one.

    def __init__(self, location: Path | Store) -> None:
        self._store = None if isinstance(location, Path) else location
        group = zarr.open(str(location) if isinstance(location, Path) else location, mode="r")
        if not isinstance(group, zarr.Group):
            raise SourceError("it is a Zarr array but not an OME-Zarr image")
        image = read_multiscales(group)
        if image is None and "0" in group and isinstance(group["0"], zarr.Group):
            group = group["0"]  # bioformats2raw puts each image into a numbered group.
            image = read_multiscales(group)
        if image is None:
            raise SourceError("it is a Zarr folder but not an OME-Zarr image")
        self._axes = [a if isinstance(a, str) else a["name"] for a in image["axes"]]
        datasets = image["datasets"]
        self._arrays = [group[dataset["path"]] for dataset in datasets]
        sizes = [self._validate_array(array) for array in self._arrays]
        self.levels = levels_from_sizes(sizes)
        self.pixel_size_metadata = pixel_size_from_multiscales(image)
        wide, high = (self._arrays[0].chunks[self._axes.index(axis)] for axis in "xy")
        self.chunk_size = (
            group_small_chunks(wide, MIN_READ_PX),
            group_small_chunks(high, MIN_READ_PX),
        )
        self._cache = TileCache(choose_cache_capacity(self.levels[0].width, self.chunk_size[1]))

    def _validate_array(self, array: Any) -> tuple[int, int]:
        if array.ndim != len(self._axes):
            raise SourceError("its axes do not match its arrays")
        sizes = dict(zip(self._axes, array.shape, strict=True))
        if not {"x", "y"} <= sizes.keys():
            raise SourceError("it has no x and y axes")
        if math.prod(array.chunks) > 3 * MAX_CHUNK_PX:
            raise SourceError(
                f"it is stored in chunks of {math.prod(array.chunks):,} values; export it again "
                "in chunks of about 512 x 512 px"
            )
        if sizes["x"] < 1 or sizes["y"] < 1:
            raise SourceError("its image is empty")
        for axis, size in sizes.items():
            if axis not in "xyc" and size != 1:
                raise SourceError(f"its axis {axis} has {size} entries; export one of them as RGB")
        if sizes.get("c", 1) not in (1, 3, 4):
            raise SourceError(f"it has {sizes['c']} channels; an H&E slide is RGB")
        return int(sizes["x"]), int(sizes["y"])

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        return assemble_region(
            x, y, width, height, self.chunk_size,
            lambda column, row: self._cache.get(
                (level, column, row), lambda: self._read_tile(level, column, row)
            ),
        )  # fmt: skip

    def _read_tile(self, level: int, column: int, row: int) -> NDArray[np.uint8]:
        wide, high = self.chunk_size
        spans = {
            "x": slice(column * wide, (column + 1) * wide),
            "y": slice(row * high, (row + 1) * high),
            "c": slice(None),
        }
        pixels = np.asarray(self._arrays[level][tuple(spans.get(axis, 0) for axis in self._axes)])
        kept = [axis for axis in self._axes if axis in spans]
        return convert_to_rgb8(
            pixels.transpose([kept.index(axis) for axis in "yxc" if axis in kept])
        )

    def prefetch(self) -> None:
        pass

    def close(self) -> None:
        self._cache.clear()
        if self._store is not None:
            self._store.close()


def read_multiscales(group: zarr.Group) -> dict[str, Any] | None:
    """The image's description: under "ome" from version 0.5 on, at the top before."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    if "plate" in ome:
        raise SourceError("it is a plate of many images; open one of the images in it")
    images = ome.get("multiscales")
    if not images:
        return None
    if not images[0].get("axes") or not images[0].get("datasets"):
        raise SourceError("its OME-Zarr metadata is older than 0.3; export it again")
    return images[0]


def pixel_size_from_multiscales(image: dict[str, Any]) -> PixelSizeMetadata:
    """From the scale of the first level times that of the whole image, in a unit of length."""
    sides = []
    for name in ("x", "y"):
        axes = [a if isinstance(a, dict) else {"name": a} for a in image["axes"]]
        at = next(i for i, axis in enumerate(axes) if axis["name"] == name)
        side = convert_unit_to_um(axes[at].get("unit"))
        found = False
        for owner in (image["datasets"][0], image):
            for transformation in owner.get("coordinateTransformations") or []:
                if transformation.get("type") == "scale" and side is not None:
                    side *= float(transformation["scale"][at])
                    found = True
        sides.append(side if found else None)
    return pixel_size_from_sides(sides[0], sides[1], "OME-Zarr metadata")
