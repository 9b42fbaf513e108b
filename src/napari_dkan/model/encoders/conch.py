"""CONCH's image tower (Lu et al. 2024): a ViT whose tokens one learned query attends to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CONCH_WIDTH, CONCH_HEADS = 512, 8


class AttentionPool(nn.Module):
    """Tokens (B, T, channels) -> (B, width): what a learned query finds in them.

    CoCa's attentional pooling (Yu et al. 2022, section 3.2) with a single query.
    """

    def __init__(self, channels: int, width: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, width))
        self.attn = nn.MultiheadAttention(
            width, heads, kdim=channels, vdim=channels, batch_first=True
        )
        self.ln_q = nn.LayerNorm(width)
        self.ln_k = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.ln_k(tokens)
        query = self.ln_q(self.query).expand(len(tokens), -1, -1)
        return self.attn(query, found, found, need_weights=False)[0][:, 0]


class ConchImageTower(nn.Module):
    """Normalised tiles (B, 3, px, px) -> (B, width), before the projection beside text.

    Submodules are named as in the published weights, without their ``visual.``.
    trunk : a timm ViT; all of its tokens are looked at, the class token too.
    """

    def __init__(self, trunk: Any, width: int = CONCH_WIDTH, heads: int = CONCH_HEADS) -> None:
        super().__init__()
        self.trunk = trunk
        self.attn_pool_contrast = AttentionPool(trunk.num_features, width, heads)
        self.ln_contrast = nn.LayerNorm(width)
        self.num_features = width

    def forward(self, tiles: Tensor) -> Tensor:
        tokens = self.trunk.forward_features(tiles)
        pooled: Tensor = self.ln_contrast(self.attn_pool_contrast(tokens))
        return pooled
