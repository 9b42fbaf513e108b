"""Baselines fitted on the same split and in the same run as a network.

Mean of the training labels, ridge regressions, PCA with ridge regression, and NSL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.ridge_regression import Float64Array, RidgeRegression, compute_multi_scale_features
from ..model.stain_normalization import RUIFROK_STAIN_VECTORS
from .data.prepared_section import EncodedSection
from .metrics import FloatingArray, mean_gene_pcc

RIDGE_PENALTIES = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0)
_MIN_STD = 1e-4  # a statistic that varies less is not standardized

# Predicts a section: (N, G) on the label scale.
PredictFunction = Callable[[EncodedSection], Float64Array]


def fit_ridge(x: Float64Array, y: FloatingArray, penalty: float) -> RidgeRegression:
    """Solve ridge regression in closed form; the offset is not penalized.

    The inputs are centred and divided by one number, the root of their mean variance.
    Standardizing each of them would amplify the encoder's weakest axes: it costs this baseline
    0.03 PCC-ALL on her2st C2 to C5, which would favour the network in the comparison.

    Parameters
    ----------
    x
        (N, F) inputs.
    y
        (N, G) labels.
    """
    mean = x.mean(axis=0)
    scale = float(np.sqrt(x.var(axis=0).mean())) or 1.0
    z = (x - mean) / scale
    offset = np.asarray(y, dtype=np.float64).mean(axis=0)
    weights = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - offset))
    return RidgeRegression(mean, scale, weights, offset, penalty)


def fit_ridge_cv(xs: Sequence[Float64Array], ys: Sequence[FloatingArray]) -> RidgeRegression:
    """Fit ridge regression to sections, with a penalty cross-validated among these sections.

    The spots of a single section are split in two halves instead.
    """
    if len(xs) == 1:
        half = len(xs[0]) // 2
        parts = [(xs[0][:half], ys[0][:half]), (xs[0][half:], ys[0][half:])]
    else:
        parts = list(zip(xs, ys, strict=True))
    quality = np.zeros(len(RIDGE_PENALTIES))
    for held_out, (test_x, test_y) in enumerate(parts):
        training = [p for i, p in enumerate(parts) if i != held_out]
        x, y = (np.concatenate(side) for side in zip(*training, strict=True))
        for i, penalty in enumerate(RIDGE_PENALTIES):
            pcc = mean_gene_pcc(fit_ridge(x, y, penalty).predict(test_x), test_y)
            quality[i] += np.nan_to_num(pcc)
    best = RIDGE_PENALTIES[int(np.argmax(quality))]
    return fit_ridge(np.concatenate(list(xs)), np.concatenate(list(ys)), best)


@dataclass(frozen=True)
class TrainingMean:
    """Mean of the training labels, the same for every spot."""

    def fit(self, sections: Sequence[EncodedSection]) -> PredictFunction:
        mean = np.concatenate(_labels(sections)).mean(axis=0)
        return lambda section: np.tile(mean, (len(section.section), 1))


@dataclass(frozen=True)
class FeatureRidge:
    """Ridge regression on the network's tile features at three scales."""

    def fit(self, sections: Sequence[EncodedSection]) -> PredictFunction:
        ridge = fit_ridge_cv([multi_scale_tile_features(s) for s in sections], _labels(sections))
        return lambda section: ridge.predict(multi_scale_tile_features(section))


def multi_scale_tile_features(section: EncodedSection) -> Float64Array:
    """(N, 3 d) means of tile features at three scales around each spot."""
    return compute_multi_scale_features(
        section.neighbor_features.numpy(), section.section.mask.numpy()
    )


@dataclass(frozen=True)
class StainRidge:
    """Ridge regression on 3 x 104 stain statistics, each standardized over the training spots."""

    def fit(self, sections: Sequence[EncodedSection]) -> PredictFunction:
        statistics = [_multi_scale_statistics(s) for s in sections]
        together = np.concatenate(statistics)
        mean, std = together.mean(axis=0), together.std(axis=0)
        std = np.where(std < _MIN_STD, 1.0, std)
        ridge = fit_ridge_cv([(x - mean) / std for x in statistics], _labels(sections))
        return lambda section: ridge.predict((_multi_scale_statistics(section) - mean) / std)


def _multi_scale_statistics(section: EncodedSection) -> Float64Array:
    return compute_multi_scale_features(
        section.section.statistics.numpy(), section.section.mask.numpy()
    )


@dataclass(frozen=True)
class PcaRidge:
    """Features standardized, reduced to 256 principal components, ridge of a fixed penalty.

    As published with HEST-1k (Jaume et al., NeurIPS 2024, repository mahmoodlab/HEST,
    ``hest/bench``): StandardScaler, PCA(256), ridge with alpha = 100 / (components x genes) on the
    uncentred labels without an offset. The components are centred, so an offset changes no
    weight; it is added here, because without it every prediction would be around zero and its
    errors would have no meaning. Fewer features or spots give fewer components.
    """

    components: int = 256

    def fit(self, sections: Sequence[EncodedSection]) -> PredictFunction:
        x = np.concatenate([_target_features(s) for s in sections])
        y = np.concatenate(_labels(sections)).astype(np.float64)
        mean, std = x.mean(axis=0), x.std(axis=0)
        std = np.where(std == 0, 1.0, std)
        left, spread, axes = np.linalg.svd((x - mean) / std, full_matrices=False)
        rank = int((spread > 1e-10 * spread[0]).sum()) if len(spread) else 0
        count = min(self.components, rank)
        left, spread, axes = left[:, :count], spread[:count], axes[:count]
        alpha = 100.0 / (max(count, 1) * y.shape[1])
        offset = y.mean(axis=0)
        # on principal components the ridge solution is diagonal
        weights = (spread / (spread**2 + alpha))[:, None] * (left.T @ (y - offset))
        return lambda section: (_target_features(section) - mean) / std @ axes.T @ weights + offset


def _target_features(section: EncodedSection) -> Float64Array:
    return section.target_features.numpy().astype(np.float64)


def _labels(sections: Sequence[EncodedSection]) -> list[FloatingArray]:
    return [s.section.labels.numpy() for s in sections]


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


class Baseline(Protocol):
    """Method that is fitted on training sections alone."""

    def fit(self, sections: Sequence[EncodedSection]) -> PredictFunction:
        """Fit it and return a function that predicts another section."""
        ...


BASELINES: dict[str, Baseline] = {
    "training_mean": TrainingMean(),
    "ridge": FeatureRidge(),
    "ridge_stain": StainRidge(),
    "nsl": NeuralStainLearning(),
    "pca_ridge": PcaRidge(),
}
