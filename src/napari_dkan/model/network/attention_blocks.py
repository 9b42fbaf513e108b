"""Attention blocks of DKAN (docs/method.md, section 3).

All blocks are pre-norm. Queries, keys and values have no bias. The output projection has a bias
and is absent if there is a single head.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network_config import StackConfig


class FeedForward(nn.Module):
    """x + Linear(Dropout(GELU(Linear(LayerNorm(x))))), with the shape of x."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(F.gelu(self.expand(self.norm(x))))
        update: Tensor = self.dropout(self.contract(hidden))
        return x + update


class RelativePositionBias(nn.Module):
    """A learned bias for each head and each |dy|, |dx| between the cells of a square grid."""

    offset: Tensor

    def __init__(self, heads: int, grid: int) -> None:
        super().__init__()
        # As published, offsets are numbered in the order in which they first occur when the
        # cells are traversed row by row. The first cell has all of them, in the order
        # |dy| * grid + |dx|.
        self.weight = nn.Parameter(torch.zeros(heads, grid * grid))
        y = torch.arange(grid, device="cpu").repeat_interleave(grid)
        x = torch.arange(grid, device="cpu").repeat(grid)
        offset = (y[:, None] - y).abs() * grid + (x[:, None] - x).abs()
        self.register_buffer("offset", offset, persistent=False)

    def forward(self) -> Tensor:
        """Return the bias of each pair of cells, (heads, grid^2, grid^2)."""
        return self.weight[:, self.offset]


class SelfAttention(nn.Module):
    """x + attention over the tokens of x (B, T, dim), with keys masked and a bias added."""

    def __init__(self, dim: int, heads: int, dropout: float, grid: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = _build_output_projection(dim, heads)
        self.dropout = nn.Dropout(dropout)
        self.bias = None if grid is None else RelativePositionBias(heads, grid)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, query_rows: Tensor | None = None
    ) -> Tensor:
        """Attend from all rows of x, or from query_rows only (without a grid), to all of x."""
        q, k, v = (_split_heads(t, self.heads) for t in self.qkv(self.norm(x)).chunk(3, dim=-1))
        if query_rows is not None:
            q, x = q[:, :, query_rows], x[:, query_rows]
        bias = None if self.bias is None else self.bias().to(q.dtype)[None]
        attended = _compute_attention(q, k, v, bias, mask)
        return x + _apply_output_projection(self.out, self.dropout, attended)


class CrossAttention(nn.Module):
    """x + attention from x (B, Q, dim) to context (B, T, dim), with one LayerNorm for both."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = _build_output_projection(dim, heads)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        q = _split_heads(self.query(self.norm(x)), self.heads)
        k, v = (
            _split_heads(t, self.heads) for t in self.key_value(self.norm(context)).chunk(2, dim=-1)
        )
        return x + _apply_output_projection(
            self.out, self.dropout, _compute_attention(q, k, v, None, mask)
        )


class SingleKeyAttention(nn.Module):
    """x (B, G, dim) + attention to a single token (B, dim), in its exact short form.

    A softmax over one key is 1 whatever query and key are, so the update is
    W_o W_v LayerNorm(token) for every row of x. Queries and keys have neither an effect nor a
    gradient and do not exist here: `to_q` and the first half of `to_kv` of a published layer are
    not imported.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = _build_output_projection(dim, heads)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        update = self.out(self.value(self.norm(token)))[:, None]
        if self.training and not isinstance(self.out, nn.Identity):
            # Dropout is independent for each gene row.
            update = self.dropout(update.expand(-1, x.shape[1], -1))
        result: Tensor = x + update
        return result


class Transformer(nn.Module):
    """Self-attention stack on (B, T, dim); mask (B, T) is true for visible keys."""

    def __init__(self, dim: int, hidden: int, stack: StackConfig, grid: int | None = None) -> None:
        super().__init__()
        self.attention = nn.ModuleList(
            SelfAttention(dim, stack.heads, stack.dropout, grid) for _ in range(stack.depth)
        )
        self.feed = _build_feed_forwards(dim, hidden, stack)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for attention, feed in zip(self.attention, self.feed, strict=True):
            x = feed(attention(x, mask))
        return x


class CrossTransformer(nn.Module):
    """Cross-attention stack: queries (B, Q, dim) refined against a fixed context (B, T, dim)."""

    def __init__(self, dim: int, hidden: int, stack: StackConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleList(
            CrossAttention(dim, stack.heads, stack.dropout) for _ in range(stack.depth)
        )
        self.feed = _build_feed_forwards(dim, hidden, stack)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        for attention, feed in zip(self.attention, self.feed, strict=True):
            x = feed(attention(x, context, mask))
        return x


class SingleKeyTransformer(nn.Module):
    """Gene rows (1 or B, G, dim) refined against one token per spot (B, dim) -> (B, G, dim).

    The rows of a spot are independent of each other, so any subset of genes can be refined.
    """

    def __init__(self, dim: int, hidden: int, stack: StackConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleList(
            SingleKeyAttention(dim, stack.heads, stack.dropout) for _ in range(stack.depth)
        )
        self.feed = _build_feed_forwards(dim, hidden, stack)

    def blocks(self) -> list[tuple[SingleKeyAttention, FeedForward]]:
        """Return the layers of each block."""
        return [
            (cast(SingleKeyAttention, attention), cast(FeedForward, feed))
            for attention, feed in zip(self.attention, self.feed, strict=True)
        ]

    def forward(self, genes: Tensor, token: Tensor) -> Tensor:
        x = genes.expand(len(token), -1, -1)
        for attention, feed in self.blocks():
            x = feed(attention(x, token))
        return x


def _build_feed_forwards(dim: int, hidden: int, stack: StackConfig) -> nn.ModuleList:
    return nn.ModuleList(FeedForward(dim, hidden, stack.dropout) for _ in range(stack.depth))


def _build_output_projection(dim: int, heads: int) -> nn.Module:
    return nn.Identity() if heads == 1 else nn.Linear(dim, dim)


def _apply_output_projection(projection: nn.Module, dropout: nn.Module, attended: Tensor) -> Tensor:
    # Dropout belongs to the projection in published layers, so a single head has none.
    merged = attended.transpose(1, 2).flatten(2)
    if isinstance(projection, nn.Identity):
        return merged
    projected: Tensor = dropout(projection(merged))
    return projected


def _split_heads(x: Tensor, heads: int) -> Tensor:
    return torch.unflatten(x, -1, (heads, -1)).transpose(1, 2)


def _compute_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None
) -> Tensor:
    """Attend among (B, heads, tokens, dim/heads); a row without visible key sees all equally."""
    if mask is not None:
        low = torch.finfo(q.dtype).min
        start = torch.zeros((), dtype=q.dtype, device=q.device) if bias is None else bias
        bias = torch.where(mask[:, None, None, :], start, low)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
