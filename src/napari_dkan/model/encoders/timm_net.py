"""Building timm networks, with weights that were read as data."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from ...errors import EncoderError
from .known import KNOWN
from .weights import hub_config, hub_weights, read_weights

_PART = r"[A-Za-z0-9]\w*(?:[.-]\w+)*"
_HUB = re.compile(f"hf-hub:({_PART}/{_PART})")


@dataclass(frozen=True)
class Plan:
    """How to build a network: an architecture of timm with its arguments, and whose weights.

    repository, filename : where the hub keeps its weights, "" for nowhere.
    """

    name: str
    architecture: str
    options: dict[str, Any] = field(default_factory=dict)
    pretrained: dict[str, Any] = field(default_factory=dict)
    repository: str = ""
    filename: str | None = None


def plan(name: str, revision: str = "") -> Plan:
    """What an encoder's name means: a known one, timm's own, or the hub's.

    Only an unknown `hf-hub:` name asks the hub. Raises EncoderError when there is none.
    """
    hub = _HUB.fullmatch(name)
    if name in KNOWN and hub:
        known = KNOWN[name]
        options = dict(known.options)
        if known.swiglu:
            options |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
        return Plan(name, known.architecture, options, {}, hub[1])
    if hub:
        stated_by_hub = hub_config(hub[1], revision or None)
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
    """The file of a plan's published weights. Raises EncoderError saying what to do."""
    if not plan.repository:
        raise EncoderError(
            f"No weights of {plan.name} are published on the hub; give a local weights file."
        )
    return hub_weights(plan.repository, plan.filename, revision or None)


def create(plan: Plan, weights: Path | None, **options: Any) -> nn.Module:
    """The network of a plan, without classifier; random weights where none are given.

    Raises EncoderError when the weights do not fit or timm cannot build it.
    """
    try:
        net = timm.create_model(
            plan.architecture, pretrained=False, num_classes=0, **plan.options, **options
        )
    except Exception as error:  # the hub's arguments may be of any kind
        raise EncoderError(
            f"The encoder {plan.name} cannot be built by timm {timm.__version__} "
            f"({type(error).__name__}); check its name or update timm."
        ) from None
    if weights is not None and not _fill(net, read_weights(weights)):
        raise EncoderError(
            f"{weights} does not hold weights of {plan.name}; give the file that belongs to it."
        )
    return net


def _fill(net: Any, state: dict[str, Tensor]) -> bool:
    """Load every weight of the network; whether the file was that network's.

    timm's own loader is lenient where the classifier is left out: it would keep random
    weights for whatever a file lacks. Here only a classifier may be left over.
    """
    adapt = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    try:
        if adapt is not None:  # older names, another grid of positions
            state = adapt(state, net)
        missing, surplus = net.load_state_dict(state, strict=False)
    except Exception:  # what does not fit fails in timm's adapting code in any way
        return False
    stated = net.pretrained_cfg.get("classifier") or ()
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
