"""From a text encoder's numbers to a network's gene text features, and back for new genes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import CheckpointError


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
