"""Read OME-Zarr 0.4 and 0.5 (NGFF) with zarr."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray

from ..color_conversion import convert_to_rgb8
from ..pixel_size import PixelSizeMetadata, convert_unit_to_um, pixel_size_from_sides
from ..reader_errors import SourceError
from .slide_source import MAX_IMAGE_PX, TiledSource, levels_from_sizes
from .tile_cache import TileCache, choose_cache_capacity, group_small_chunks

if TYPE_CHECKING:
    from zarr.abc.store import Store


# zarr needs a millisecond per chunk, so small chunks are read together up to this many px.
MIN_READ_PX = 512


class OmeZarrSource(TiledSource):
    """The first multiscale image of an OME-Zarr folder or store.

    Its axes are y and x, optionally c of 1, 3 or 4 channels, and t and z of length one, in any
    order. The format does not define ICC profiles.
    """

    def __init__(self, location: Path | Store) -> None:
        self._store = None if isinstance(location, Path) else location
        group = zarr.open(str(location) if isinstance(location, Path) else location, mode="r")
        if not isinstance(group, zarr.Group):
            raise SourceError("it is a Zarr array but not an OME-Zarr image")
        image = read_multiscales(group)
        if image is None and "0" in group:
            first_image = group["0"]
            if isinstance(first_image, zarr.Group):  # bioformats2raw numbers the images
                group = first_image
                image = read_multiscales(group)
        if image is None:
            raise SourceError("it is a Zarr folder but not an OME-Zarr image")
        self._axes = [a if isinstance(a, str) else a["name"] for a in image["axes"]]
        datasets = image["datasets"]
        self._arrays = [cast(zarr.Array[Any], group[dataset["path"]]) for dataset in datasets]
        sizes = [self._validate_array(array) for array in self._arrays]
        self.levels = levels_from_sizes(sizes)
        self.pixel_size_metadata = pixel_size_from_multiscales(image)
        width, height = (self._arrays[0].chunks[self._axes.index(axis)] for axis in "xy")
        self.chunk_size = (
            group_small_chunks(width, MIN_READ_PX),
            group_small_chunks(height, MIN_READ_PX),
        )
        self.cache = TileCache(choose_cache_capacity(self.levels[0].width, self.chunk_size[1]))

    def _validate_array(self, array: Any) -> tuple[int, int]:
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
        if sizes.get("c", 1) not in (1, 3, 4):
            raise SourceError(f"it has {sizes['c']} channels; an H&E slide is RGB")
        return int(sizes["x"]), int(sizes["y"])

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


def read_multiscales(group: zarr.Group) -> dict[str, Any] | None:
    """Return the first entry of "multiscales": under "ome" from version 0.5 on, else on top.

    Returns None where the group is not an image.
    """
    attributes: dict[str, Any] = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    if "plate" in ome:
        raise SourceError("it is a plate of many images; open one of the images in it")
    images = ome.get("multiscales")
    if not images:
        return None
    image: dict[str, Any] = images[0]
    if not image.get("axes") or not image.get("datasets"):
        raise SourceError("its OME-Zarr metadata is older than 0.3; export it again")
    return image


def pixel_size_from_multiscales(image: dict[str, Any]) -> PixelSizeMetadata:
    """Compute the pixel size: scale of the first level times scale of the image, in um."""
    sides = []
    for name in ("x", "y"):
        axes = [a if isinstance(a, dict) else {"name": a} for a in image["axes"]]
        index = next(i for i, axis in enumerate(axes) if axis["name"] == name)
        side = convert_unit_to_um(axes[index].get("unit"))
        has_scale = False
        for owner in (image["datasets"][0], image):
            for transformation in owner.get("coordinateTransformations") or []:
                if transformation.get("type") == "scale" and side is not None:
                    side *= float(transformation["scale"][index])
                    has_scale = True
        sides.append(side if has_scale else None)
    return pixel_size_from_sides(sides[0], sides[1], "OME-Zarr metadata")
