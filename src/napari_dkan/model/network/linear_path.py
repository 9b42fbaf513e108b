"""A linear path beside the networks: a closed-form fit that is carried in the checkpoint.

A correction fitted to few spots, a plain ridge regression and the mean of both with the networks
are all of the form ``share * f + x W + offset``, where f is the prediction of the networks and x
are numbers of the spot. These numbers travel behind the fused tokens, so that any gene is decoded
from the tokens alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

NUM_SCALES = 3  # the spot's own tile, mean of 3x3, mean of the whole grid
MAX_LINEAR_FEATURES = 64  # numbers a spot that are carried behind the fused tokens

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A linear fit in full: ``share * f + z @ token_weights + (x - mean) @ tile_weights + offset``.

    Attributes
    ----------
    share
        Weight (G,) of the networks' prediction f (N, G), on the label scale.
    token_weights
        (D, G) of the fused tokens z (N, D) of all networks.
    tile_weights
        (3 d, G) of the means x (N, 3 d) of tile features, see `average_scales`.
    mean
        (3 d,) subtracted from the means.
    offset
        (G,), on the label scale.
    """

    share: Float64Array
    token_weights: Float64Array
    tile_weights: Float64Array
    mean: Float64Array
    offset: Float64Array

    def predict(self, prior: Float64Array, z: Float64Array, x: Float64Array) -> Float64Array:
        """Predict (N, G) from the networks' prediction and the inputs of N spots."""
        linear = z @ self.token_weights + (x - self.mean) @ self.tile_weights
        return np.asarray(self.share * prior + linear + self.offset, np.float64)

    def after(self, first: LinearFit) -> LinearFit:
        """Combine with a fit whose predictions are the prior of this one."""
        moved = first.offset + (self.mean - first.mean) @ first.tile_weights
        return LinearFit(
            self.share * first.share,
            self.share * first.token_weights + self.token_weights,
            self.share * first.tile_weights + self.tile_weights,
            self.mean,
            self.share * moved + self.offset,
        )


class LinearPath(nn.Module):
    """A linear fit with R tile features, computed from the neighbour features of a network.

    Names of parameters are tensor names in checkpoint files, after ``linear.``; nothing of it is
    trained by gradients.

    Parameters
    ----------
    token_dim
        Width D of the fused tokens of all networks.
    tile_dim
        Width d of tile features.
    """

    share: Tensor
    weights: Tensor
    offset: Tensor
    mean: Tensor
    axes: Tensor

    def __init__(self, token_dim: int, tile_dim: int, n_features: int, n_genes: int) -> None:
        super().__init__()
        inputs = NUM_SCALES * tile_dim
        for name, shape in {
            "share": (n_genes,),
            "weights": (token_dim + n_features, n_genes),
            "offset": (n_genes,),
            "mean": (inputs,),
            "axes": (inputs, n_features),
        }.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape), requires_grad=False))

    @classmethod
    def from_fit(cls, fit: LinearFit, max_features: int = MAX_LINEAR_FEATURES) -> LinearPath:
        """Carry a fit; of its tile weights the directions that change the prediction most.

        A fit to fewer spots than `max_features` has no more directions, and is carried exactly.
        """
        left, strength, right = np.linalg.svd(fit.tile_weights, full_matrices=False)
        rank = int((strength > 1e-7 * max(float(strength[0]), 1e-12)).sum())
        kept = slice(max(1, min(rank, max_features)))
        path = cls(len(fit.token_weights), len(fit.mean) // NUM_SCALES, kept.stop, len(fit.offset))
        feature_weights = strength[kept, None] * right[kept]
        values = {
            "share": fit.share,
            "weights": np.concatenate([fit.token_weights, feature_weights]),
            "offset": fit.offset,
            "mean": fit.mean,
            "axes": left[:, kept],
        }
        path.load_state_dict({n: torch.from_numpy(v).float() for n, v in values.items()})
        return path

    def to_fit(self) -> LinearFit:
        """Return the fit in full."""
        share, weights, offset, mean, axes = (
            self.get_parameter(name).detach().cpu().numpy().astype(np.float64)
            for name in ("share", "weights", "offset", "mean", "axes")
        )
        split = self.token_dim
        return LinearFit(share, weights[:split], axes @ weights[split:], mean, offset)

    @property
    def n_features(self) -> int:
        """R, the numbers that it appends to the fused tokens."""
        return self.axes.shape[1]

    @property
    def token_dim(self) -> int:
        """D, the width of the networks' fused tokens."""
        return len(self.weights) - self.n_features

    @property
    def is_common_level(self) -> bool:
        """Whether it adds one number of a spot to all genes, each with its own slope.

        A network that is trained on depth residuals has such a path: the number is the depth.
        """
        return self.n_features == 1 and not self.weights[: self.token_dim].any()

    def encode(self, neighbor_features: Tensor, neighbor_mask: Tensor) -> Tensor:
        """Compute the features (B, R) from neighbour features (B, K, d) and mask (B, K)."""
        with torch.autocast(neighbor_features.device.type, enabled=False):
            x = average_scales(neighbor_features.float(), neighbor_mask.bool())
            return (x - self.mean) @ self.axes

    def forward(self, prior: Tensor, tokens: Tensor, genes: Tensor | None = None) -> Tensor:
        """Predict (B, K) from the networks' prediction (B, K) and tokens (B, D + R).

        Parameters
        ----------
        genes
            The K columns, None for all.
        """
        share, weights, offset = self.share, self.weights, self.offset
        if genes is not None:
            genes = genes.to(weights.device)
            share, weights, offset = share[genes], weights[:, genes], offset[genes]
        return share * prior + tokens.float() @ weights + offset

    def scale_spread(self, spread: Tensor | None, genes: Tensor | None = None) -> Tensor | None:
        """Scale the spread (B, K) of the networks' prediction as `forward` scales the prediction.

        What the path itself adds is one value.
        """
        if spread is None:
            return None
        share = self.share if genes is None else self.share[genes.to(self.share.device)]
        return share.abs() * spread

    def extend(self, n_new: int) -> LinearPath:
        """Copy it for further genes, whose predictions it leaves to the networks."""
        n_genes, tile_dim = len(self.offset), len(self.mean) // NUM_SCALES
        extended = LinearPath(self.token_dim, tile_dim, self.n_features, n_genes + n_new)
        extended.to(self.offset.device)
        extended.share.fill_(1.0)
        for name, tensor in self.state_dict().items():
            extended.get_parameter(name)[..., : tensor.shape[-1]] = tensor
        return extended


def average_scales(features: Tensor, mask: Tensor) -> Tensor:
    """Concatenate the own tile, the mean of 3x3 and the mean of all tiles.

    Parameters
    ----------
    features
        (B, K, d) of a square grid of tiles of odd side, row-major.
    mask
        (B, K), false for tiles that leave the slide; they do not count in the means.

    Returns
    -------
    Tensor
        (B, 3 d).
    """
    side = round(features.shape[1] ** 0.5)
    from_middle = (torch.arange(side, device=features.device) - side // 2).abs()
    is_inner = ((from_middle[:, None] <= 1) & (from_middle <= 1)).flatten()
    scales = [features[:, side * side // 2]]
    for window in (is_inner, torch.ones_like(is_inner)):
        weight = (mask & window).to(features.dtype)
        weight = weight / weight.sum(dim=1, keepdim=True).clamp_min(1)
        scales.append(torch.einsum("bk,bkd->bd", weight, features))
    return torch.cat(scales, dim=1)
