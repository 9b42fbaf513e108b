"""Fits in closed form: level and spread of the genes, and a ridge regression.

Each is of the form ``share * f + x W + offset`` (`LinearFit`), with f the checkpoint's prediction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...model.network.dkan_network import DKAN
from ...model.network.ensemble import combine_members, get_linear_path, list_dkan_members
from ...model.network.linear_path import LinearFit, LinearPath
from ...model.network.network_interface import ExpressionNetwork
from ...model.ridge_regression import compute_multi_scale_features
from ..data.section_batches import SpotTokens
from ..metrics import nanmean_over_rows
from .hold_out_split import Subset
from .training_section import TrainingSection

Float64Array = NDArray[np.float64]
Levels = tuple[Float64Array, Float64Array]  # slope and shift (G,) of the predictions

SLOPE_LIMITS = (0.3, 3.0)  # smallest and largest factor of the old spread
MAX_INPUTS = 512  # more tile features are reduced to their principal components
MAX_COMPONENTS = 256
_MAX_SPOTS_OF_AXES = 2000


@dataclass(frozen=True, eq=False)
class SpotInputs:
    """What a closed-form fit knows of all N spots of a section.

    Attributes
    ----------
    prior
        (N, G) predictions of the checkpoint on the label scale.
    z
        (N, D) fused tokens of all members.
    x
        (N, 3 d) multi-scale means of the tile features, as the network gets them.
    """

    prior: Float64Array
    z: Float64Array
    x: Float64Array

    @classmethod
    def of_section(
        cls, network: ExpressionNetwork, section: TrainingSection, tokens: SpotTokens
    ) -> SpotInputs:
        """Compute the inputs from the tokens of all spots."""
        encoded = section.encoded
        near = network.standardize_by_slide(encoded.neighbor_features, encoded.target_features)
        z = tokens.fused.z
        with torch.no_grad():
            prior = network.decode(z)
        return cls(
            prior.cpu().double().numpy(),  # some GPUs have no float64
            z[:, : network.config.members_dim].cpu().double().numpy(),
            compute_multi_scale_features(near.numpy(), encoded.section.mask.numpy()),
        )

    def predict(self, fit: LinearFit, rows: NDArray[np.int64]) -> Float64Array:
        """Predict some of the spots: (len(rows), G)."""
        return fit.predict(self.prior[rows], self.z[rows], self.x[rows])


@dataclass(frozen=True)
class FitOptions:
    """What is chosen inside the training spots.

    Attributes
    ----------
    level_prior
        Weight of the old level of each gene, in spots; infinite for the old levels.
    adapts_spread
        Whether the spread of all genes changes by one factor.
    share
        Weight of the checkpoint's prediction; 0 for a plain ridge regression.
    penalty
        Ridge penalty, of inputs whose rows have a mean square of 1; infinite for no regression.
    """

    level_prior: float = math.inf
    adapts_spread: bool = False
    share: float = 1.0
    penalty: float = math.inf


class ClosedFormFitter:
    """Fits to one training subset; all penalties share the decomposition of the inputs."""

    def __init__(self, inputs: Sequence[SpotInputs], subset: Subset) -> None:
        parts = [(i, rows) for i, rows in zip(inputs, subset.rows, strict=True) if len(rows)]
        self._prior = np.concatenate([i.prior[r] for i, r in parts])
        self._z = np.concatenate([i.z[r] for i, r in parts])
        self._x = np.concatenate([i.x[r] for i, r in parts])
        self._labels = np.concatenate(subset.labels).astype(np.float64)
        self._design: _Design | None = None

    def fit_levels(self, options: FitOptions) -> Levels:
        """Fit slope and shift (G,) of the checkpoint's predictions, see `fit_levels`."""
        return fit_levels(self._prior, self._labels, options)

    def fit(self, options: FitOptions) -> LinearFit:
        """Fit level and spread, then the residuals; genes that are measured nowhere stay."""
        labels, z_mean = self._labels, self._z.mean(axis=0)
        is_measured = ~np.isnan(labels).all(axis=0)
        slope, shift = self.fit_levels(options)
        share = np.where(is_measured, options.share, 1.0)
        level = slope * self._prior.mean(axis=0) + shift
        share, offset = share * slope, share * shift + (1 - share) * level
        if math.isinf(options.penalty):
            token_weights = np.zeros((len(z_mean), len(share)))
            tile_weights = np.zeros((self._x.shape[1], len(share)))
        else:
            if self._design is None:
                self._design = _Design.of_inputs(self._z, self._x)
            residuals = labels - share * self._prior
            residuals = residuals - np.nan_to_num(nanmean_over_rows(residuals))
            token_weights, tile_weights = self._design.solve(
                np.nan_to_num(residuals), options.penalty
            )
        offset = offset - z_mean @ token_weights
        return LinearFit(share, token_weights, tile_weights, self._x.mean(axis=0), offset)


def fit_levels(prior: Float64Array, labels: Float64Array, options: FitOptions) -> Levels:
    """Fit level and spread: factor and shift (G,) of the predictions (n, G).

    A gene's level moves by the mean error over the spots, with `level_prior` spots without error
    beside them; the spread of all genes changes by one factor, the slope of measured on
    predicted. Genes that are measured nowhere (NaN) stay.
    """
    n_genes = prior.shape[1]
    if math.isinf(options.level_prior):
        return np.ones(n_genes), np.zeros(n_genes)
    is_known = ~np.isnan(labels)
    count = is_known.sum(axis=0)
    errors = np.where(is_known, labels - prior, 0).sum(axis=0)
    shift = errors / np.maximum(count + options.level_prior, 1)
    if not options.adapts_spread:
        return np.ones(n_genes), shift
    mean_prior = np.nan_to_num(nanmean_over_rows(np.where(is_known, prior, np.nan)))
    mean_label = np.nan_to_num(nanmean_over_rows(labels))
    deviation = np.where(is_known, prior - mean_prior, 0)
    covariance = (deviation * np.where(is_known, labels - mean_label, 0)).sum()
    factor = float(np.clip(covariance / max((deviation**2).sum(), 1e-9), *SLOPE_LIMITS))
    slope = np.where(count > 0, factor, 1.0)
    return slope, (1 - slope) * mean_prior + shift


def apply_levels(network: DKAN, slope: Float64Array, shift: Float64Array) -> None:
    """Change label_mean and label_std so that predictions become slope * prediction + shift."""
    factor, added = (torch.from_numpy(v).float().to(network.device) for v in (slope, shift))
    network.label_mean.copy_(factor * network.label_mean + added)
    network.label_std.mul_(factor)


def carry_fit(network: ExpressionNetwork, fit: LinearFit, levels: Levels) -> ExpressionNetwork:
    """Copy a network so that it predicts what a fit to its predictions does.

    Parameters
    ----------
    levels
        Slope and shift (G,) of the same fit. They become mean and standard deviation of the
        networks' labels; what the fit has besides becomes the linear path.
    """
    members, path = [deepcopy(m) for m in list_dkan_members(network)], get_linear_path(network)
    if path is None:
        slope, shift = levels
        for member in members:
            apply_levels(member, slope, shift)
        share = fit.share / slope
        fit = LinearFit(
            share, fit.token_weights, fit.tile_weights, fit.mean, fit.offset - share * shift
        )
        is_carried = (share == 1).all() and not (fit.token_weights.any() or fit.tile_weights.any())
        if is_carried:
            return combine_members(members)
    else:
        fit = fit.after(path.to_fit())
    return combine_members(members, LinearPath.from_fit(fit).to(network.device))


@dataclass(frozen=True, eq=False)
class _Design:
    """Singular value decomposition of the centred inputs (n, K), of rows with a mean square of 1.

    Tokens and tile features have half of it each.

    Attributes
    ----------
    left, strength, right
        Of the inputs.
    token_scale
        By which tokens are multiplied.
    tile_axes
        (3 d, K') scaled map from tile features to inputs.
    """

    left: Float64Array
    strength: Float64Array
    right: Float64Array
    token_scale: float
    tile_axes: Float64Array

    @classmethod
    def of_inputs(cls, z: Float64Array, x: Float64Array) -> _Design:
        z, x = z - z.mean(axis=0), x - x.mean(axis=0)
        token_scale, tile_scale = (
            1 / max(math.sqrt(2 * float((v**2).sum()) / len(v)), 1e-9) for v in (z, x)
        )
        axes = np.eye(x.shape[1])
        if x.shape[1] > MAX_INPUTS:
            some = x[:: -(-len(x) // _MAX_SPOTS_OF_AXES)]
            axes = np.linalg.svd(some, full_matrices=False)[2][:MAX_COMPONENTS].T
        tile_axes = axes * tile_scale
        design = np.concatenate([z * token_scale, x @ tile_axes], axis=1)
        left, strength, right = np.linalg.svd(design, full_matrices=False)
        return cls(left, strength, right, token_scale, tile_axes)

    def solve(self, y: Float64Array, penalty: float) -> tuple[Float64Array, Float64Array]:
        """Ridge weights of tokens (D, G) and tile features (3 d, G) for centred y (n, G)."""
        factor = self.strength / (self.strength**2 + penalty)
        weights = self.right.T @ (factor[:, None] * (self.left.T @ y))
        n_tile = self.tile_axes.shape[1]
        return weights[:-n_tile] * self.token_scale, self.tile_axes @ weights[-n_tile:]
