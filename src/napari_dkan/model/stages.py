"""Two stages of the network: the slide as a whole, and measured expression."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .config import DKANConfig
from .layers import Transformer
from .position import PositionEncoding


class GlobalEncoder(nn.Module):
    """All spots of a slide attend to each other: one layer, position encoding, the rest."""

    def __init__(self, config: DKANConfig) -> None:
        super().__init__()
        dim, stack = config.dim, config.global_
        self.layers = Transformer(dim, int(dim * stack.ratio), stack)
        self.position = PositionEncoding(dim, config.kernel)
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Tensor, positions: Tensor, query_rows: Tensor | None = None) -> Tensor:
        """(M, d) of all spots, or of some; only : their rows, for which the last layer's
        queries alone are needed."""
        x = features[None]
        blocks = list(zip(self.layers.attention, self.layers.feed, strict=True))
        for i, (attention, feed) in enumerate(blocks):
            last = i == len(blocks) - 1 and i > 0
            x = feed(attention(x, only=query_rows if last else None))
            if i == 0:
                x = self.position(x[0], positions)[None]
        if query_rows is not None and len(blocks) < 2:
            x = x[:, query_rows]
        return self.norm(x[0])


class ExpressionEncoder(nn.Module):
    """Expression (B, G) -> one token (B, d) for the expression path; training only."""

    def __init__(self, genes: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(genes, dim)
        self.refine = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, expression: Tensor) -> Tensor:
        p = self.project(expression)
        return self.norm(self.dropout(self.refine(F.gelu(p))) + p)
