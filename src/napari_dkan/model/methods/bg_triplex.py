"""BG-TRIPLEX: TRIPLEX whose spot and neighbour branches are guided by nuclei and edges.

Qu et al., BIBM 2024 (arXiv 2412.04072). Here the maps of nuclei and edges are hand-made, of the
haematoxylin and eosin of the pixels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..encoders.encoder_spec import IMAGENET_MEAN, IMAGENET_STD
from ..encoders.stain_encoder import (
    NUCLEUS_THRESHOLDS,
    TILE_SIDE_PX,
    box_mean,
    compute_density,
    compute_nucleus_contrast,
    unmix_stains,
)
from .method_configs import BGTriplexConfig
from .triplex import Triplex

NUM_NUCLEI = len(NUCLEUS_THRESHOLDS) + 1  # numbers of a cell
NUM_EDGES = 3
_MIN_GRADIENT = 0.02  # optical density per px of 2.75 um: what is less is noise


def compute_boundary_maps(patches: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Compute maps of nuclei and edges of patches (B, 3, P, P), normalised as ImageNet's.

    Of each of cells x cells squares, row-major, the part that is covered by nuclei of some
    contrast and their mean contrast, and the mean gradient of haematoxylin, eosin and density.
    All are exactly zero on a patch of one colour.

    Returns
    -------
    tuple
        (B, cells^2, NUM_NUCLEI) and (B, cells^2, NUM_EDGES), about 0 to 1.
    """
    with torch.autocast(patches.device.type, enabled=False):
        mean, std = (patches.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        rgb = F.interpolate(patches.float(), (TILE_SIDE_PX, TILE_SIDE_PX), mode="area")
        local = box_mean(unmix_stains(compute_density((rgb * std + mean) * 255)), 3)
        contrast = compute_nucleus_contrast(local[:, 0])
        levels = [(contrast > threshold).float() for threshold in NUCLEUS_THRESHOLDS]
        nuclei = torch.stack([*levels, 10 * F.relu(contrast - NUCLEUS_THRESHOLDS[0])], dim=1)
        stains = local[:, [0, 1, 3]]
        down = stains[:, :, 2:, 1:-1] - stains[:, :, :-2, 1:-1]
        across = stains[:, :, 1:-1, 2:] - stains[:, :, 1:-1, :-2]
        gradient = (down.square() + across.square()).sqrt() / 2
        edges = 10 * F.relu(gradient - _MIN_GRADIENT)
        return _average_cells(nuclei, cells), _average_cells(edges, cells)


def _average_cells(maps: Tensor, cells: int) -> Tensor:
    """Average maps (B, n, h, w) over cells x cells squares -> (B, cells^2, n)."""
    return F.adaptive_avg_pool2d(maps, cells).flatten(2).transpose(1, 2)


class BGTriplex(Triplex):
    """TRIPLEX with a cross-attention from spot and neighbour tokens to nuclei and edges.

    Nothing between the numbers of a guidance token and its update has a bias, so that what is
    blank adds exactly nothing: without nuclei and edges it is TRIPLEX.
    """

    config: BGTriplexConfig

    def __init__(self, config: BGTriplexConfig) -> None:
        super().__init__(config)
        d, stack = config.dim, config.fusion
        self.spot_guidance = _build_embeddings((NUM_NUCLEI, NUM_EDGES), d, stack.dropout)
        self.neighbor_guidance = _build_embeddings(map(len, config.columns), d, stack.dropout)
        self.guided_norm = nn.LayerNorm(d)
        # one for both branches, as published
        self.guide = nn.MultiheadAttention(d, stack.heads, bias=False, batch_first=True)

    def encode_target(self, patches: Tensor) -> Tensor:
        """See `ExpressionNetwork.encode_target`; 2 cells^2 guidance tokens follow the trunk's."""
        tokens = super().encode_target(patches)
        maps = compute_boundary_maps(patches, self.config.cells)
        guidance = [embed(m) for embed, m in zip(self.spot_guidance, maps, strict=True)]
        return torch.cat([tokens, *guidance], dim=1)

    def _encode_branches(
        self, target: Tensor, neighbor_features: Tensor, visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        n = 2 * self.config.cells**2
        target, guidance = target[:, :-n], target[:, -n:]
        target, neighbor = super()._encode_branches(target, neighbor_features, visible)
        target = self._attend(target, guidance)
        if self.config.columns:
            of_tiles = neighbor_features * visible[..., None]  # off the slide nothing guides
            maps = [of_tiles[..., list(columns)] for columns in self.config.columns]
            embedded = [e(m) for e, m in zip(self.neighbor_guidance, maps, strict=True)]
            neighbor = self._attend(neighbor, torch.cat(embedded, dim=1))
        return target, neighbor

    def _attend(self, tokens: Tensor, guidance: Tensor) -> Tensor:
        query = self.guided_norm(tokens)
        update: Tensor = self.guide(query, guidance, guidance, need_weights=False)[0]
        return tokens + update


def _build_embeddings(lengths: Iterable[int], dim: int, dropout: float) -> nn.ModuleList:
    """Maps from numbers of nuclei and of edges to tokens, of which zeros give zeros."""
    return nn.ModuleList(
        nn.Sequential(
            nn.Linear(length, dim, bias=False),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(dim, dim, bias=False),
        )
        for length in lengths
    )
