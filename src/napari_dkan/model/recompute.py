"""Passes that keep only what is dear for the backward pass, and do the rest again there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

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
    return checkpoint(function, *given, use_reentrant=False, context_fn=partial(_create_checkpoint_contexts, module))


def _create_checkpoint_contexts(module: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    forward, again = create_selective_checkpoint_contexts(SAVED_OPS)
    return _disable_autocast_cache(forward), _freeze_batch_norm_stats(module, _disable_autocast_cache(again))


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
