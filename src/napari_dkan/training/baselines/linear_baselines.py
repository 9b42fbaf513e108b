"""Linear baselines: mean of the training labels, ridge regression, and PCA with ridge regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...model.ridge_regression import Float64Array, RidgeRegression, compute_multi_scale_features
from ..data.prepared_section import EncodedSection
from ..metrics import gene_pcc

RIDGE_PENALTIES = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0)


def fit_ridge(x: Float64Array, y: NDArray[np.floating], penalty: float) -> RidgeRegression:
    """Closed form on inputs (N, F) and labels (N, G); the offset is not penalised.

    The inputs are centred and divided by one number, their root mean variance. Standardising each
    of them would blow up the encoder's weakest axes and cost this baseline 0.03 PCC-ALL on
    her2st C2 to C5, which would flatter the network beside it.
    """
    mean = x.mean(axis=0)
    scale = float(np.sqrt(x.var(axis=0).mean())) or 1.0
    z = (x - mean) / scale
    offset = np.asarray(y, dtype=np.float64).mean(axis=0)
    weights = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - offset))
    return RidgeRegression(mean, scale, weights, offset, penalty)


def fit_ridge_cv(xs: Sequence[Float64Array], ys: Sequence[NDArray[np.floating]]) -> RidgeRegression:
    """Ridge over sections, its penalty chosen by leaving one of *these* sections out at a time.

    With a single section its spots are split in two halves instead.
    """
    if len(xs) == 1:
        half = len(xs[0]) // 2
        parts = [(xs[0][:half], ys[0][:half]), (xs[0][half:], ys[0][half:])]
    else:
        parts = list(zip(xs, ys, strict=True))
    quality = np.zeros(len(RIDGE_PENALTIES))
    for out, (test_x, test_y) in enumerate(parts):
        rest = [p for i, p in enumerate(parts) if i != out]
        x, y = (np.concatenate(side) for side in zip(*rest, strict=True))
        for i, penalty in enumerate(RIDGE_PENALTIES):
            pcc = gene_pcc(fit_ridge(x, y, penalty).predict(test_x), test_y)
            known = pcc[~np.isnan(pcc)]
            quality[i] += known.mean() if len(known) else 0.0
    best = RIDGE_PENALTIES[int(np.argmax(quality))]
    return fit_ridge(np.concatenate(list(xs)), np.concatenate(list(ys)), best)


@dataclass(frozen=True)
class TrainingMean:
    def fit(
        self, sections: Sequence[EncodedSection]
    ) -> Callable[[EncodedSection], NDArray[np.float64]]:
        mean = np.concatenate([s.section.labels.numpy() for s in sections]).mean(axis=0)
        return lambda section: np.tile(mean, (len(section.section), 1))


@dataclass(frozen=True)
class FeatureRidge:
    """The features are those the network sees; the penalty is chosen within the training."""

    def fit(
        self, sections: Sequence[EncodedSection]
    ) -> Callable[[EncodedSection], NDArray[np.float64]]:
        ridge = fit_ridge_cv(
            [_multi_scale_features(s) for s in sections],
            [s.section.labels.numpy() for s in sections],
        )
        return lambda section: ridge.predict(_multi_scale_features(section))


def _multi_scale_features(section: EncodedSection) -> Float64Array:
    return compute_multi_scale_features(
        section.neighbor_features.numpy(), section.section.mask.numpy()
    )


_MIN_STD = 1e-4  # a statistic that varies less says nothing and must not be blown up


@dataclass(frozen=True)
class StainRidge:
    """3 x 104 statistics, each standardised over the training spots; the penalty as in ridge."""

    def fit(
        self, sections: Sequence[EncodedSection]
    ) -> Callable[[EncodedSection], NDArray[np.float64]]:
        raw = [_multi_scale_statistics(s) for s in sections]
        together = np.concatenate(raw)
        mean, std = together.mean(axis=0), together.std(axis=0)
        std = np.where(std < _MIN_STD, 1.0, std)
        ridge = fit_ridge_cv(
            [(x - mean) / std for x in raw], [s.section.labels.numpy() for s in sections]
        )
        return lambda section: ridge.predict((_multi_scale_statistics(section) - mean) / std)


def _multi_scale_statistics(section: EncodedSection) -> Float64Array:
    return compute_multi_scale_features(
        section.section.statistics.numpy(), section.section.mask.numpy()
    )


FloatMatrix = NDArray[np.float64]


@dataclass(frozen=True)
class PcaRidge:
    """Features standardised, reduced to 256 principal components, ridge of fixed penalty.

    As published with HEST-1k (Jaume et al., NeurIPS 2024, repository mahmoodlab/HEST,
    ``hest/bench``): StandardScaler, PCA(256), ridge with alpha = 100 / (components x genes) on the
    uncentred labels without an offset. The components are centred, so an offset changes no
    weight; it is added here, because without it every prediction would be around zero and its
    errors would mean nothing. Fewer features or spots than 256 give as many components as there
    are.
    """

    components: int = 256

    def fit(self, sections: Sequence[EncodedSection]) -> Callable[[EncodedSection], FloatMatrix]:
        x = np.concatenate([_target_features(s) for s in sections])
        y = np.concatenate([s.section.labels.numpy() for s in sections]).astype(np.float64)
        mean, std = x.mean(axis=0), x.std(axis=0)
        std = np.where(std == 0, 1.0, std)
        left, spread, axes = np.linalg.svd((x - mean) / std, full_matrices=False)
        kept = min(self.components, int((spread > 1e-10 * spread[0]).sum())) if len(spread) else 0
        left, spread, axes = left[:, :kept], spread[:kept], axes[:kept]
        alpha = 100.0 / (max(kept, 1) * y.shape[1])
        offset = y.mean(axis=0)
        # on principal components the ridge solution is diagonal
        weights = (spread / (spread**2 + alpha))[:, None] * (left.T @ (y - offset))
        return lambda section: (_target_features(section) - mean) / std @ axes.T @ weights + offset


def _target_features(section: EncodedSection) -> FloatMatrix:
    return section.target_features.numpy().astype(np.float64)
