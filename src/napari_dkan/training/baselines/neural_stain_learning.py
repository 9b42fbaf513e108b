"""Neural stain learning: a learned stain matrix per gene and the stain amounts around a spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..data.prepared_section import EncodedSection

# Haematoxylin and eosin in optical density (Ruifrok and Johnston 2001), and what is left over.
_STAIN_VECTORS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
_POOLED_PX = 8  # pixels of a patch after area averaging: colour is all that is looked at
_EPS = 1.0 / 255


@dataclass(frozen=True)
class NeuralStainLearning:
    """Colour alone, with 11 learned parameters a gene (Dawood et al. 2021, arXiv 2108.10446).

    A gene's stain matrix (3x3) unmixes the optical density of every pixel of the target patch;
    what is below zero is cut off, the first two stains are averaged over the patch, and two
    weights make them an expression value: 9 + 2. The paper counts 11 trainable weights and
    publishes no code; that these are the nine of the matrix and one for each of H and E is our
    reading of it. Offsets are not counted: they come from the training means. Fitted by Adam on
    standardised labels, all genes side by side and each by itself, from the matrix of H and E.
    """

    epochs: int = 60
    batch_size: int = 64
    lr: float = 0.02
    seed: int = 2021

    def fit(
        self, sections: Sequence[EncodedSection]
    ) -> Callable[[EncodedSection], NDArray[np.float64]]:
        density = torch.cat([compute_optical_density(s.section.patches) for s in sections])
        labels = torch.cat([s.section.labels for s in sections])
        mean, std = labels.mean(dim=0), labels.std(dim=0, unbiased=False).clamp_min(1e-6)
        wanted = (labels - mean) / std
        generator = torch.Generator().manual_seed(self.seed)
        stains = torch.tensor(_STAIN_VECTORS).expand(labels.shape[1], 3, 3).clone().requires_grad_()
        weights = torch.zeros(labels.shape[1], 2, requires_grad=True)
        optimiser = torch.optim.Adam([stains, weights], lr=self.lr)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(density), generator=generator).split(self.batch_size):
                amounts = compute_stain_amounts(density[rows], stains)
                # centred within the batch: an offset is not a parameter
                out = ((amounts - amounts.mean(dim=0)) * weights).sum(dim=-1)
                loss = F.mse_loss(out, wanted[rows] - wanted[rows].mean(dim=0))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        with torch.no_grad():
            centre = _compute_stain_amounts_in_chunks(density, stains.detach()).mean(dim=0)

        def predict(section: EncodedSection) -> NDArray[np.float64]:
            with torch.no_grad():
                amounts = (
                    _compute_stain_amounts_in_chunks(
                        compute_optical_density(section.section.patches), stains
                    )
                    - centre
                )
                return ((amounts * weights).sum(dim=-1) * std + mean).double().numpy()

        return predict


def compute_optical_density(patches: Tensor) -> Tensor:
    """uint8 RGB (N, 3, P, P) -> (N, 64, 3) optical density of the patch's areas."""
    density = -torch.log10(patches.float().div(255).clamp_min(_EPS))
    return F.adaptive_avg_pool2d(density, _POOLED_PX).flatten(2).transpose(1, 2)


def compute_stain_amounts(density: Tensor, stains: Tensor) -> Tensor:
    """(N, K, 3) densities and G matrices (G, 3, 3) of stain vectors -> mean H and E (N, G, 2)."""
    vectors = F.normalize(stains, dim=-1)
    # a matrix on its way through a singular one has no inverse; a little ridge gives it one
    inverse = torch.linalg.solve(
        vectors.transpose(1, 2) @ vectors + 1e-3 * torch.eye(3), vectors.transpose(1, 2)
    )
    unmixed = torch.einsum("nkc,gcs->ngks", density, inverse[:, :, :2])
    return F.relu(unmixed).mean(dim=2)


def _compute_stain_amounts_in_chunks(density: Tensor, stains: Tensor) -> Tensor:
    return torch.cat([compute_stain_amounts(part, stains) for part in density.split(64)])
