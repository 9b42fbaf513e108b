"""Find the images in an OME-Zarr hierarchy, and what their metadata say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import zarr

from ..file_images import FileImage
from ..pixel_size import PixelSizeMetadata, convert_unit_to_um, pixel_size_from_sides
from ..reader_errors import SourceError

_MAX_IMAGES = 1000


@dataclass(frozen=True)
class ZarrImage:
    """One multiscale image.

    Attributes
    ----------
    group
        The group of its levels.
    path
        Of the group in the hierarchy, "" for the root.
    metadata
        Its entry of "multiscales".
    omero
        Display settings of the group, which name the channels; may be empty.
    """

    group: zarr.Group
    path: str
    metadata: dict[str, Any]
    omero: dict[str, Any]

    @property
    def axes(self) -> list[str]:
        """Names of the axes."""
        return [a if isinstance(a, str) else a["name"] for a in self.metadata["axes"]]

    def arrays(self) -> list[zarr.Array[Any]]:
        """Return the arrays of the levels, finest first."""
        paths = (dataset["path"] for dataset in self.metadata["datasets"])
        return [cast("zarr.Array[Any]", self.group[path]) for path in paths]

    def describe(self, name: str) -> FileImage:
        """Return name and size; an image without axes x and y has size 0."""
        finest = cast("zarr.Array[Any]", self.group[self.metadata["datasets"][0]["path"]])
        sizes = dict(zip(self.axes, finest.shape, strict=False))
        width, height = int(sizes.get("x", 0)), int(sizes.get("y", 0))
        return FileImage(name, width, height, len(self.metadata["datasets"]))

    def channel_names(self) -> list[str]:
        """Return the names of the channels, empty without any."""
        return [str(c.get("label") or "") for c in self._channels()]

    def channel_colors(self) -> list[str]:
        """Return the colors of the channels as RRGGBB, empty without any."""
        return [str(c["color"]) for c in self._channels() if c.get("color")]

    def _channels(self) -> list[dict[str, Any]]:
        channels = self.omero.get("channels")
        if not isinstance(channels, list):
            return []
        return [c for c in channels if isinstance(c, dict)]


def find_zarr_images(
    group: zarr.Group, location: Path | None
) -> tuple[list[ZarrImage], list[FileImage]]:
    """Find the images of a hierarchy: at its root, or in the groups that bioformats2raw numbers.

    Parameters
    ----------
    group
        The root.
    location
        Its folder; None for a store.

    Returns
    -------
    The images, and name and size of each.

    Raises
    ------
    SourceError
        There is no image.
    """
    images = list(_read_images(group, ""))
    if not images:
        for name in _series_names(group, location is not None):
            child = group.get(name)
            if isinstance(child, zarr.Group):
                images += _read_images(child, name)
    if not images:
        raise SourceError("it is a Zarr folder but not an OME-Zarr image")
    names = [] if location is None else _names_from_ome_xml(location)
    described = []
    for i, image in enumerate(images):
        from_xml = names[i] if len(names) == len(images) else ""
        name = str(from_xml or image.metadata.get("name") or image.path or i)
        described.append(image.describe(name if name != "/" else str(i)))
    return images, described


def _read_images(group: zarr.Group, path: str) -> Iterator[ZarrImage]:
    """Yield the images of a group: under "ome" from version 0.5 on, else on top."""
    attributes: dict[str, Any] = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    if "plate" in ome:
        raise SourceError("it is a plate of many images; open one of the images in it")
    omero = ome.get("omero")
    for metadata in ome.get("multiscales") or []:
        if not metadata.get("axes") or not metadata.get("datasets"):
            raise SourceError("its OME-Zarr metadata is older than 0.3; export it again")
        yield ZarrImage(group, path, metadata, omero if isinstance(omero, dict) else {})


def _series_names(group: zarr.Group, can_list: bool) -> list[str]:
    """Return the names of the groups with images: as the file lists them, else by number."""
    if "OME" in group:
        attributes: dict[str, Any] = dict(group["OME"].attrs)
        series = attributes.get("ome", attributes).get("series")
        if isinstance(series, list) and series:
            return [str(name) for name in series]
    if can_list:
        names = sorted(name for name, _ in group.groups() if name.isdigit())
        return sorted(names, key=int)
    names = []
    while len(names) < _MAX_IMAGES and str(len(names)) in group:
        names.append(str(len(names)))
    return names


def _names_from_ome_xml(location: Path) -> list[str]:
    """Return the names of the images in the OME-XML that bioformats2raw writes, if any."""
    try:
        root = ElementTree.parse(location / "OME" / "METADATA.ome.xml").getroot()
    except (OSError, ElementTree.ParseError):
        return []
    return [image.get("Name", "") for image in root.iterfind("{*}Image")]


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
