"""Store a training reference in a checkpoint: tensors and one entry of the header's JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import CheckpointError
from ..ridge_regression import NUM_SCALES, RidgeRegression
from ..safetensors_header import FLOAT_DTYPES
from .checkpoint_header import REFERENCE_PREFIX
from .training_reference import QUANTILE_LEVELS, TrainingReference

_LEVELS, _BY_SLIDE = REFERENCE_PREFIX + "levels", REFERENCE_PREFIX + "by_slide"
_MEAN, _AXES = REFERENCE_PREFIX + "token_mean", REFERENCE_PREFIX + "token_axes"
_RIDGE = tuple(f"{REFERENCE_PREFIX}ridge.{part}" for part in ("mean", "weights", "offset"))
_MAX_NAMES, _MAX_SLIDES, _MAX_NAME_LENGTH = 64, 10_000, 200


@dataclass(frozen=True)
class ReferenceEntry:
    """The validated entry of a reference in a checkpoint's header."""

    n_spots: int
    feature_names: tuple[str, ...]
    slide_names: tuple[str, ...]
    slide_mpp: tuple[float, ...]
    tissue: str
    ridge: tuple[float, float] | None  # scale and penalty


def reference_to_json(reference: TrainingReference) -> dict[str, Any]:
    """Return the entry of a checkpoint's header."""
    ridge = reference.ridge
    return {
        "spots": reference.n_spots,
        "names": list(reference.feature_names),
        "slides": list(reference.slide_names),
        "mpp": list(reference.slide_mpp),
        "tissue": reference.tissue,
        "ridge": None if ridge is None else {"scale": ridge.scale, "penalty": ridge.penalty},
    }


def reference_to_tensors(reference: TrainingReference) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint file."""
    arrays: dict[str, NDArray[np.floating]] = {
        _LEVELS: reference.feature_quantiles,
        _BY_SLIDE: reference.slide_means,
        _MEAN: reference.token_mean,
        _AXES: reference.token_axes,
    }
    if reference.ridge is not None:
        ridge = reference.ridge
        arrays |= dict(zip(_RIDGE, (ridge.mean, ridge.weights, ridge.offset), strict=True))
    return {name: torch.from_numpy(np.asarray(a, np.float32)) for name, a in arrays.items()}


def validate_reference(
    data: Any,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    token_dim: int,
    dim: int,
    genes: int,
) -> ReferenceEntry | None:
    """Validate a header's entry and its tensors before anything is allocated.

    Parameters
    ----------
    data
        The entry, None if the checkpoint has no reference.
    tensors
        (dtype, shape) by name.
    token_dim
        Width of a fused token.
    dim
        Number of features of a tile.
    genes
        Size of the panel.

    Returns
    -------
    ReferenceEntry or None
        None if there is no reference.

    Raises
    ------
    CheckpointError
        If the reference is incomplete, damaged or does not fit.
    """
    present = {n: t for n, t in tensors.items() if n.startswith(REFERENCE_PREFIX)}
    if data is None and not present:
        return None
    entry = _parse_reference_entry(data)
    # Any number of axes up to the width of a token is valid.
    axes = present.get(_AXES, ("", ()))[1]
    count = axes[1] if len(axes) == 2 and 1 <= axes[1] <= token_dim else 0
    expected: dict[str, tuple[int, ...]] = {
        _LEVELS: (len(entry.feature_names), len(QUANTILE_LEVELS)),
        _BY_SLIDE: (len(entry.slide_names), len(entry.feature_names)),
        _MEAN: (token_dim,),
        _AXES: (token_dim, count),
    }
    if entry.ridge is not None:
        inputs = NUM_SCALES * dim
        expected |= dict(zip(_RIDGE, ((inputs,), (inputs, genes), (genes,)), strict=True))
    if present.keys() != expected.keys():
        raise CheckpointError("its reference is incomplete; it may be damaged")
    for name, expected_shape in expected.items():
        dtype, shape = present[name]
        if shape != expected_shape or 0 in shape:
            raise CheckpointError(
                f"its tensor {name} has shape {shape}, which does not fit the network"
            )
        if dtype not in FLOAT_DTYPES:
            raise CheckpointError(f"its tensor {name} is of type {dtype}, not a float")
    return entry


def reference_from_tensors(
    entry: ReferenceEntry | None, tensors: Mapping[str, Tensor]
) -> TrainingReference | None:
    """Build the reference from a validated entry and its tensors.

    Raises CheckpointError if its quantiles do not increase.
    """
    if entry is None:
        return None
    quantiles = tensors[_LEVELS].numpy()
    if (np.diff(quantiles, axis=1) < 0).any():
        raise CheckpointError("its reference has levels that fall; it may be damaged")
    ridge = None
    if entry.ridge is not None:
        mean, weights, offset = (tensors[name].numpy().astype(np.float64) for name in _RIDGE)
        ridge = RidgeRegression(mean, entry.ridge[0], weights, offset, entry.ridge[1])
    return TrainingReference(
        entry.n_spots,
        entry.feature_names,
        quantiles,
        entry.slide_names,
        tensors[_BY_SLIDE].numpy(),
        entry.slide_mpp,
        tensors[_MEAN].numpy(),
        tensors[_AXES].numpy(),
        ridge,
        entry.tissue,
    )


def _parse_reference_entry(data: Any) -> ReferenceEntry:
    data = data if isinstance(data, dict) else {}
    spots, names, slides = data.get("spots"), data.get("names"), data.get("slides")
    mpp, tissue, ridge = data.get("mpp"), data.get("tissue"), data.get("ridge")
    valid = (
        type(spots) is int
        and 1 <= spots <= 10**9
        and _is_text_list(names, _MAX_NAMES)
        and _is_text_list(slides, _MAX_SLIDES)
        and len(set(names)) == len(names)
        and isinstance(mpp, list)
        and len(mpp) == len(slides)
        and all(_is_positive_number(m, 1000) for m in mpp)
        and isinstance(tissue, str)
        and len(tissue) <= _MAX_NAME_LENGTH
    )
    if not valid:
        raise CheckpointError("its reference is described in no way that can be read")
    return ReferenceEntry(
        spots,
        tuple(names),
        tuple(slides),
        tuple(map(float, mpp)),
        tissue,
        _parse_ridge_entry(ridge),
    )


def _parse_ridge_entry(data: Any) -> tuple[float, float] | None:
    if data is None:
        return None
    values = data if isinstance(data, dict) else {}
    scale: Any = values.get("scale")
    penalty: Any = values.get("penalty")
    if not _is_positive_number(scale, 1e12) or not _is_positive_number(penalty, 1e12):
        raise CheckpointError("its ridge regression has an impossible scale or penalty")
    return float(scale), float(penalty)


def _is_text_list(value: Any, max_length: int) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= max_length
        and all(isinstance(text, str) and len(text) <= _MAX_NAME_LENGTH for text in value)
    )


def _is_positive_number(value: Any, maximum: float) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and 1e-12 < value <= maximum
