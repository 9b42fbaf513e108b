"""Metadata of a section: values under one of several keys, JSON, Space Ranger's scale factors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import SpotsError

MPP_KEYS = ("mpp", "microns_per_pixel", "pixel_size_um_estimated", "pixel_size_um")
_MAX_DEPTH = 4  # how far down facts are looked for


def find_value(metadata: Mapping[str, Any], keys: tuple[str, ...], convert: Any = None) -> Any:
    """The first of these keys that says something, the outermost mapping first; else None.

    kind : what a value must become; a finite number above zero unless given.
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


def to_positive_float(value: Any) -> float | None:
    """A finite number above zero, or None: what files state may be null, NaN or text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises SpotsError naming the file when it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SpotsError(f"{path} is not a readable JSON file; copy it again.") from error
    if not isinstance(content, dict):
        raise SpotsError(f"{path} holds no JSON object; copy it again.")
    return content


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
        to_positive_float(stated.get("microns_per_pixel")),
        to_positive_float(stated.get("bin_size_um")),
    )
