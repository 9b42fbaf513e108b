"""HiFusion: a hierarchy of sub-patches inside the spot, fused with the region around it.

Weng et al., AAAI 2026 (arXiv 2511.12969). The spot's patch is divided at three levels: whole, 2x2
and a finer grid. One encoder is shared by the sub-patches, and a loss holds the mean features of
the levels close to those of the whole patch. A token of the region asks the tokens of the
hierarchy by cross-attention, which takes no positions: what a sub-patch shows counts, and not
where in the spot it lies.

Without a trained trunk the whole patch is the frozen features of the own tile, and a small
convolutional stack, trained with the network, encodes the sub-patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network.attention_blocks import CrossTransformer, Transformer
from ..network.multi_scale_network import build_adapter, build_feature_map, build_trunk
from ..network.network_interface import ExpressionNetwork, FusedTokens, require_shape
from .method_configs import HiFusionConfig

CHANNELS = 16, 32  # of the convolutions before the last


@dataclass(frozen=True)
class HierarchyTokens(FusedTokens):
    """Tokens of B spots with the mean token of each of the L levels, (B, L, d)."""

    levels: Tensor


class SubPatchEncoder(nn.Module):
    """Three strided convolutions: (N, 3, p, p) -> (N, T, d), a token of each 16 x 16 pixels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        first, second = CHANNELS
        self.layers = nn.Sequential(
            nn.Conv2d(3, first, 4, stride=4, padding=1),
            nn.GELU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(second, dim, 3, stride=2, padding=1),
            nn.GELU(),
        )

    def forward(self, patches: Tensor) -> Tensor:
        maps: Tensor = self.layers(patches)
        return maps.flatten(2).transpose(1, 2)


class HiFusion(ExpressionNetwork):
    """The hierarchy of the spot, the token of its region, and the fusion of both.

    Tokens of sub-patches are in the order of the levels, row-major in each.
    """

    config: HiFusionConfig

    def __init__(self, config: HiFusionConfig) -> None:
        super().__init__()
        self.config = config
        d = config.dim
        self._register_label_scale()
        self.trunk = build_trunk(config.trunk, config.trunk_dim)
        if self.trunk is None:
            self.own = build_feature_map(config.feature_dim, d, config.region)
            self.sub_patch = SubPatchEncoder(d)
        else:
            self.adapter = build_adapter(config.trunk_dim, d)
        self.level_norm = nn.LayerNorm(d)
        self.tile = build_feature_map(config.feature_dim, d, config.region)
        self.region = Transformer(d, int(d * config.region.ratio), config.region, config.grid)
        self.region_norm = nn.LayerNorm(d)
        self.fusion = CrossTransformer(d, int(d * config.fusion.ratio), config.fusion)
        self.fusion_norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, config.genes)
        self.level_head = nn.Linear(d, config.genes)

    def encode_target(self, patches: Tensor) -> Tensor:
        """See `ExpressionNetwork.encode_target`; a token of each sub-patch.

        Without a trunk there is none of the whole patch, of which `fuse_tokens` has the features.
        """
        require_shape("patches", patches, (patches.shape[0], 3, *patches.shape[-2:]))
        if self.trunk is None:
            patches = standardize_patches(patches)
        sides = self.config.sides[self.trunk is None :]
        return torch.cat([self._encode_level(patches, side) for side in sides], dim=1)

    def _encode_level(self, patches: Tensor, side: int) -> Tensor:
        parts = split_patches(patches, side)
        tokens: Tensor = (
            self.sub_patch(parts) if self.trunk is None else self.adapter(self.trunk(parts))
        )
        return tokens.mean(dim=1).reshape(len(patches), side * side, self.config.dim)

    def fuse_tokens(
        self,
        target: Tensor,
        neighbor_features: Tensor,
        neighbor_mask: Tensor,
        global_tokens: Tensor,
    ) -> HierarchyTokens:
        """See `ExpressionNetwork.fuse_tokens`; global tokens have no effect."""
        own = self.own_tile_features(neighbor_features)
        sizes = [side * side for side in self.config.sides]
        n_tokens = sum(sizes[self.trunk is None :])
        require_shape("target tokens", target, (len(own), n_tokens, self.config.dim))
        require_shape("neighbour mask", neighbor_mask, neighbor_features.shape[:2])
        if self.trunk is None:
            target = torch.cat([self.own(own)[:, None], target], dim=1)
        hierarchy = self.level_norm(target)
        levels = torch.stack([t.mean(dim=1) for t in hierarchy.split(sizes, dim=1)], dim=1)
        region = self._encode_region(neighbor_features, neighbor_mask.bool())
        z = self.fusion_norm(self.fusion(region[:, None], hierarchy))[:, 0]
        return HierarchyTokens(z, levels.mean(dim=1), region, levels)

    def _encode_region(self, features: Tensor, visible: Tensor) -> Tensor:
        """Return the mean token (B, d) of the tiles of the region that are on the slide."""
        tokens = self.region(self.tile(features), visible)
        weight = visible.to(tokens.dtype)[..., None]
        region: Tensor = self.region_norm(
            (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)
        )
        return region

    def decode(
        self, z: Tensor, genes: Tensor | None = None, gene_tokens: Tensor | None = None
    ) -> Tensor:
        """See `ExpressionNetwork.decode`; gene tokens have no effect."""
        return self.decode_linear(self.head, z, genes)

    def predict_auxiliary(self, fused: FusedTokens, global_tokens: Tensor) -> dict[str, Tensor]:
        """Predict from the fused token, and the mean over the levels from each level alone."""
        levels = self.level_head(fused.target_mean)
        return {"fused": self.decode(fused.z), "target": self.to_label_scale(levels.float())}


def standardize_patches(patches: Tensor) -> Tensor:
    """Standardise each channel of each patch (B, 3, P, P) against the shift of another stain."""
    centred = patches - patches.mean(dim=(2, 3), keepdim=True)
    variance = centred.square().mean(dim=(2, 3), keepdim=True)
    return centred / variance.sqrt().clamp_min(0.1)


def split_patches(patches: Tensor, side: int) -> Tensor:
    """Split patches (B, 3, P, P) into side x side parts each: (B * side^2, 3, P/side, P/side).

    A patch whose side is no multiple is enlarged first.
    """
    px = -(-patches.shape[-1] // side)
    if patches.shape[-1] != px * side:
        patches = F.interpolate(patches, (px * side, px * side), mode="bilinear")
    parts = patches.reshape(-1, 3, side, px, side, px)
    return parts.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, px, px)
