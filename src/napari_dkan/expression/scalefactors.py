"""Space Ranger's scalefactors_json.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .stated import to_positive_float, read_json_object

SCALE_FACTORS_NAME = "scalefactors_json.json"


@dataclass(frozen=True)
class ScaleFactors:
    """What the file states; None where it is silent, as before Visium HD.

    mpp : um per px of the full-resolution image.
    bin_um : side of the square bins, which is also their pitch.
    """

    mpp: float | None = None
    bin_um: float | None = None


def read_scale_factors(spatial: Path) -> ScaleFactors:
    """Scale factors of a ``spatial`` folder; both unknown when it has none.

    Raises SpotsError when the file is damaged.
    """
    path = spatial / SCALE_FACTORS_NAME
    if not path.is_file():
        return ScaleFactors()
    stated = read_json_object(path)
    return ScaleFactors(
        to_positive_float(stated.get("microns_per_pixel")), to_positive_float(stated.get("bin_size_um"))
    )
