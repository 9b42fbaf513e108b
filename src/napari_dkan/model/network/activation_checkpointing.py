"""Selective activation checkpointing, and its use on the gene rows of a training step.

It is exact in value and gradient (docs/method.md, section 6). A published step has 32,000 gene
rows of 1,024 numbers in seven layers, each with a hidden layer of 4,096: 20 GB if all activations
are stored for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from .attention_blocks import FeedForward, SingleKeyAttention, SingleKeyTransformer

# Outputs of these operations are stored. Norms, GELU, dropout and sums are cheap to recompute.
SAVED_OPS = [
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.convolution.default,
]

T = TypeVar("T")
Context = AbstractContextManager[Any]


def activation_checkpoint(module: nn.Module, function: Callable[..., T], *inputs: object) -> T:
    """Compute ``function(*inputs)`` with the same gradients, storing outputs of SAVED_OPS only.

    Parameters
    ----------
    module
        Its batch norms update their running statistics once, not in the recomputation.
    """
    return checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        context_fn=partial(_create_checkpoint_contexts, module),
    )


def _create_checkpoint_contexts(module: nn.Module) -> tuple[Context, Context]:
    forward, recompute = create_selective_checkpoint_contexts(SAVED_OPS)  # type: ignore[no-untyped-call]
    return _disable_autocast_cache(forward), _freeze_batch_norm_stats(
        module, _disable_autocast_cache(recompute)
    )


@contextmanager
def _disable_autocast_cache(context: Context) -> Iterator[None]:
    """Let mixed precision cast a weight in both passes; with the cache it does so only once."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with context:
            yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


@contextmanager
def _freeze_batch_norm_stats(module: nn.Module, context: Context) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        with context:
            yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def refine_gene_rows(
    stack: SingleKeyTransformer, genes: Tensor, token: Tensor, rows_per_chunk: int
) -> Tensor:
    """Compute ``stack(genes, token)``, storing only its matrix products for the backward pass.

    Parameters
    ----------
    genes
        (1, G, d).
    token
        (B, d).
    rows_per_chunk
        Spot-gene rows at a time; all activations of a chunk are in memory while its gradients are
        computed.

    Returns
    -------
    Tensor
        (B, G, d).
    """
    spots = max(1, rows_per_chunk // genes.shape[1])
    blocks = stack.blocks()
    if not blocks or not _is_additive(blocks[0][0], stack.training):
        chunks = torch.split(token, spots)
        return torch.cat([activation_checkpoint(stack, stack, genes, t) for t in chunks])
    first, feed = blocks[0]
    update: Tensor = first.out(first.value(first.norm(token)))
    by_gene, by_spot, constant = _factorize_expansion(feed, genes[0], update)

    def refine_chunk(chunk_token: Tensor, chunk_update: Tensor, hidden: Tensor) -> Tensor:
        x: Tensor = genes + chunk_update[:, None]
        rate = torch.rsqrt(x.var(dim=-1, keepdim=True, correction=0) + feed.norm.eps)
        expanded = torch.addcmul(constant, by_gene + hidden[:, None], rate)
        x = x + feed.dropout(feed.contract(feed.dropout(F.gelu(expanded))))
        for attention, feed_forward in blocks[1:]:
            x = feed_forward(attention(x, chunk_token))
        return x

    inputs = zip(*(torch.split(t, spots) for t in (token, update, by_spot)), strict=True)
    return torch.cat([activation_checkpoint(stack, refine_chunk, *chunk) for chunk in inputs])


def _is_additive(attention: SingleKeyAttention, training: bool) -> bool:
    """Whether the layer's rows are plain sums of a gene's and a spot's vector."""
    dropout = attention.dropout.p if training else 0.0
    return dropout == 0 or isinstance(attention.out, nn.Identity)


def _factorize_expansion(
    feed: FeedForward, genes: Tensor, update: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Write the first layer of a feed-forward on sums g + u as (P_g + Q_u) / sd(g + u) + constant.

    LayerNorm subtracts the mean, which is a sum too, and its scale becomes part of the weight:
    the product is computed for every gene and every spot instead of for every pair.
    """
    weight = feed.expand.weight * feed.norm.weight
    constant = F.linear(feed.norm.bias, feed.expand.weight, feed.expand.bias)
    by_gene, by_spot = (F.linear(v - v.mean(dim=-1, keepdim=True), weight) for v in (genes, update))
    return by_gene, by_spot, constant
