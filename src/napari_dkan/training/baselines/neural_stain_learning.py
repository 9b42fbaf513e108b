"""Neural stain learning: a learned stain matrix per gene and the stain amounts around a spot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...model.ridge_regression import Float64Array
from ...model.stain_normalization import RUIFROK_STAIN_VECTORS
from ..data.prepared_section import EncodedSection
from .linear_baselines import PredictFunction

_POOLED_PX = 8  # side of a patch after area averaging: the method uses colour alone
_EPS = 1.0 / 255


@dataclass(frozen=True)
class NeuralStainLearning:
    """Colour alone, with 11 learned parameters a gene (Dawood et al. 2021, arXiv 2108.10446).

    A gene's stain matrix (3x3) unmixes the optical density of every pixel of the target patch;
    negative amounts are set to zero, the first two stains are averaged over the patch, and two
    weights turn them into an expression value: 9 + 2. The paper counts 11 trainable weights and
    publishes no code; the nine of the matrix and one for each of H and E are our interpretation.
    Offsets are not counted: they come from the training means. Fitted by Adam on standardized
    labels, all genes in parallel and independently, from the matrix of H and E.
    """

    epochs: int = 60
    batch_size: int = 64
    lr: float = 0.02
    seed: int = 2021

    def fit(self, sections: Sequence[EncodedSection]) -> PredictFunction:
        density = torch.cat([compute_optical_density(s.section.patches) for s in sections])
        labels = torch.cat([s.section.labels for s in sections])
        mean, std = labels.mean(dim=0), labels.std(dim=0, unbiased=False).clamp_min(1e-6)
        standardized = (labels - mean) / std
        generator = torch.Generator().manual_seed(self.seed)
        n_genes = labels.shape[1]
        stains = torch.tensor(RUIFROK_STAIN_VECTORS).expand(n_genes, 3, 3).clone()
        stains.requires_grad_()
        weights = torch.zeros(n_genes, 2, requires_grad=True)
        optimizer = torch.optim.Adam([stains, weights], lr=self.lr)
        for _ in range(self.epochs):
            order = torch.randperm(len(density), generator=generator)
            for rows in torch.split(order, self.batch_size):
                amounts = compute_stain_amounts(density[rows], stains)
                # centred within the batch: an offset is not a parameter
                out = ((amounts - amounts.mean(dim=0)) * weights).sum(dim=-1)
                loss = F.mse_loss(out, standardized[rows] - standardized[rows].mean(dim=0))
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
        with torch.no_grad():
            centre = _compute_stain_amounts_in_chunks(density, stains.detach()).mean(dim=0)

        def predict(section: EncodedSection) -> Float64Array:
            with torch.no_grad():
                test_density = compute_optical_density(section.section.patches)
                amounts = _compute_stain_amounts_in_chunks(test_density, stains) - centre
                predicted: Tensor = (amounts * weights).sum(dim=-1) * std + mean
                return predicted.double().numpy()

        return predict


def compute_optical_density(patches: Tensor) -> Tensor:
    """Compute the optical density of a patch's areas: uint8 RGB (N, 3, P, P) -> (N, 64, 3)."""
    density = -torch.log10(patches.float().div(255).clamp_min(_EPS))
    return F.adaptive_avg_pool2d(density, _POOLED_PX).flatten(2).transpose(1, 2)


def compute_stain_amounts(density: Tensor, stains: Tensor) -> Tensor:
    """Compute the mean amounts of H and E.

    Parameters
    ----------
    density
        (N, K, 3) optical densities.
    stains
        (G, 3, 3) stain vectors of each gene.

    Returns
    -------
    (N, G, 2) amounts.
    """
    vectors = F.normalize(stains, dim=-1)
    # the ridge term keeps a matrix invertible while it passes through a singular one
    inverse = torch.linalg.solve(
        vectors.transpose(1, 2) @ vectors + 1e-3 * torch.eye(3), vectors.transpose(1, 2)
    )
    unmixed = torch.einsum("nkc,gcs->ngks", density, inverse[:, :, :2])
    return F.relu(unmixed).mean(dim=2)


def _compute_stain_amounts_in_chunks(density: Tensor, stains: Tensor) -> Tensor:
    return torch.cat([compute_stain_amounts(part, stains) for part in torch.split(density, 64)])
