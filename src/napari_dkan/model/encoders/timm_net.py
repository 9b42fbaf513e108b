"""Building timm networks, with weights that were read as data."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ...errors import EncoderError
from .conch import ConchTower
from .known import KNOWN
from .layouts import to_timm
from .offer import offer_of
from .protocol import EncoderSpec
from .weights import cached_weights, hub_config, read_weights

_PART = r"[A-Za-z0-9]\w*(?:[.-]\w+)*"
_HUB = re.compile(f"hf-hub:({_PART}/{_PART})")


@dataclass(frozen=True)
class Plan:
    """How to build a network: an architecture of timm with its arguments, and whose weights.

    repository, filename : where the hub keeps its weights, "" for nowhere.
    layout : who named the weights, see `known.KnownEncoder`.
    """

    name: str
    architecture: str
    options: dict[str, Any] = field(default_factory=dict)
    pretrained: dict[str, Any] = field(default_factory=dict)
    repository: str = ""
    filename: str | None = None
    layout: str = "timm"


def plan(name: str, revision: str = "", ask: bool = False) -> Plan:
    """What an encoder's name means: a known one, timm's own, or the hub's.

    ask : whether the hub may be asked for an unknown `hf-hub:` name that was not met before.
    Raises EncoderError when there is none.
    """
    hub = _HUB.fullmatch(name)
    if name in KNOWN and hub:
        known = KNOWN[name]
        options = dict(known.options)
        if known.swiglu:
            options |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
        return Plan(name, known.architecture, options, {}, hub[1], layout=known.layout)
    if hub:
        stated_by_hub = hub_config(hub[1], revision or None, ask)
        if stated_by_hub is None:
            raise MissingWeights(EncoderSpec(name, revision))
        architecture = stated_by_hub["architecture"]
        _check_architecture(architecture)
        arguments, stated = (
            found if isinstance(found := stated_by_hub.get(key), dict) else {}
            for key in ("model_args", "pretrained_cfg")
        )
        return Plan(name, architecture, arguments, stated, hub[1])
    _check_architecture(name)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    pretrained = config.to_dict() if config else {}
    repository = str(pretrained.get("hf_hub_id") or "")
    return Plan(name, name, {}, pretrained, repository, pretrained.get("hf_hub_filename"))


def published_weights(plan: Plan, revision: str = "") -> Path:
    """The file of a plan's published weights, which has been downloaded before.

    Nothing is downloaded here: licence, access and size are to be stated first, as
    `napari-dkan encoders get` and the panel do. Raises EncoderError saying so.
    """
    if not plan.repository:
        raise EncoderError(
            f"No weights of {plan.name} are published on the hub; give a local weights file."
        )
    here = cached_weights(plan.repository, plan.filename, revision or None)
    if here is None:
        raise MissingWeights(EncoderSpec(plan.name, revision))
    return here


class MissingWeights(EncoderError):
    """Published weights are not on this machine; the message is what they are and the way there."""

    def __init__(self, spec: EncoderSpec) -> None:
        found = offer_of(spec)
        of = f" --revision {spec.revision}" if spec.revision else ""
        super().__init__(
            f"The weights of this encoder are not on this machine. {found.sentence} Get them with "
            f"`napari-dkan encoders get {found.short}{of}`, or give a local weights file."
        )


def create(plan: Plan, weights: Path | None, **options: Any) -> nn.Module:
    """The network of a plan, without classifier; random weights where none are given.

    Raises EncoderError when the weights do not fit or timm cannot build it.
    """
    if weights is None:
        return _built(plan, options)
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in to_timm(plan.layout, read_weights(weights)).items()
    }
    # Compared before anything is allocated; and drawing a billion random numbers takes a while.
    with torch.device("meta"):
        net = _built(plan, options)
    if not _fill(net, state):
        raise EncoderError(
            f"{weights} does not hold weights of {plan.name}; give the file that belongs to it."
        )
    if any(t.is_meta for t in (*net.parameters(), *net.buffers())):  # what no file holds
        net = _built(plan, options)
        _fill(net, state)
    return net


def _built(plan: Plan, options: Mapping[str, Any]) -> Any:
    try:
        net = timm.create_model(
            plan.architecture, pretrained=False, num_classes=0, **plan.options, **options
        )
    except Exception as error:  # the hub's arguments may be of any kind
        raise EncoderError(
            f"The encoder {plan.name} cannot be built by timm {timm.__version__} "
            f"({type(error).__name__}); check its name or update timm."
        ) from None
    return ConchTower(net) if plan.layout == "conch" else net


def _fill(net: Any, state: dict[str, Tensor]) -> bool:
    """Take every weight of the network from a file's; whether the file was that network's.

    timm's own loader is lenient where the classifier is left out: it would keep random
    weights for whatever a file lacks. Here only a classifier may be left over.
    """
    adapt = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    try:
        if adapt is not None:  # older names, another grid of positions
            state = adapt(dict(state), net)
        missing, surplus = net.load_state_dict(state, strict=False, assign=True)
    except Exception:  # what does not fit fails in timm's adapting code in any way
        return False
    stated = getattr(net, "pretrained_cfg", {}).get("classifier") or ()
    heads = (*((stated,) if isinstance(stated, str) else stated), "head", "fc", "classifier")
    return not missing and all(n.startswith((*heads, "mask_token")) for n in surplus)


def _check_architecture(name: str) -> None:
    # timm also follows addresses of hubs and folders; a name may come from a file that
    # somebody else wrote, so it must be a plain one.
    if not re.fullmatch(r"[A-Za-z0-9_.]{1,80}", name) or not timm.is_model(name.split(".")[0]):
        raise EncoderError(
            f"There is no tile encoder named {name!r:.90}; use a timm model's name or "
            "hf-hub:owner/model."
        )
