"""Labels without the depth of the spots, and the linear path that restores their levels.

Labels are logarithms of proportions, which move for every gene with the number of molecules that
a spot caught. A network that is trained on them spends most of its error on that one quantity. With
``settings.depth_residual`` it is trained on what is left of each section's labels after least
squares on (1, depth), and the depth is predicted apart, from the tile features by ridge regression.
The prediction on the label scale is ``network + share * slope * depth``, with the slope of each
gene pooled within the training sections (docs/method.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import SpotsError
from ...model.network.linear_path import LinearFit, LinearPath
from ...model.network.network_interface import ExpressionNetwork
from ...model.ridge_regression import RidgeRegression, compute_multi_scale_features
from ..baselines import fit_ridge, fit_ridge_cv
from ..data.prepared_section import EncodedSection, PreparedSection
from ..depth_metrics import regress_out_depth

Float64Array = NDArray[np.float64]


def remove_depth(sections: Sequence[PreparedSection]) -> list[PreparedSection]:
    """Replace the labels of sections by their depth residuals, around the mean of all labels.

    Raises
    ------
    SpotsError
        When the counts of a section are not known.
    """
    mean = torch.cat([s.labels for s in sections]).mean(dim=0)
    return [
        replace(
            s,
            labels=torch.from_numpy(regress_out_depth(s.labels.numpy(), _depth(s))).float() + mean,
        )
        for s in sections
    ]


def fit_depth_slopes(sections: Sequence[PreparedSection]) -> Float64Array:
    """Fit the slope (G,) of each gene's label by the depth, pooled within sections."""
    products, squares = 0.0, 0.0
    for s in sections:
        depth = _depth(s) - _depth(s).mean()
        labels = s.labels.numpy().astype(np.float64)
        products = products + depth @ (labels - labels.mean(axis=0))
        squares += float(depth @ depth)
    return np.asarray(products / max(squares, 1e-12), np.float64)


def fit_depth_path(
    sections: Sequence[EncodedSection],
    members: Sequence[ExpressionNetwork],
    depth_share: float,
    ridge_share: float = 0.0,
) -> LinearPath:
    """Fit what is added to networks that were trained on depth residuals.

    Parameters
    ----------
    sections
        Sections with their labels on the label scale, not the residuals, and their views.
    members
        The networks.
    depth_share
        Part of the predicted depth that is restored: 0 predicts residuals, 1 the whole.
    ridge_share
        Weight of a ridge regression of the residuals in the mean with the networks.
    """
    prepared = [s.section for s in sections]
    slopes = fit_depth_slopes(prepared)
    inputs = [[_multi_scale(view, members[0]) for view in (s, *s.views)] for s in sections]
    depths = [(_depth(s) - _depth(s).mean())[:, None] for s in prepared]
    # the penalty is chosen on the sections as they are, the fit has their views too
    penalty = fit_ridge_cv([views[0] for views in inputs], depths).penalty
    stacked = np.concatenate([x for views in inputs for x in views])
    depth = _fit_on_views(inputs, depths, stacked, penalty)
    weights = depth_share * (depth.weights / depth.scale) @ slopes[None]
    offset = depth_share * depth.offset * slopes
    if ridge_share > 0:
        residuals = [s.labels.numpy().astype(np.float64) for s in remove_depth(prepared)]
        penalty = fit_ridge_cv([views[0] for views in inputs], residuals).penalty
        ridge = _fit_on_views(inputs, residuals, stacked, penalty)
        weights = weights + ridge_share * ridge.weights / ridge.scale
        offset = offset + ridge_share * ridge.offset
    n_genes = len(slopes)
    width = sum(m.config.dim for m in members)
    fit = LinearFit(
        share=np.full(n_genes, 1 - ridge_share),
        token_weights=np.zeros((width, n_genes)),
        tile_weights=weights,
        mean=stacked.mean(axis=0),
        offset=offset,
    )
    return LinearPath.from_fit(fit)


def _fit_on_views(
    inputs: Sequence[Sequence[Float64Array]],
    targets: Sequence[Float64Array],
    stacked: Float64Array,
    penalty: float,
) -> RidgeRegression:
    """Fit a ridge regression to all views, whose penalty counts for each view."""
    wanted = np.concatenate(
        [target for views, target in zip(inputs, targets, strict=True) for _ in views]
    )
    return fit_ridge(stacked, wanted, penalty * len(stacked) / sum(map(len, targets)))


def _multi_scale(encoded: EncodedSection, network: ExpressionNetwork) -> Float64Array:
    """(N, 3 d) means of the features at three scales, relative to their slide as the network's."""
    with torch.no_grad():
        features = network.standardize_by_slide(encoded.neighbor_features, encoded.target_features)
    return compute_multi_scale_features(features.numpy(), encoded.section.mask.numpy())


def _depth(section: PreparedSection) -> Float64Array:
    if section.counts is None:
        raise SpotsError(
            f"The counts of {section.name} are not known, so the depth of its spots cannot be "
            "taken out of the labels; train with --set depth_residual=false."
        )
    return section.counts.depth
