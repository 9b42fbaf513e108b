"""Optimise a network for inference: batch norm folding and traced trunks.

In eval mode a batch norm is a scale and a shift of each channel, which can be folded into the
preceding convolution (Jacob et al. 2018, arXiv 1712.05877, section 3.2). This saves half of a
small trunk's time.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from threading import Lock
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .branch_encoders import find_trunk
from .ensemble import Ensemble, list_members
from .multi_scale_network import MultiScaleNetwork
from .network_interface import ExpressionNetwork

MAX_RELATIVE_ERROR = 1e-3  # of the largest token; a wrong fold differs far more


def optimize_for_inference(
    network: ExpressionNetwork, device: torch.device, px: int
) -> ExpressionNetwork:
    """Copy a network for inference, in eval mode on a device.

    The network itself does not change. On the same device the copy shares its weights, except
    those of the trunk.

    Parameters
    ----------
    px
        Side of a target patch in pixels.
    """
    optimized = (
        _copy_sharing_weights(network)
        if device == network.device
        else copy.deepcopy(network).to(device)
    )
    for member in list_members(optimized):
        trunk = find_trunk(member)
        if trunk is None:
            continue
        member.trunk = _copy_sharing_weights(trunk)
        member.trunk.net = _LazyFoldedTrunk(member.trunk.net.eval(), px)
    return optimized.eval()


class _LazyFoldedTrunk(nn.Module):
    """A timm model that is folded on first use; `trace` makes single patches fast."""

    def __init__(self, net: nn.Module, px: int) -> None:
        super().__init__()
        self.num_prefix_tokens: int = getattr(net, "num_prefix_tokens", 0)
        self.net, self._px, self._original, self._lock = net, px, net, Lock()

    def forward_features(self, x: Tensor) -> Tensor:
        with self._lock:
            if self.net is self._original:
                self.net = _get_or_transform_trunk(self._original, self._px, fold_batch_norms)
        return self.net.forward_features(x)  # type: ignore[no-any-return, operator]

    def trace(self) -> None:
        """Trace the folded model, in about 0.25 s; the folded model is used until then.

        Tracing has no effect on a GPU, which does not wait for Python.
        """
        if next(self._original.parameters()).device.type == "cpu":
            self.net = _get_or_transform_trunk(
                self._original, self._px, lambda net, px: trace_trunk(fold_batch_norms(net, px), px)
            )


def trace_for_latency(network: ExpressionNetwork) -> Iterator[None]:
    """Trace the trunks of a network from `optimize_for_inference`, for single-spot prediction.

    Yields after each trunk. Large batches do not become faster. A trunk that takes patches of
    several sizes, as of HiFusion, is not traced: what is traced may hold for one size only.
    """
    for member in list_members(network):
        trunk = member.trunk if isinstance(member, MultiScaleNetwork) else None
        if trunk is not None and isinstance(trunk.net, _LazyFoldedTrunk):
            trunk.net.trace()
        yield


ModuleType = TypeVar("ModuleType", bound=nn.Module)
TrunkTransform = Callable[[nn.Module, int], nn.Module]

_trunk_cache: WeakKeyDictionary[nn.Module, tuple[tuple[object, ...], nn.Module]] = (
    WeakKeyDictionary()
)


def _get_or_transform_trunk(net: nn.Module, px: int, transform: TrunkTransform) -> nn.Module:
    """Return the transformed model, from the cache if the weights did not change.

    A traced model is also returned where a folded one is requested.
    """
    weights = net.state_dict(keep_vars=True).values()
    state = (px, *(t._version for t in weights))
    cached = _trunk_cache.get(net)
    if (
        cached is not None
        and cached[0] == state
        and (transform is fold_batch_norms or isinstance(cached[1], _TracedTrunk))
    ):
        return cached[1]
    # Tensors that are created in inference mode cannot be traced.
    with torch.inference_mode(False), torch.no_grad():
        transformed = transform(net, px)
    if transformed is not net:  # a value that refers to its own key is never released
        _trunk_cache[net] = state, transformed
    return transformed


def fold_batch_norms(net: nn.Module, px: int) -> nn.Module:
    """Copy a timm model without the batch norms that follow convolutions.

    If its norms do not follow its convolutions in the order in which the modules are listed, the
    copy computes something else; then the model itself is returned.
    """
    folded = copy.deepcopy(net)
    previous: tuple[str, nn.Conv2d] | None = None
    for name, module in list(folded.named_modules()):
        if isinstance(module, nn.Conv2d):
            previous = (name, module)
        elif isinstance(module, nn.BatchNorm2d) and previous is not None:
            if module.num_features == previous[1].out_channels:
                _replace_submodule(folded, previous[0], fuse_conv_bn_eval(previous[1], module))
                rest = [getattr(module, part) for part in ("drop", "act") if hasattr(module, part)]
                _replace_submodule(folded, name, nn.Sequential(*rest))
            previous = None
    folded = folded.to(memory_format=torch.channels_last)
    return folded if _is_equivalent(net, folded, px) else net


class _FeatureExtractor(nn.Module):
    """A timm model whose forward pass is `forward_features`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.forward_features(x)  # type: ignore[no-any-return, operator]


class _TracedTrunk(nn.Module):
    """A traced trunk: for a single patch Python takes as long as the arithmetic."""

    def __init__(self, net: nn.Module, traced_module: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.num_prefix_tokens: int = getattr(net, "num_prefix_tokens", 0)
        self._traced_module = traced_module

    def forward_features(self, x: Tensor) -> Tensor:
        return self._traced_module(x)  # type: ignore[no-any-return]


def trace_trunk(net: nn.Module, px: int) -> nn.Module:
    """Trace a model, so that no Python runs between its operations.

    Returns the model itself if it cannot be traced.
    """
    example = torch.zeros(2, 3, px, px)
    try:
        # torch warns against tracing for training and export; here it only saves time.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            module = torch.jit.trace(  # type: ignore[no-untyped-call]
                _FeatureExtractor(net).eval(), example, check_trace=False
            )
            traced = _TracedTrunk(net, torch.jit.freeze(module))
            return traced if _is_equivalent(net, traced, px) else net
    except (RuntimeError, AttributeError, NotImplementedError):
        return net


@torch.no_grad()
def _is_equivalent(net: nn.Module, other: nn.Module, px: int) -> bool:
    device = next(net.parameters()).device
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 3, px, px, generator=generator).to(device)
    expected: Tensor = net.forward_features(noise)  # type: ignore[operator]
    actual: Tensor = other.forward_features(noise)  # type: ignore[operator]
    scale = expected.abs().max().clamp_min(1e-6)
    return bool((expected - actual).abs().max() <= MAX_RELATIVE_ERROR * scale)


def _replace_submodule(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(root.get_submodule(parent), attribute, module)


def _copy_sharing_weights(module: ModuleType) -> ModuleType:
    """Copy the tree of modules, down to the members of an ensemble, with the same weights."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    if isinstance(module, Ensemble):
        members = [_copy_sharing_weights(m) for m in module.member_networks]
        copied.members = nn.ModuleList(members)
    return copied
