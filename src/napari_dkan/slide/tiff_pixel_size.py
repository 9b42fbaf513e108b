"""What a TIFF says about its pixel size."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from .pixel_size import Measured, first_known, measured, unit_in_um

UM_PER_RESOLUTION_UNIT = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre


def tiff_pixel_size(tif: Any, width: int, height: int) -> Measured:
    """From OME-XML, else Aperio's description, else the resolution tags."""
    return first_known(
        _ome(tif.ome_metadata or "", width, height),
        _aperio(tif.pages.first.description if tif.is_svs else ""),
        _resolution(tif.pages.first.tags),
    )


def _ome(xml: str, width: int, height: int) -> Measured:
    if not xml:
        return Measured()
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return Measured(note="The OME metadata cannot be parsed.")
    for pixels in root.iterfind(".//{*}Pixels"):
        if (pixels.get("SizeX"), pixels.get("SizeY")) == (str(width), str(height)):
            return measured(_side(pixels, "X"), _side(pixels, "Y"), "OME metadata")
    return Measured()


def _side(pixels: ElementTree.Element, axis: str) -> float | None:
    # The OME schema's unit, where none is written, is the micrometre.
    unit = unit_in_um(pixels.get(f"PhysicalSize{axis}Unit", "um"))
    return None if unit is None else _number(pixels.get(f"PhysicalSize{axis}"), unit)


def _aperio(description: str) -> Measured:
    found = re.search(r"(?:^|\|)\s*MPP\s*=\s*([^|\s]+)", description)
    side = _number(found[1], 1.0) if found else None
    return measured(side, side, "Aperio metadata")


def _resolution(tags: Any) -> Measured:
    unit = UM_PER_RESOLUTION_UNIT.get(int(_value(tags, "ResolutionUnit") or 0))
    if unit is None:
        return Measured()
    sides = []
    for name in ("XResolution", "YResolution"):
        numerator, denominator = _value(tags, name) or (0, 0)
        sides.append(unit * denominator / numerator if numerator and denominator else None)
    return measured(sides[0], sides[1], "TIFF resolution")


def _value(tags: Any, name: str) -> Any:
    tag = tags.get(name)
    return None if tag is None else tag.value


def _number(text: str | None, scale: float) -> float | None:
    try:
        return None if text is None else float(text) * scale
    except ValueError:
        return None
