"""Quality-control features of tiles, computed during prediction: tissue, sharpness, stains and disagreement of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import DKAN, Ensemble
    from ..model.network.network_interface import FusedTokens


PIXEL_QC_NAMES = ("tissue", "sharpness", "pen", "dark", "haematoxylin", "eosin", "residual")
NETWORK_QC_NAMES = ("heads", "members")
QC_FEATURE_NAMES = PIXEL_QC_NAMES + NETWORK_QC_NAMES

MIN_SUBSAMPLED_PX = 56  # px at least; larger tiles are thinned to fewer than twice that
SHARPNESS_LAG_PX = 4  # px between which tissue differs whether it is in focus or not
MIN_TISSUE_DENSITY = 0.08  # mean optical density above which a pixel is no glass
MIN_DARK_DENSITY = 1.2  # every channel absorbs so much: ink, a fold, a pigment

# Optical density per unit of haematoxylin, eosin and the rest (Ruifrok and Johnston 2001).
_STAIN_VECTORS = np.array([(0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)])
_UNMIXING_MATRIX = np.linalg.inv(
    _STAIN_VECTORS / np.linalg.norm(_STAIN_VECTORS, axis=1, keepdims=True)
)
_OPTICAL_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)


def compute_pixel_qc(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the tiles (B, P, P, 3) RGB look like: (B, len(PIXELS)).

    tissue : share of pixels that absorb light. sharpness : log of how much neighbouring pixels
    differ against pixels a few apart; lower is blurred, whatever the contrast. pen, dark : shares
    of pixels of a colour that neither stain has, and of nearly black ones. haematoxylin, eosin,
    residual : mean optical densities over the pixels that absorb, 0 where none does.
    """
    step = max(1, patches.shape[1] // MIN_SUBSAMPLED_PX)
    thin = patches[:, ::step, ::step]
    red, green, blue = (_OPTICAL_DENSITY.take(thin[..., channel]) for channel in range(3))
    absorbs = red + green + blue > 3 * MIN_TISSUE_DENSITY
    # Both stains absorb green the most; inks that do not are blue, green, yellow or red.
    pen = (red > 1.25 * green + 0.1) | (blue > 1.1 * green + 0.15)
    dark = np.minimum(np.minimum(red, green), blue) > MIN_DARK_DENSITY
    count = absorbs.sum(axis=(1, 2))
    of_tissue = [(channel * absorbs).sum(axis=(1, 2)) for channel in (red, green, blue)]
    stains = np.stack(of_tissue, axis=1) / np.maximum(count, 1)[:, None] @ _UNMIXING_MATRIX
    shares = [mask.mean(axis=(1, 2)) for mask in (absorbs, pen, dark)]
    made = [shares[0], _compute_sharpness(patches[..., 1]), shares[1], shares[2], *stains.T]
    return np.stack(made, axis=1).astype(np.float32)


def _compute_sharpness(green: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of the channel (B, P, P) that both stains absorb the most."""
    light = green.astype(np.float32)
    near, far = (
        _mean_square(light[:, lag:] - light[:, :-lag])
        + _mean_square(light[:, :, lag:] - light[:, :, :-lag])
        for lag in (1, SHARPNESS_LAG_PX)
    )
    # the 1 is the noise of a camera or of JPEG, which is sharp even on glass
    return np.log((near + 1) / (far + 1))


def _mean_square(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.einsum("bij,bij->b", x, x) / (x.shape[1] * x.shape[2])


def compute_network_qc(
    network: DKAN | Ensemble, fused: FusedTokens, global_tokens: Tensor
) -> Tensor:
    """How far the network is at odds with itself over B tiles: (B, len(NETWORK)).

    fused, global_tokens : as `DKAN.join` gives them and `DKAN.auxiliary` takes them. heads : how
    far the four auxiliary heads lie apart, which see the tile, its neighbours, the slide and all
    of it. members : the same for the members of an ensemble, 0 for a single network. Both are
    standard deviations of standardised predictions, root mean square over the genes.
    """
    import torch

    from ..model.network.ensemble import Ensemble
    from ..model.network.network_interface import FusedTokens

    members = network.member_networks if isinstance(network, Ensemble) else [network]
    parts = [
        t.float().chunk(len(members), dim=1)
        for t in (fused.z, fused.target_mean, fused.neighbor_mean, global_tokens)
    ]
    each = []  # per member (4, B, G)
    for member, *own, tokens in zip(members, *parts, strict=True):
        heads = torch.stack(list(member.predict_auxiliary(FusedTokens(*own), tokens).values()))
        each.append(member.from_label_scale(heads))
    found = torch.stack(each)
    return torch.stack(
        [_compute_disagreement(found.mean(dim=0)), _compute_disagreement(found.mean(dim=1))], dim=1
    )


def _compute_disagreement(predictions: Tensor) -> Tensor:
    """Of K predictions (K, B, G): (B,)."""
    return predictions.var(dim=0, correction=0).mean(dim=1).sqrt()
