"""Project text embeddings to a network's gene text features; store the basis in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointError
from .checkpoint.checkpoint_header import BASIS_TENSOR_NAMES
from .safetensors_header import FLOAT_DTYPES


@dataclass(frozen=True)
class TextBasis:
    """Principal axes of a panel's text embeddings, on which further genes are projected.

    Attributes
    ----------
    mean
        Mean embedding of the panel, (D,) float32.
    axes
        Orthonormal columns, (D, width) float32; columns beyond the panel's rank are zero.
    scale
        Root mean square of the panel's coordinates before they are divided by it.
    encoder
        Name of the text encoder; embeddings of others do not fit.
    """

    mean: Tensor
    axes: Tensor
    scale: float
    encoder: str

    @classmethod
    def fit(cls, features: Tensor, width: int, encoder: str) -> TextBasis:
        """Fit the principal axes of a panel's embeddings (G, D).

        Expression is not used. Embeddings of at most `width` numbers are only centred and
        scaled. The sign of an axis is fixed by the gene with the largest coordinate, so the
        basis does not depend on the order of the genes.
        """
        centred = features.double().numpy()
        mean = centred.mean(axis=0)
        centred = centred - mean
        dim = centred.shape[1]
        axes = np.eye(dim, width)  # embeddings shorter than width are padded with zeros
        if dim > width:
            left, singular_values, right = np.linalg.svd(centred, full_matrices=False)
            signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])
            # On axes that the panel does not span, a new gene's coordinate would be noise.
            spanned = singular_values > 1e-9 * singular_values[0]
            axes = (right.T * signs * spanned)[:, :width]
            axes = np.pad(axes, ((0, 0), (0, width - axes.shape[1])))  # fewer genes than width
        scale = float(np.sqrt(((centred @ axes) ** 2).mean())) or 1.0
        return cls(
            torch.from_numpy(mean.astype(np.float32)),
            torch.from_numpy(axes.astype(np.float32)),
            scale,
            encoder,
        )

    def project(self, features: Tensor) -> Tensor:
        """Project embeddings (K, D) of the same encoder -> (K, width) float32.

        Raises CheckpointError if they have another length.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise CheckpointError(
                f"Gene text of {features.shape[-1]} numbers does not fit this checkpoint, which "
                f"takes the {len(self.mean)} of {self.encoder}; encode it with that encoder."
            )
        centred = features.double() - self.mean.double()
        return (centred @ self.axes.double() / self.scale).float()


MEAN_TENSOR, AXES_TENSOR = BASIS_TENSOR_NAMES
_MAX_EMBEDDING_DIM = 65_536


def basis_to_json(basis: TextBasis) -> dict[str, Any]:
    """Return the entry of a checkpoint's header."""
    return {"encoder": basis.encoder, "scale": basis.scale}


def basis_to_tensors(basis: TextBasis) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint file."""
    return {MEAN_TENSOR: basis.mean, AXES_TENSOR: basis.axes}


def validate_basis(
    data: Any, tensors: Mapping[str, tuple[str, tuple[int, ...]]], text_dim: int
) -> tuple[str, float] | None:
    """Validate a header's entry and its tensors before anything is allocated.

    Parameters
    ----------
    data
        The entry, None if the checkpoint has no basis.
    tensors
        (dtype, shape) by name.
    text_dim
        Of the network.

    Returns
    -------
    tuple or None
        Encoder and scale; None if there is no basis.

    Raises
    ------
    CheckpointError
        If the basis is incomplete, damaged or does not fit.
    """
    present = [n for n in BASIS_TENSOR_NAMES if n in tensors]
    if data is None and not present:
        return None
    if not isinstance(data, dict) or len(present) < len(BASIS_TENSOR_NAMES):
        raise CheckpointError("its text basis is incomplete; it may be damaged")
    encoder, scale = data.get("encoder"), data.get("scale")
    if not isinstance(encoder, str) or not isinstance(scale, float) or not 1e-12 < scale < 1e12:
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
    """Build the basis from a validated entry and its tensors."""
    if entry is None:
        return None
    encoder, scale = entry
    return TextBasis(tensors[MEAN_TENSOR], tensors[AXES_TENSOR], scale, encoder)
