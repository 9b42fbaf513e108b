"""A reference inside a checkpoint: some tensors, and an entry of the header's JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import CheckpointError
from .reference import QUANTILES, Reference
from .ridge import SCALES, Ridge
from .tensorfile import FLOATS

PREFIX = "reference."
_LEVELS, _BY_SLIDE = PREFIX + "levels", PREFIX + "by_slide"
_MEAN, _AXES = PREFIX + "token_mean", PREFIX + "token_axes"
_RIDGE = tuple(f"{PREFIX}ridge.{part}" for part in ("mean", "weights", "offset"))
_MOST_NAMES, _MOST_SLIDES, _LONGEST = 64, 10_000, 200


@dataclass(frozen=True)
class Entry:
    """The header's part of a reference, checked."""

    spots: int
    names: tuple[str, ...]
    slides: tuple[str, ...]
    mpp: tuple[float, ...]
    tissue: str
    ridge: tuple[float, float] | None  # scale and penalty


def to_json(reference: Reference) -> dict[str, Any]:
    """The header's entry."""
    ridge = reference.ridge
    return {
        "spots": reference.spots,
        "names": list(reference.names),
        "slides": list(reference.slides),
        "mpp": list(reference.mpp),
        "tissue": reference.tissue,
        "ridge": None if ridge is None else {"scale": ridge.scale, "penalty": ridge.penalty},
    }


def to_tensors(reference: Reference) -> dict[str, Tensor]:
    """The file's tensors."""
    made: dict[str, NDArray[np.floating]] = {
        _LEVELS: reference.levels,
        _BY_SLIDE: reference.by_slide,
        _MEAN: reference.token_mean,
        _AXES: reference.token_axes,
    }
    if reference.ridge is not None:
        ridge = reference.ridge
        made |= dict(zip(_RIDGE, (ridge.mean, ridge.weights, ridge.offset), strict=True))
    return {name: torch.from_numpy(np.asarray(a, np.float32)) for name, a in made.items()}


def check(
    data: Any, given: Mapping[str, tuple[str, tuple[int, ...]]], width: int, dim: int, genes: int
) -> Entry | None:
    """A header's entry whose tensors have these types and shapes; None where there is none.

    given : (dtype, shape) by name. width : of a fused token. dim : of a tile's features.

    Raises CheckpointError before anything is allocated.
    """
    there = {n: t for n, t in given.items() if n.startswith(PREFIX)}
    if data is None and not there:
        return None
    entry = _entry(data)
    # the number of axes is free, up to the width of what they span
    axes = there.get(_AXES, ("", ()))[1]
    count = axes[1] if len(axes) == 2 and 1 <= axes[1] <= width else 0
    wanted: dict[str, tuple[int, ...]] = {
        _LEVELS: (len(entry.names), len(QUANTILES)),
        _BY_SLIDE: (len(entry.slides), len(entry.names)),
        _MEAN: (width,),
        _AXES: (width, count),
    }
    if entry.ridge is not None:
        inputs = SCALES * dim
        wanted |= dict(zip(_RIDGE, ((inputs,), (inputs, genes), (genes,)), strict=True))
    if there.keys() != wanted.keys():
        raise CheckpointError("its reference is incomplete; it may be damaged")
    for name, shape in wanted.items():
        if there[name][1] != shape or 0 in shape:
            raise CheckpointError(
                f"its tensor {name} has shape {there[name][1]}, which does not fit the network"
            )
        if there[name][0] not in FLOATS:
            raise CheckpointError(f"its tensor {name} is of type {there[name][0]}, not a float")
    return entry


def take(entry: Entry | None, tensors: Mapping[str, Tensor]) -> Reference | None:
    """The reference of a checked entry and its tensors.

    Raises CheckpointError when its levels do not rise.
    """
    if entry is None:
        return None
    levels = tensors[_LEVELS].numpy()
    if (np.diff(levels, axis=1) < 0).any():
        raise CheckpointError("its reference has levels that fall; it may be damaged")
    ridge = None
    if entry.ridge is not None:
        mean, weights, offset = (tensors[name].numpy().astype(np.float64) for name in _RIDGE)
        ridge = Ridge(mean, entry.ridge[0], weights, offset, entry.ridge[1])
    return Reference(
        entry.spots,
        entry.names,
        levels,
        entry.slides,
        tensors[_BY_SLIDE].numpy(),
        entry.mpp,
        tensors[_MEAN].numpy(),
        tensors[_AXES].numpy(),
        ridge,
        entry.tissue,
    )


def _entry(data: Any) -> Entry:
    data = data if isinstance(data, dict) else {}
    spots, names, slides = data.get("spots"), data.get("names"), data.get("slides")
    mpp, tissue, ridge = data.get("mpp"), data.get("tissue"), data.get("ridge")
    fine = (
        type(spots) is int
        and 1 <= spots <= 10**9
        and _texts(names, _MOST_NAMES)
        and _texts(slides, _MOST_SLIDES)
        and len(set(names)) == len(names)
        and isinstance(mpp, list)
        and len(mpp) == len(slides)
        and all(_positive(m, 1000) for m in mpp)
        and isinstance(tissue, str)
        and len(tissue) <= _LONGEST
    )
    if not fine:
        raise CheckpointError("its reference is described in no way that can be read")
    return Entry(
        spots, tuple(names), tuple(slides), tuple(map(float, mpp)), tissue, _of_ridge(ridge)
    )


def _of_ridge(data: Any) -> tuple[float, float] | None:
    if data is None:
        return None
    given = data if isinstance(data, dict) else {}
    scale: Any = given.get("scale")
    penalty: Any = given.get("penalty")
    if not _positive(scale, 1e12) or not _positive(penalty, 1e12):
        raise CheckpointError("its ridge regression has an impossible scale or penalty")
    return float(scale), float(penalty)


def _texts(given: Any, most: int) -> bool:
    return (
        isinstance(given, list)
        and 1 <= len(given) <= most
        and all(isinstance(text, str) and len(text) <= _LONGEST for text in given)
    )


def _positive(given: Any, high: float) -> bool:
    number = isinstance(given, (int, float)) and not isinstance(given, bool)
    return number and math.isfinite(given) and 1e-12 < given <= high
