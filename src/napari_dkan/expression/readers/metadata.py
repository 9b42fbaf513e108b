"""Read metadata of a section: nested values, JSON and Space Ranger's scale factors."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import SpotsError
from ...size_limits import validate_gzip_size

MPP_KEYS = ("mpp", "microns_per_pixel", "pixel_size_um_estimated", "pixel_size_um")
SCALE_FACTORS_NAME = "scalefactors_json.json"
POSITIONS_NAME = "tissue_positions"  # how names of Space Ranger's files with positions begin
_ENTERED_ORIGINS = ("entered by hand", "entered before", "ruler")  # as in `slide.pixel_size`
_MAX_DEPTH = 4  # of nested mappings that are searched


def find_value(metadata: Mapping[str, Any], keys: tuple[str, ...], convert: Any = None) -> Any:
    """Return the value of the first key with a valid value, outermost mapping first, else None.

    Parameters
    ----------
    metadata
        Mappings, possibly nested.
    keys
        Best first.
    convert
        Converts a value, to something false if it is invalid; default `to_positive_float`.
    """
    convert = convert or to_positive_float
    level: list[Mapping[str, Any]] = [metadata]
    for _ in range(_MAX_DEPTH):
        for mapping in level:
            for key in keys:
                value = mapping.get(key)
                if isinstance(value, np.ndarray) and value.size == 1:
                    value = value.item()
                if isinstance(value, (str, int, float, np.generic)) and convert(value):
                    return convert(value)
        level = [v for mapping in level for v in mapping.values() if isinstance(v, Mapping)]
    return None


def entered_origin(metadata: Mapping[str, Any]) -> str:
    """Return the origin of the pixel size if a person entered it, else ""."""
    origin = metadata.get("mpp_origin")
    return origin if isinstance(origin, str) and origin in _ENTERED_ORIGINS else ""


def to_positive_float(value: Any) -> float | None:
    """Convert to a finite number above zero; None for null, NaN and text of files."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises SpotsError if the file is not one."""
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            if problem := validate_gzip_size(path):
                raise SpotsError(f"{path} is not read: {problem}; copy it again.")
            data = gzip.decompress(data)
        content = json.loads(data.decode("utf-8"))
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise SpotsError(f"{path} is not a readable JSON file; copy it again.") from error
    if not isinstance(content, dict):
        raise SpotsError(f"{path} holds no JSON object; copy it again.")
    return content


@dataclass(frozen=True)
class ScaleFactors:
    """Scale factors of Space Ranger; None where the file has none, as before Visium HD.

    Attributes
    ----------
    mpp
        um per px of the full-resolution image.
    bin_um
        Side of the square bins, which is also their pitch.
    """

    mpp: float | None = None
    bin_um: float | None = None


def read_scale_factors(spatial: Path, prefix: str = "") -> ScaleFactors:
    """Read the scale factors of a ``spatial`` folder, which may not have any.

    Parameters
    ----------
    prefix
        Of the names of the files, as archives of several samples have it: ``GSM123_A1_``.

    Raises
    ------
    SpotsError
        The file is damaged.
    """
    names = [f"{p}{SCALE_FACTORS_NAME}{end}" for p in (prefix, "") for end in ("", ".gz")]
    path = next((p for name in names if (p := spatial / name).is_file()), None)
    if path is None:
        return ScaleFactors()
    content = read_json_object(path)
    return ScaleFactors(
        to_positive_float(content.get("microns_per_pixel")),
        to_positive_float(content.get("bin_size_um")),
    )


def read_scale_factors_beside(positions: Path) -> ScaleFactors:
    """Read the scale factors in the folder of a file with positions, with the same prefix.

    Raises SpotsError if the file is damaged.
    """
    prefix, found, _ = positions.name.partition(POSITIONS_NAME)
    return read_scale_factors(positions.parent, prefix if found else "")
