"""Quality-control features of predicted tiles: tissue, focus, stains, network disagreement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..model.stain_normalization import RUIFROK_STAIN_VECTORS

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import ExpressionNetwork
    from ..model.network.network_interface import FusedTokens


PIXEL_QC_NAMES = ("tissue", "sharpness", "pen", "dark", "haematoxylin", "eosin", "residual")
NETWORK_QC_NAMES = ("heads", "members")
QC_FEATURE_NAMES = PIXEL_QC_NAMES + NETWORK_QC_NAMES

MIN_SUBSAMPLED_PX = 56  # larger tiles are subsampled to less than twice this side
SHARPNESS_LAG_PX = 4  # pixels of tissue at this distance differ in and out of focus
MIN_TISSUE_DENSITY = 0.08  # mean optical density of a tissue pixel
MIN_DARK_DENSITY = 1.2  # of every channel: ink, a fold or pigment

_STAIN_VECTORS = np.array(RUIFROK_STAIN_VECTORS)
_UNMIXING_MATRIX = np.linalg.inv(
    _STAIN_VECTORS / np.linalg.norm(_STAIN_VECTORS, axis=1, keepdims=True)
)
_OPTICAL_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)


def compute_pixel_qc(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute features of RGB tiles.

    tissue
        Fraction of pixels that absorb light.
    sharpness
        Log ratio of the differences of adjacent pixels to those of pixels a few apart; lower is
        blurred, independently of contrast.
    pen, dark
        Fractions of pixels of a color that neither stain has, and of nearly black ones.
    haematoxylin, eosin, residual
        Mean optical densities of the absorbing pixels, 0 where there is none.

    Parameters
    ----------
    patches : ndarray
        (B, P, P, 3).

    Returns
    -------
    ndarray
        (B, E), columns `PIXEL_QC_NAMES`.
    """
    step = max(1, patches.shape[1] // MIN_SUBSAMPLED_PX)
    pixels = patches[:, ::step, ::step]
    red, green, blue = (_OPTICAL_DENSITY.take(pixels[..., channel]) for channel in range(3))
    absorbs = red + green + blue > 3 * MIN_TISSUE_DENSITY
    # Both stains absorb green the most; blue, green, yellow and red inks do not.
    pen = (red > 1.25 * green + 0.1) | (blue > 1.1 * green + 0.15)
    dark = np.minimum(np.minimum(red, green), blue) > MIN_DARK_DENSITY
    count = absorbs.sum(axis=(1, 2))
    sums = [(channel * absorbs).sum(axis=(1, 2)) for channel in (red, green, blue)]
    stains = np.stack(sums, axis=1) / np.maximum(count, 1)[:, None] @ _UNMIXING_MATRIX
    tissue_fraction, pen_fraction, dark_fraction = (
        mask.mean(axis=(1, 2)) for mask in (absorbs, pen, dark)
    )
    sharpness = _compute_sharpness(patches[..., 1])
    features = [tissue_fraction, sharpness, pen_fraction, dark_fraction, *stains.T]
    return np.stack(features, axis=1).astype(np.float32)


def _compute_sharpness(green: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(B,) sharpness of the channel (B, P, P) that both stains absorb the most."""
    light = green.astype(np.float32)
    near, far = (
        _mean_square(light[:, lag:] - light[:, :-lag])
        + _mean_square(light[:, :, lag:] - light[:, :, :-lag])
        for lag in (1, SHARPNESS_LAG_PX)
    )
    # The 1 is the noise of a camera or of JPEG, which is sharp even on glass.
    return np.log((near + 1) / (far + 1))


def _mean_square(x: NDArray[np.float32]) -> NDArray[np.float32]:
    means: NDArray[np.float32] = np.einsum("bij,bij->b", x, x) / (x.shape[1] * x.shape[2])
    return means


def compute_network_qc(
    network: ExpressionNetwork, fused: FusedTokens, global_tokens: Tensor
) -> Tensor:
    """Compute the disagreement within a network.

    heads
        Of the four auxiliary heads, which see the tile, its neighbors, the context and all of it;
        0 for a method with a single head.
    members
        Of the members of an ensemble, 0 for a single network.

    Both are standard deviations of standardized predictions, root mean square over the genes.

    Parameters
    ----------
    fused, global_tokens : FusedTokens, Tensor
        The arguments of `ExpressionNetwork.predict_auxiliary`, of B tiles.

    Returns
    -------
    Tensor
        (B, E), columns `NETWORK_QC_NAMES`.
    """
    import torch

    from ..model.network.ensemble import list_members
    from ..model.network.network_interface import FusedTokens

    members = list_members(network)
    parts = [
        t[:, : network.config.members_dim].float().chunk(len(members), dim=1)
        for t in (fused.z, fused.target_mean, fused.neighbor_mean, global_tokens)
    ]
    predictions = []  # per member (4, B, G)
    for member, *own, tokens in zip(members, *parts, strict=True):
        heads = torch.stack(list(member.predict_auxiliary(FusedTokens(*own), tokens).values()))
        predictions.append(member.from_label_scale(heads))
    stacked = torch.stack(predictions)
    by_head = _compute_disagreement(stacked.mean(dim=0))
    by_member = _compute_disagreement(stacked.mean(dim=1))
    return torch.stack([by_head, by_member], dim=1)


def _compute_disagreement(predictions: Tensor) -> Tensor:
    """(B,) disagreement of K predictions (K, B, G)."""
    return predictions.var(dim=0, correction=0).mean(dim=1).sqrt()
