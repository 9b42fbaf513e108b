"""A text basis inside a checkpoint: two tensors, and an entry of the header's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import CheckpointError
from ..tensorfile import FLOAT_DTYPES
from .basis import TextBasis

MEAN_TENSOR, AXES_TENSOR = "text.mean", "text.axes"
BASIS_TENSOR_NAMES = (MEAN_TENSOR, AXES_TENSOR)
_MAX_EMBEDDING_DIM = 65_536  # numbers of one text embedding


def basis_to_json(basis: TextBasis) -> dict[str, Any]:
    """The header's entry."""
    return {"encoder": basis.encoder, "scale": basis.scale}


def basis_to_tensors(basis: TextBasis) -> dict[str, Tensor]:
    """The file's tensors."""
    return {MEAN_TENSOR: basis.mean, AXES_TENSOR: basis.axes}


def validate_basis(
    data: Any, tensors: Mapping[str, tuple[str, tuple[int, ...]]], text_dim: int
) -> tuple[str, float] | None:
    """(encoder, scale) of a header's entry whose tensors have these types and shapes.

    data : the entry, None where a checkpoint has no basis. given : (dtype, shape) by name.
    width : the network's text_dim. Raises CheckpointError before anything is allocated.
    """
    there = [n for n in BASIS_TENSOR_NAMES if n in tensors]
    if data is None and not there:
        return None
    if not isinstance(data, dict) or len(there) < len(BASIS_TENSOR_NAMES):
        raise CheckpointError("its text basis is incomplete; it may be damaged")
    encoder: Any = data.get("encoder")
    scale: Any = data.get("scale")
    known = isinstance(encoder, str) and isinstance(scale, float)
    if not known or not 1e-12 < scale < 1e12:
        raise CheckpointError("its text basis has no encoder or an impossible scale")
    mean, axes = tensors[MEAN_TENSOR], tensors[AXES_TENSOR]
    length = mean[1][0] if len(mean[1]) == 1 else 0
    if not 1 <= length <= _MAX_EMBEDDING_DIM or axes[1] != (length, text_dim):
        raise CheckpointError(
            f"its text basis has shapes {mean[1]} and {axes[1]}, which do not fit a network "
            f"that takes {text_dim} text features"
        )
    if mean[0] not in FLOAT_DTYPES or axes[0] not in FLOAT_DTYPES:
        raise CheckpointError(f"its text basis is of type {mean[0]} and {axes[0]}, not floats")
    return encoder, scale


def basis_from_tensors(
    entry: tuple[str, float] | None, tensors: Mapping[str, Tensor]
) -> TextBasis | None:
    """The basis of a checked entry and its tensors."""
    if entry is None:
        return None
    encoder, scale = entry
    return TextBasis(tensors[MEAN_TENSOR], tensors[AXES_TENSOR], scale, encoder)
