"""Optimise a network for inference: batch norm folding and traced trunks.

In eval mode a batch norm is a scale and a shift per channel, which the preceding convolution can
apply itself (Jacob et al. 2018, arXiv 1712.05877, section 3.2). This saves half of a small trunk's
time.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .dkan_network import DKAN
from .ensemble import Ensemble

MAX_RELATIVE_ERROR = 1e-3  # of the largest token; a wrong fold is far off


def optimize_for_inference(
    network: DKAN | Ensemble, device: torch.device, px: int
) -> DKAN | Ensemble:
    """A copy in eval mode on the device; on the CPU it shares all weights but the trunk's.

    px : side of a target patch. The network given stays as it is, on its own device.
    """
    made = (
        _copy_sharing_weights(network)
        if device == network.device
        else copy.deepcopy(network).to(device)
    )
    members = made.member_networks if isinstance(made, Ensemble) else [made]
    for member in members:
        member.trunk = _copy_sharing_weights(member.trunk)
        member.trunk.net = _LazyFoldedTrunk(member.trunk.net.eval(), px)
    return made.eval()


class _LazyFoldedTrunk(nn.Module):
    """A timm model that is folded when it is first used; `record` makes single patches quick."""

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
        """Takes a quarter of a second; until it is done the folded model is used."""
        if (
            next(self._original.parameters()).device.type == "cpu"
        ):  # a GPU is not waiting for Python
            self.net = _get_or_transform_trunk(
                self._original, self._px, lambda net, px: trace_trunk(fold_batch_norms(net, px), px)
            )


def trace_for_latency(network: DKAN | Ensemble) -> Iterator[None]:
    """Record the trunks of a network from `for_prediction`, for whoever predicts spot by spot.

    Yields after each. Large batches gain nothing by it.
    """
    for member in network.member_networks if isinstance(network, Ensemble) else [network]:
        net = member.trunk.net
        if isinstance(net, _LazyFoldedTrunk):
            net.trace()
        yield


TrunkTransform = Callable[[nn.Module, int], nn.Module]

_trunk_cache: WeakKeyDictionary[nn.Module, tuple[tuple[object, ...], nn.Module]] = (
    WeakKeyDictionary()
)


def _get_or_transform_trunk(net: nn.Module, px: int, transform: TrunkTransform) -> nn.Module:
    """The model as it is used, made once for as long as its weights stay what they are.

    A recorded one serves where a folded one is asked for.
    """
    weights = net.state_dict(keep_vars=True).values()
    state = (px, *(t._version for t in weights))
    known = _trunk_cache.get(net)
    current = known is not None and known[0] == state
    if (
        known is not None
        and current
        and (transform is fold_batch_norms or isinstance(known[1], _TracedTrunk))
    ):
        return known[1]
    # outside inference mode: what is made there cannot be recorded
    with torch.inference_mode(False), torch.no_grad():
        made = transform(net, px)
    if made is not net:  # which would keep itself alive
        _trunk_cache[net] = state, made
    return made


def fold_batch_norms(net: nn.Module, px: int) -> nn.Module:
    """A copy of a timm model without batch norms after convolutions, where that is the same.

    A model whose norms do not follow its convolutions in the order they are listed comes out
    different; then the model itself is returned.
    """
    made = copy.deepcopy(net)
    before: tuple[str, nn.Conv2d] | None = None
    for name, module in list(made.named_modules()):
        if isinstance(module, nn.Conv2d):
            before = (name, module)
        elif isinstance(module, nn.BatchNorm2d) and before is not None:
            if module.num_features == before[1].out_channels:
                _replace_submodule(made, before[0], fuse_conv_bn_eval(before[1], module))
                rest = [getattr(module, part) for part in ("drop", "act") if hasattr(module, part)]
                _replace_submodule(made, name, nn.Sequential(*rest))
            before = None
    made = made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made if _is_equivalent(net, made, px) else net


class _FeatureExtractor(nn.Module):
    """A timm model whose call gives its features."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.forward_features(x)  # type: ignore[no-any-return, operator]


class _TracedTrunk(nn.Module):
    """A recorded trunk: for a single patch Python takes as long as the arithmetic."""

    def __init__(self, net: nn.Module, recorded: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.num_prefix_tokens: int = getattr(net, "num_prefix_tokens", 0)
        self._traced_module = recorded

    def forward_features(self, x: Tensor) -> Tensor:
        return self._traced_module(x)  # type: ignore[no-any-return]


def trace_trunk(net: nn.Module, px: int) -> nn.Module:
    """The same model without Python between its operations; itself where that cannot be had."""
    probe = torch.zeros(2, 3, px, px)
    try:
        # torch advises against recording for training and export; here it only saves time
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            made = _TracedTrunk(
                net,
                torch.jit.freeze(
                    torch.jit.trace(_FeatureExtractor(net).eval(), probe, check_trace=False)
                ),
            )
            return made if _is_equivalent(net, made, px) else net
    except (RuntimeError, AttributeError, NotImplementedError):
        return net


@torch.no_grad()
def _is_equivalent(net: nn.Module, other: nn.Module, px: int) -> bool:
    device = next(net.parameters()).device
    noise = torch.Generator().manual_seed(0)
    probe = torch.randn(3, 3, px, px, generator=noise).to(device)
    wanted: Tensor = net.forward_features(probe)  # type: ignore[operator]
    found: Tensor = other.forward_features(probe)  # type: ignore[operator]
    return bool(
        (wanted - found).abs().max() <= MAX_RELATIVE_ERROR * wanted.abs().max().clamp_min(1e-6)
    )


def _replace_submodule(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(root.get_submodule(parent), own, module)


def _copy_sharing_weights(module: nn.Module):  # type: ignore[no-untyped-def]
    """Another tree of modules over the same weights, down to the members of an ensemble."""
    made = copy.copy(module)
    made._modules = dict(module._modules)
    if isinstance(module, Ensemble):
        made.members = nn.ModuleList([_copy_sharing_weights(m) for m in module.member_networks])
    return made
