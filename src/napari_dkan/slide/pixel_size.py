"""How large a level-0 pixel is, and who says so."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import SlideError

SMALLEST_MPP = 0.05
LARGEST_MPP = 20.0

# A scan through this objective usually has so many um per px, divided by its magnification.
UM_AT_ONE = 10.0
OBJECTIVES = (1.0, 150.0)
OBJECTIVE_POWER = "objective power"

# A pixel whose sides differ by more than this is not described by one number.
ANISOTROPY = 0.01

MICROMETRES = {
    "pm": 1e-6,
    "angstrom": 1e-4,
    "å": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "um": 1.0,
    "micrometer": 1.0,
    "micron": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "in": 25_400.0,
    "inch": 25_400.0,
}


@dataclass(frozen=True)
class PixelSize:
    """Side of a level-0 pixel in micrometres, and where the figure comes from.

    mpp : um per px, within 0.05 to 20 (SlideError outside: no scanner has such pixels, so the
        figure is a mistake, usually one of units).
    origin : e.g. "OME metadata", "Aperio metadata", "TIFF resolution", "entered by hand".
    estimated : the figure is what slides like this one usually have, nobody measured it. Any
        other origin is better; say "about".
    """

    mpp: float
    origin: str

    @property
    def estimated(self) -> bool:
        return self.origin == OBJECTIVE_POWER

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mpp) and SMALLEST_MPP <= self.mpp <= LARGEST_MPP):
            raise SlideError(
                f"A pixel size of {self.mpp:g} um/px cannot be right for a slide; "
                f"give one between {SMALLEST_MPP:g} and {LARGEST_MPP:g} um/px."
            )


@dataclass(frozen=True)
class Measured:
    """What a file says about its pixel size: a usable figure, a remark why there is none or why
    it is only an estimate, or neither."""

    size: PixelSize | None = None
    note: str = ""


def unit_in_um(unit: str | None) -> float | None:
    """Micrometres in one `unit`, None for units that are no length (pixel, reference frame)."""
    plain = (unit or "").strip().lower().replace("\u00b5", "u").replace("\u03bc", "u")
    plain = plain.replace("metre", "meter")
    return MICROMETRES.get(plain) or MICROMETRES.get(plain.removesuffix("s"))


def measured(x: float | None, y: float | None, origin: str) -> Measured:
    """The pixel size from its two sides in um; sides within 1 % of each other are averaged.

    Missing sides give nothing; absurd or unequal ones give nothing and a note that says so.
    """
    if x is None and y is None:
        return Measured()
    x, y = (x if x is not None else y), (y if y is not None else x)
    if not all(side is not None and math.isfinite(side) and side > 0 for side in (x, y)):
        return Measured(note=f"The {origin} has no usable pixel size.")
    mean = (x + y) / 2  # type: ignore[operator]
    if abs(x - y) > ANISOTROPY * mean:  # type: ignore[operator]
        return Measured(
            note=f"The {origin} gives pixels of {x:g} by {y:g} um, which are not square; "
            "the pixel size is taken as unknown."
        )
    try:
        return Measured(PixelSize(float(mean), origin))
    except SlideError:
        return Measured(
            note=f"The {origin} gives {mean:g} um/px, which no slide has "
            f"({SMALLEST_MPP:g} to {LARGEST_MPP:g}); the pixel size is taken as unknown."
        )


def from_objective(power: float | None) -> Measured:
    """What scanners make of an objective: 40x gives 0.25 um/px, 20x gives 0.5.

    Cameras differ, so that 20x may be 0.45 or 0.55 um/px: an estimate, and the note says so.
    """
    if power is None or not (OBJECTIVES[0] <= power <= OBJECTIVES[1]):
        return Measured()
    mpp = UM_AT_ONE / power
    return Measured(
        PixelSize(mpp, OBJECTIVE_POWER),
        f"The file gives no usable pixel size; about {mpp:.3g} um/px is what a {power:g}x "
        "objective usually has.",
    )


def first_known(*answers: Measured) -> Measured:
    """The first answer with a size, best first; else the first remark."""
    for answer in answers:
        if answer.size is not None:
            return answer
    return next((answer for answer in answers if answer.note), Measured())
