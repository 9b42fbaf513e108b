"""Pixel sizes that a measured section and its slide state, checked against each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SpotsError
from ..slide.pixel_size import (
    ENTERED_ORIGINS,
    MANUAL_ORIGIN,
    PixelSize,
    SizeClaim,
    resolve_pixel_size,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from ..slide import Slide

_ARRAY_ORIGIN = "spot array"


@dataclass(frozen=True)
class EnteredMpp:
    """um per px as entered by hand for several sections.

    Attributes
    ----------
    default
        Of every section that is not named; None to go by the files.
    by_section
        Of sections by name.
    """

    default: float | None = None
    by_section: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, words: Sequence[str] | None) -> EnteredMpp:
        """Parse ``0.5`` and ``NAME=0.5``.

        Raises
        ------
        SpotsError
            A word is neither, or one is given twice.
        SlideError
            A number cannot be a pixel size.
        """
        sizes: dict[str, float] = {}
        for word in words or ():
            name, _, number = str(word).rpartition("=")
            try:
                mpp = float(number)
            except ValueError:
                raise SpotsError(f"--mpp takes 0.5 or NAME=0.5, not {word}.") from None
            if name in sizes:
                raise SpotsError(f"--mpp is given twice for {name or 'all sections'}; give one.")
            sizes[name] = PixelSize(mpp, MANUAL_ORIGIN).mpp
        return cls(sizes.pop("", None), sizes)

    def check_names(self, names: Collection[str]) -> None:
        """Raise SpotsError if a pixel size is of none of these sections."""
        for name in self.by_section:
            if name not in names:
                raise SpotsError(f"--mpp names {name}; the sections are {', '.join(names)}.")

    def enter(self, data: AnnData) -> AnnData:
        """Set the pixel size of a section that was read, if there is one for it."""
        mpp = self.by_section.get(str(data.uns["section"]), self.default)
        return enter_pixel_size(data, mpp)


def section_size_claims(uns: Mapping[str, Any]) -> list[SizeClaim]:
    """Return the um per px that a section states, and that of its spot array where it differs.

    Parameters
    ----------
    uns
        Of a section, see `expression.readers.section_anndata.build_section`.
    """
    stated = SizeClaim(_to_float(uns.get("mpp")), str(uns.get("mpp_origin") or _ARRAY_ORIGIN))
    fitted = SizeClaim(_to_float(uns.get("mpp_array")), _ARRAY_ORIGIN)
    return [claim for claim in (stated, fitted) if np.isfinite(claim.mpp) and claim.mpp > 0]


def resolve_section_pixel_size(
    slide: Slide, uns: Mapping[str, Any], entered_mpp: float | None = None, **options: str
) -> PixelSize | None:
    """Resolve the pixel size of a slide on which a section was measured.

    Parameters
    ----------
    slide, uns
        The slide, and ``uns`` of the section.
    entered_mpp
        um per px as entered by hand, which decides.
    options
        See `slide.pixel_size.resolve_pixel_size`.

    Returns
    -------
    PixelSize or None
        None if nothing states one.

    Raises
    ------
    SlideError
        Two of them are more than 10 % apart.
    """
    claims = section_size_claims(uns)
    return resolve_pixel_size(slide.label, slide.pixel_size, claims, entered_mpp, **options)


def enter_pixel_size(data: AnnData, mpp: float | None) -> AnnData:
    """Set the pixel size of a section as entered by hand; None leaves it as it is."""
    if mpp is not None:
        data.uns["mpp"], data.uns["mpp_origin"] = float(mpp), MANUAL_ORIGIN
    return data


def is_entered(uns: Mapping[str, Any]) -> bool:
    """Whether a person decided on the pixel size of a section."""
    return str(uns.get("mpp_origin")) in ENTERED_ORIGINS


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
