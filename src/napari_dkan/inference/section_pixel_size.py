"""Pixel sizes that a measured section and its slide state, checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

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
_DECIDED_KEY = "mpp_is_decided"  # in ``uns`` of a section


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


def find_qupath_mpp(stated: PixelSize | None, entered_mpp: float | None) -> float | None:
    """Return the um per px in which QuPath measured micrometres, None when unknown.

    QuPath takes the pixel size that the file states, whatever is entered here; an estimate from
    the objective is none to it.
    """
    if stated is not None and not stated.is_estimated:
        return stated.mpp
    return entered_mpp


def enter_pixel_size(data: AnnData, mpp: float | None, origin: str = MANUAL_ORIGIN) -> AnnData:
    """Set the pixel size of a section that was decided on; None leaves it as it is.

    Parameters
    ----------
    origin
        By default a person entered it; else where a size comes from that was checked before.
    """
    if mpp is not None:
        data.uns["mpp"], data.uns["mpp_origin"] = float(mpp), origin
        data.uns[_DECIDED_KEY] = True
    return data


def is_decided(uns: Mapping[str, Any]) -> bool:
    """Whether the pixel size of a section is decided on, so that no other one counts."""
    return bool(uns.get(_DECIDED_KEY)) or str(uns.get("mpp_origin")) in ENTERED_ORIGINS


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
