"""Selective activation checkpointing, and its use on the gene rows of a training step.

Exact in value and gradient (dkan-method.md, section 6). A published step has 32,000 gene rows of
1,024 numbers in seven layers, each with a hidden layer of 4,096: 20 GB if all activations are
stored for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from .attention_blocks import FeedForward, SingleKeyTransformer

# Norms, GELU, dropout and sums are cheap to do again.
SAVED_OPS = [
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.convolution.default,
]

T = TypeVar("T")


def activation_checkpoint(module: nn.Module, function: Callable[..., T], *given: object) -> T:
    """``function(*given)`` with the same value and gradients, keeping the products of PRODUCTS.

    net : whose batch norms count the batch once, as if it were not seen again.
    """
    return checkpoint(
        function,
        *given,
        use_reentrant=False,
        context_fn=partial(_create_checkpoint_contexts, module),
    )


def _create_checkpoint_contexts(
    module: nn.Module,
) -> tuple[AbstractContextManager, AbstractContextManager]:
    forward, again = create_selective_checkpoint_contexts(SAVED_OPS)
    return _disable_autocast_cache(forward), _freeze_batch_norm_stats(
        module, _disable_autocast_cache(again)
    )


@contextmanager
def _disable_autocast_cache(context: AbstractContextManager) -> Iterator[None]:
    """Mixed precision otherwise casts a weight the first time only: not the same both times."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with context:
            yield
    finally:
        torch.set_autocast_cache_enabled(before)


@contextmanager
def _freeze_batch_norm_stats(module: nn.Module, context: AbstractContextManager) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [norm.momentum for norm in norms]
    seen = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        with context:
            yield
    finally:
        for norm, momentum, count in zip(norms, before, seen, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def refine_gene_rows(
    stack: SingleKeyTransformer, genes: Tensor, token: Tensor, rows_per_chunk: int
) -> Tensor:
    """What ``stack(genes, token)`` gives, keeping no more than its matrix products.

    genes (1, G, d), token (B, d) -> (B, G, d). Works on about ``rows`` spot-gene rows at a time;
    within such a part everything is there at once while its gradients are computed.
    """
    spots = max(1, rows_per_chunk // genes.shape[1])
    if not _is_first_layer_additive(stack):
        return torch.cat(
            [activation_checkpoint(stack, stack, genes, part) for part in token.split(spots)]
        )
    first, feed = stack.attention[0], stack.feed[0]
    update = first.out(first.value(first.norm(token)))
    by_gene, by_spot, constant = _factorize_expansion(feed, genes[0], update)

    def part(own: Tensor, shift: Tensor, hidden: Tensor) -> Tensor:
        x = genes + shift[:, None]
        rate = torch.rsqrt(x.var(dim=-1, keepdim=True, correction=0) + feed.norm.eps)
        expanded = torch.addcmul(constant, by_gene + hidden[:, None], rate)
        x = x + feed.dropout(feed.contract(feed.dropout(F.gelu(expanded))))
        for attention, layer in zip(stack.attention[1:], stack.feed[1:], strict=True):
            x = layer(attention(x, own))
        return x

    parts = zip(token.split(spots), update.split(spots), by_spot.split(spots), strict=True)
    return torch.cat([activation_checkpoint(stack, part, *given) for given in parts])


def _is_first_layer_additive(stack: SingleKeyTransformer) -> bool:
    """Whether the first layer's rows are plain sums of a gene's and a spot's vector."""
    if not stack.attention:
        return False
    dropout = stack.attention[0].dropout.p if stack.training else 0.0
    return dropout == 0 or isinstance(stack.attention[0].out, torch.nn.Identity)


def _factorize_expansion(
    feed: FeedForward, genes: Tensor, update: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The first layer of a feed-forward on sums g + u, as (P_g + Q_u) / sd(g + u) + constant.

    LayerNorm takes off the mean, which is a sum too, and its scale goes into the weight: the
    product is taken for every gene and for every spot instead of for every pair.
    """
    weight = feed.expand.weight * feed.norm.weight
    constant = F.linear(feed.norm.bias, feed.expand.weight, feed.expand.bias)
    by_gene, by_spot = (F.linear(v - v.mean(dim=-1, keepdim=True), weight) for v in (genes, update))
    return by_gene, by_spot, constant
