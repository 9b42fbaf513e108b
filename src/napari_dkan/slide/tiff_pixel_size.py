"""What a TIFF says about its pixel size."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from .pixel_size import Measured, first_known, from_objective, measured, unit_in_um

UM_PER_RESOLUTION_UNIT = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre


def tiff_pixel_size(tif: Any, width: int, height: int) -> Measured:
    """From OME-XML, else Aperio's description, else the resolution tags, else the objective."""
    xml = tif.ome_metadata or ""
    aperio = tif.pages.first.description if tif.is_svs else ""
    try:
        ome = ElementTree.fromstring(xml) if xml else None
        unparsed = Measured()
    except ElementTree.ParseError:
        ome, unparsed = None, Measured(note="The OME metadata cannot be parsed.")
    return first_known(
        unparsed if ome is None else _ome(ome, width, height),
        measured(*2 * (_aperio(aperio, "MPP"),), "Aperio metadata"),
        _resolution(tif.pages.first.tags),
        from_objective(None if ome is None else _ome_objective(ome, width, height)),
        from_objective(_aperio(aperio, "AppMag")),
    )


def _ome(root: ElementTree.Element, width: int, height: int) -> Measured:
    for pixels in root.iterfind(".//{*}Pixels"):
        if _is_of(pixels, width, height):
            return measured(_side(pixels, "X"), _side(pixels, "Y"), "OME metadata")
    return Measured()


def _ome_objective(root: ElementTree.Element, width: int, height: int) -> float | None:
    """The nominal magnification of the objective that the image of this size refers to."""
    for image in root.iterfind(".//{*}Image"):
        settings = image.find("{*}ObjectiveSettings")
        if settings is None or not any(
            _is_of(pixels, width, height) for pixels in image.iterfind("{*}Pixels")
        ):
            continue
        for objective in root.iterfind(".//{*}Objective"):
            if objective.get("ID") == settings.get("ID"):
                return _number(objective.get("NominalMagnification"), 1.0)
    return None


def _is_of(pixels: ElementTree.Element, width: int, height: int) -> bool:
    return (pixels.get("SizeX"), pixels.get("SizeY")) == (str(width), str(height))


def _side(pixels: ElementTree.Element, axis: str) -> float | None:
    # The OME schema's unit, where none is written, is the micrometre.
    unit = unit_in_um(pixels.get(f"PhysicalSize{axis}Unit", "um"))
    return None if unit is None else _number(pixels.get(f"PhysicalSize{axis}"), unit)


def _aperio(description: str, name: str) -> float | None:
    found = re.search(rf"(?:^|\|)\s*{name}\s*=\s*([^|\s]+)", description)
    return _number(found[1], 1.0) if found else None


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
