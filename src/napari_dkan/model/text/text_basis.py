"""Project text embeddings onto a network's gene text features, and store the basis in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import CheckpointError
from ..tensor_files import FLOAT_DTYPES


@dataclass(frozen=True)
class TextBasis:
    """Principal axes of a panel's text embeddings, so that further genes land in the same space.

    mean : (D,) float32, the panel's mean embedding.
    axes : (D, width) float32, orthonormal columns; columns past the panel's rank are zero.
    scale : root mean square of the panel's coordinates, which makes theirs 1.
    encoder : name of the text encoder; its embeddings are the only ones that fit.
    """

    mean: Tensor
    axes: Tensor
    scale: float
    encoder: str

    @classmethod
    def fit(cls, features: Tensor, width: int, encoder: str) -> TextBasis:
        """Basis of a panel's embeddings (G, D), which keeps the angles as far as width allows.

        Nothing about expression enters it. Embeddings of at most width numbers are only centred
        and scaled. Signs are fixed by the gene that lies furthest out on an axis, so the basis
        does not depend on the order of the genes.
        """
        table = features.double().numpy()
        mean = table.mean(axis=0)
        table = table - mean
        dim = table.shape[1]
        axes = np.eye(dim, width)  # embeddings shorter than width end in zeros
        if dim > width:
            left, spread, right = np.linalg.svd(table, full_matrices=False)
            signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])
            spanned = spread > 1e-9 * spread[0]  # in the others a new gene would be noise
            axes = (right.T * signs * spanned)[:, :width]
            axes = np.pad(axes, ((0, 0), (0, width - axes.shape[1])))  # fewer genes than width
        scale = float(np.sqrt(((table @ axes) ** 2).mean())) or 1.0
        return cls(
            torch.from_numpy(mean.astype(np.float32)),
            torch.from_numpy(axes.astype(np.float32)),
            scale,
            encoder,
        )

    def project(self, features: Tensor) -> Tensor:
        """(K, D) embeddings of the same encoder -> (K, width) float32.

        Raises CheckpointError when their length is another one.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise CheckpointError(
                f"Gene text of {features.shape[-1]} numbers does not fit this checkpoint, which "
                f"takes the {len(self.mean)} of {self.encoder}; encode it with that encoder."
            )
        centred = features.double() - self.mean.double()
        return (centred @ self.axes.double() / self.scale).float()


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
