"""Read the pixel size of a TIFF from its metadata."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from ..pixel_size import (
    PixelSizeMetadata,
    choose_pixel_size,
    convert_unit_to_um,
    pixel_size_from_objective,
    pixel_size_from_sides,
)
from .tiff_images import find_ome_image

UM_PER_RESOLUTION_UNIT = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre


def read_tiff_pixel_size(
    tif: Any, series: Any, width: int, height: int, is_auxiliary: bool = False
) -> PixelSizeMetadata:
    """Read the pixel size of an image of a TIFF.

    Taken from OME-XML, else Aperio's description, else the resolution tags, else ImageJ's unit of
    them, else the objective.

    Parameters
    ----------
    tif
        The open file.
    series
        The series of the image.
    width, height
        Of the image.
    is_auxiliary
        The image is a label, macro or thumbnail, to which what the file states of the scan does
        not apply.
    """
    xml = tif.ome_metadata or ""
    aperio = series.keyframe.description if tif.is_svs and not is_auxiliary else ""
    try:
        root = ElementTree.fromstring(xml) if xml else None
        unparsed = PixelSizeMetadata()
    except ElementTree.ParseError:
        root, unparsed = None, PixelSizeMetadata(note="The OME metadata cannot be parsed.")
    ome = None if root is None else find_ome_image(root, series, width, height)
    return choose_pixel_size(
        unparsed if ome is None else _pixel_size_from_ome(ome),
        pixel_size_from_sides(*2 * (_read_aperio_number(aperio, "MPP"),), "Aperio metadata"),
        _pixel_size_from_resolution(series.keyframe.tags),
        _pixel_size_from_imagej(tif, series.keyframe.tags),
        pixel_size_from_objective(
            None if root is None or ome is None else _magnification_from_ome(root, ome)
        ),
        pixel_size_from_objective(_read_aperio_number(aperio, "AppMag")),
    )


def _pixel_size_from_ome(image: ElementTree.Element) -> PixelSizeMetadata:
    pixels = image.find("{*}Pixels")
    if pixels is None:
        return PixelSizeMetadata()
    return pixel_size_from_sides(
        _read_physical_size(pixels, "X"), _read_physical_size(pixels, "Y"), "OME metadata"
    )


def _magnification_from_ome(root: ElementTree.Element, image: ElementTree.Element) -> float | None:
    """Return the nominal magnification of the objective of an image."""
    settings = image.find("{*}ObjectiveSettings")
    if settings is None:
        return None
    for objective in root.iterfind(".//{*}Objective"):
        if objective.get("ID") == settings.get("ID"):
            return _parse_number(objective.get("NominalMagnification"), 1.0)
    return None


def _read_physical_size(pixels: ElementTree.Element, axis: str) -> float | None:
    # The default unit of the OME schema is the micrometre.
    unit = convert_unit_to_um(pixels.get(f"PhysicalSize{axis}Unit", "um"))
    return None if unit is None else _parse_number(pixels.get(f"PhysicalSize{axis}"), unit)


def _read_aperio_number(description: str, name: str) -> float | None:
    match = re.search(rf"(?:^|\|)\s*{name}\s*=\s*([^|\s]+)", description)
    return _parse_number(match[1], 1.0) if match else None


def _pixel_size_from_resolution(tags: Any) -> PixelSizeMetadata:
    unit = UM_PER_RESOLUTION_UNIT.get(int(_read_tag(tags, "ResolutionUnit") or 0))
    return _pixel_size_from_tags(tags, unit, "TIFF resolution")


def _pixel_size_from_imagej(tif: Any, tags: Any) -> PixelSizeMetadata:
    """Read the resolution tags in ImageJ's unit, which escapes the micro sign."""
    metadata = (tif.imagej_metadata or {}) if tif.is_imagej else {}
    unit = str(metadata.get("unit", "")).replace("\\u00B5", "u")
    return _pixel_size_from_tags(tags, convert_unit_to_um(unit), "ImageJ resolution")


def _pixel_size_from_tags(tags: Any, unit: float | None, origin: str) -> PixelSizeMetadata:
    if unit is None:
        return PixelSizeMetadata()
    sides = []
    for name in ("XResolution", "YResolution"):
        numerator, denominator = _read_tag(tags, name) or (0, 0)
        sides.append(unit * denominator / numerator if numerator and denominator else None)
    return pixel_size_from_sides(sides[0], sides[1], origin)


def _read_tag(tags: Any, name: str) -> Any:
    tag = tags.get(name)
    return None if tag is None else tag.value


def _parse_number(text: str | None, scale: float) -> float | None:
    try:
        return None if text is None else float(text) * scale
    except ValueError:
        return None
