"""Find the images in a TIFF: the scan, its levels, and the others."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import tifffile

from ..file_images import FileContents, FileImage, choose_image
from ..reader_errors import SourceError

_MAX_NAME = 60


def find_tiff_image(
    tif: tifffile.TiffFile, wanted: str | int | None = None
) -> tuple[Any, list[Any], FileContents]:
    """Find an image and its levels.

    tifffile groups pyramids in SubIFDs and most flat ones. Where levels are separate images
    (flat OME pyramids), smaller images of the same shape, type and tiling are taken as levels.

    Parameters
    ----------
    tif
        The open file.
    wanted
        Name or number of the image; None for the scan.

    Returns
    -------
    Its series, the series of its levels (finest first), and the images of the file.

    Raises
    ------
    SourceError
        There is no image, or not the wanted one.
    """
    if not tif.series:
        raise SourceError("it holds no image; copy or export it again")
    described = [_describe(series, i) for i, series in enumerate(tif.series)]
    scan = tif.series[choose_image(described, None)]
    levels = _find_levels(tif, scan, described)
    images = [
        (series, image)
        for series, image in zip(tif.series, described, strict=True)
        if series is scan or not any(series is level for level in levels)
    ]
    names = tuple(image for _, image in images)
    index = choose_image(names, wanted)
    main = images[index][0]
    return main, (levels if main is scan else list(main.levels)), FileContents(names, index)


def _describe(series: Any, number: int) -> FileImage:
    page = series.keyframe
    name = str(series.name or "").strip()
    if not name:
        first_line = str(page.description or "").strip().partition("\n")[0].strip()
        is_words = first_line.isprintable() and first_line[:1] not in ("<", "{")
        name = first_line if is_words and len(first_line) <= _MAX_NAME else ""
    width, height = int(page.imagewidth), int(page.imagelength)
    return FileImage(name or str(number), width, height, len(series.levels))


def _find_levels(tif: tifffile.TiffFile, scan: Any, described: list[FileImage]) -> list[Any]:
    levels = list(scan.levels)
    if len(levels) == 1 and not tif.is_svs:
        levels += [
            series
            for series, image in zip(tif.series, described, strict=True)
            if series is not scan and not image.is_auxiliary and _is_level_of(series, scan)
        ]
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


def find_ome_image(
    root: ElementTree.Element, series: Any, width: int, height: int
) -> ElementTree.Element | None:
    """Return the OME element of the image with the size, and the name where several have it."""
    sized = [
        image
        for image in root.iterfind(".//{*}Image")
        if (pixels := image.find("{*}Pixels")) is not None
        and (pixels.get("SizeX"), pixels.get("SizeY")) == (str(width), str(height))
    ]
    named = [image for image in sized if image.get("Name") == series.name]
    return next(iter(named or sized), None)


def channel_names_from_ome(tif: tifffile.TiffFile, series: Any) -> list[str]:
    """Return the names of the channels of a series in the OME-XML, empty without any."""
    try:
        root = ElementTree.fromstring(tif.ome_metadata) if tif.ome_metadata else None
    except ElementTree.ParseError:
        return []
    page = series.keyframe
    image = (
        None
        if root is None
        else find_ome_image(root, series, int(page.imagewidth), int(page.imagelength))
    )
    if image is None:
        return []
    return [channel.get("Name", "") for channel in image.iterfind("{*}Pixels/{*}Channel")]
