"""What a TIFF says about its pixel size."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from .pixel_size import PixelSizeMetadata, choose_pixel_size, pixel_size_from_objective, pixel_size_from_sides, convert_unit_to_um

UM_PER_RESOLUTION_UNIT = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre


def read_tiff_pixel_size(tif: Any, width: int, height: int) -> PixelSizeMetadata:
    """From OME-XML, else Aperio's description, else the resolution tags, else the objective."""
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
        pixel_size_from_objective(None if ome is None else _magnification_from_ome(ome, width, height)),
        pixel_size_from_objective(_read_aperio_number(aperio, "AppMag")),
    )


def _pixel_size_from_ome(root: ElementTree.Element, width: int, height: int) -> PixelSizeMetadata:
    for pixels in root.iterfind(".//{*}Pixels"):
        if _has_size(pixels, width, height):
            return pixel_size_from_sides(_read_physical_size(pixels, "X"), _read_physical_size(pixels, "Y"), "OME metadata")
    return PixelSizeMetadata()


def _magnification_from_ome(root: ElementTree.Element, width: int, height: int) -> float | None:
    """The nominal magnification of the objective that the image of this size refers to."""
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
    # The OME schema's unit, where none is written, is the micrometre.
    unit = convert_unit_to_um(pixels.get(f"PhysicalSize{axis}Unit", "um"))
    return None if unit is None else _parse_number(pixels.get(f"PhysicalSize{axis}"), unit)


def _read_aperio_number(description: str, name: str) -> float | None:
    found = re.search(rf"(?:^|\|)\s*{name}\s*=\s*([^|\s]+)", description)
    return _parse_number(found[1], 1.0) if found else None


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
