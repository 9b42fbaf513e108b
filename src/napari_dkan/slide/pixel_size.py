"""Pixel size of a slide and its origin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import SlideError

MIN_MPP = 0.05
MAX_MPP = 20.0

# Usual um per px of a scan, times the magnification of the objective.
UM_PER_PX_AT_1X = 10.0
OBJECTIVE_POWER_RANGE = (1.0, 150.0)
OBJECTIVE_POWER_ORIGIN = "objective power"

# Origins of sizes that a person has decided on: they are right whatever the files say.
MANUAL_ORIGIN, HISTORY_ORIGIN, RULER_ORIGIN = "entered by hand", "entered before", "ruler"
ENTERED_ORIGINS = MANUAL_ORIGIN, HISTORY_ORIGIN, RULER_ORIGIN

# Pixel sizes of one image that differ by more than this factor contradict each other.
MAX_DISAGREEMENT = 1.1

# Largest relative difference of the two sides of a pixel that one number describes.
MAX_ANISOTROPY = 0.01

UM_PER_UNIT = {
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
    """Side of a level-0 pixel, and where the value comes from.

    Attributes
    ----------
    mpp
        um per px, within 0.05 to 20.
    origin
        For example "OME metadata", "Aperio metadata", "TIFF resolution", "entered by hand".

    Raises
    ------
    SlideError
        The value is out of range. No scanner has such pixels, so it is a mistake, usually of
        units.
    """

    mpp: float
    origin: str

    @property
    def is_estimated(self) -> bool:
        """Whether the value is only what such scans usually have; any other origin is better."""
        return self.origin == OBJECTIVE_POWER_ORIGIN

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mpp) and MIN_MPP <= self.mpp <= MAX_MPP):
            raise SlideError(
                f"A pixel size of {self.mpp:g} um/px cannot be right for a slide; "
                f"give one between {MIN_MPP:g} and {MAX_MPP:g} um/px."
            )


@dataclass(frozen=True)
class PixelSizeMetadata:
    """What a file states about its pixel size.

    Attributes
    ----------
    pixel_size
        The value, None if there is no usable one.
    note
        A sentence on why there is none or why it is only an estimate, or "".
    """

    pixel_size: PixelSize | None = None
    note: str = ""


def convert_unit_to_um(unit: str | None) -> float | None:
    """Return the micrometres of a unit, None for units that are not a length (pixel)."""
    plain = (unit or "").strip().lower().replace("\u00b5", "u").replace("\u03bc", "u")
    plain = plain.replace("metre", "meter")
    return UM_PER_UNIT.get(plain) or UM_PER_UNIT.get(plain.removesuffix("s"))


def pixel_size_from_sides(x: float | None, y: float | None, origin: str) -> PixelSizeMetadata:
    """Compute the pixel size from its two sides in um; sides within 1 % are averaged.

    Missing sides give an empty result; implausible or unequal ones only a note.
    """
    if x is None and y is None:
        return PixelSizeMetadata()
    x, y = (x if x is not None else y), (y if y is not None else x)
    if not all(side is not None and math.isfinite(side) and side > 0 for side in (x, y)):
        return PixelSizeMetadata(note=f"The {origin} has no usable pixel size.")
    mean = (x + y) / 2  # type: ignore[operator]
    if abs(x - y) > MAX_ANISOTROPY * mean:  # type: ignore[operator]
        return PixelSizeMetadata(
            note=f"The {origin} gives pixels of {x:g} by {y:g} um, which are not square; "
            "the pixel size is taken as unknown."
        )
    try:
        return PixelSizeMetadata(PixelSize(float(mean), origin))
    except SlideError:
        return PixelSizeMetadata(
            note=f"The {origin} gives {mean:g} um/px, which no slide has "
            f"({MIN_MPP:g} to {MAX_MPP:g}); the pixel size is taken as unknown."
        )


def pixel_size_from_objective(power: float | None) -> PixelSizeMetadata:
    """Estimate the pixel size from the objective: 40x gives 0.25 um/px, 20x gives 0.5.

    Cameras differ, and 20x may be 0.45 or 0.55 um/px; the note states that it is an estimate.
    """
    if power is None or not (OBJECTIVE_POWER_RANGE[0] <= power <= OBJECTIVE_POWER_RANGE[1]):
        return PixelSizeMetadata()
    mpp = UM_PER_PX_AT_1X / power
    return PixelSizeMetadata(
        PixelSize(mpp, OBJECTIVE_POWER_ORIGIN),
        f"The file gives no usable pixel size; about {mpp:.3g} um/px is what a {power:g}x "
        "objective usually has.",
    )


class SizeClaim(NamedTuple):
    """um per px of a slide by one origin, for example the spot array; not checked."""

    mpp: float
    origin: str


def resolve_pixel_size(
    name: str,
    stated: PixelSize | None,
    claims: Sequence[SizeClaim] = (),
    entered_mpp: float | None = None,
    advice: str = "give the right one with --mpp",
) -> PixelSize | None:
    """Choose the pixel size of a slide from several origins: the one rule for all of them.

    Parameters
    ----------
    name
        Of the slide or section, for errors.
    stated
        What the slide states. It comes first, but last if it is only an estimate.
    claims
        What the section says: its metadata, its spot array.
    entered_mpp
        um per px as entered by hand, which decides. So does a size that was entered before.
    advice
        How to enter the right size, for errors.

    Returns
    -------
    PixelSize or None
        None if no origin has a value.

    Raises
    ------
    SlideError
        Two of them are more than 10 % apart, or the chosen one is no pixel size of a slide.
    """
    if entered_mpp is not None:
        return PixelSize(entered_mpp, MANUAL_ORIGIN)
    known = [] if stated is None else [SizeClaim(stated.mpp, stated.origin)]
    for claim in (*known, *claims):
        if claim.origin in ENTERED_ORIGINS:
            return PixelSize(claim.mpp, claim.origin)
    if stated is not None and stated.is_estimated:
        known = []
    candidates = [*known, *claims]
    check_claims_agree(name, candidates, advice)
    return PixelSize(*candidates[0]) if candidates else stated


def check_claims_agree(name: str, claims: Sequence[SizeClaim], advice: str) -> None:
    """Raise SlideError, naming both and their origins, where two sizes contradict each other."""
    if not claims:
        return
    low, high = min(claims), max(claims)
    if high.mpp > MAX_DISAGREEMENT * low.mpp:
        first, second = sorted((low, high), key=claims.index)
        raise SlideError(
            f"The pixel sizes of {name} disagree: {first.mpp:.4g} um/px ({first.origin}) and "
            f"{second.mpp:.4g} um/px ({second.origin}); {advice}."
        )


def choose_pixel_size(*candidates: PixelSizeMetadata) -> PixelSizeMetadata:
    """Return the first candidate with a pixel size, else the first with a note."""
    for candidate in candidates:
        if candidate.pixel_size is not None:
            return candidate
    return next((candidate for candidate in candidates if candidate.note), PixelSizeMetadata())
