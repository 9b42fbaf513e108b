"""Build timm networks from published weights.

Weights named by `transformers` or CONCH are renamed to timm's names first. `transformers` stores
queries, keys and values separately where timm has one matrix; CONCH's file holds a text tower
beside the image tower. The values are not changed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ...errors import EncoderError
from .encoder_catalog import PUBLISHED_ENCODERS, get_weights_info_for_spec
from .encoder_spec import EncoderSpec
from .encoder_weights import find_cached_weights, read_hub_config, read_weights

StateDict = Mapping[str, Tensor]

_TRANSFORMERS_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias|lambda1)")
_TRANSFORMERS_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_ATTENTION_NAMES = {"attention.output.dense": "attn.proj"}
_VIT_NAMES = _ATTENTION_NAMES | {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_DINOV2_NAMES = _ATTENTION_NAMES | {n: n for n in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")}
_DINOV2_NAMES |= {"layer_scale1": "ls1", "layer_scale2": "ls2"}
_QKV_NAMES = [f"attention.attention.{part}" for part in ("query", "key", "value")]

# What of a file belongs to no tile encoder: the head over the class token, a training aid,
# CONCH's text, captions and projection.
_IGNORED_PREFIXES = ("pooler.", "embeddings.mask_token")


def convert_to_timm(layout: str, state: StateDict) -> StateDict:
    """The weights of a file of this layout, named as the network built for it names them.

    A name that is not known stays, so that a strict loader finds it.
    """
    return _CONVERTERS[layout](state)


def _make_transformers_converter(names: Mapping[str, str]) -> Callable[[StateDict], StateDict]:
    def rename(state: StateDict) -> StateDict:
        made: dict[str, Tensor] = {}
        apart: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            name = name.removeprefix("vit.").removeprefix("dinov2.")
            block = _TRANSFORMERS_BLOCK.fullmatch(name)
            if name.startswith(_IGNORED_PREFIXES):
                continue
            if block is None:
                made[_TRANSFORMERS_NAMES.get(name, name)] = tensor
            elif block[2] in _QKV_NAMES:
                apart.setdefault(f"blocks.{block[1]}.attn.qkv.{block[3]}", {})[block[2]] = tensor
            elif block[2] in names:
                kind = "gamma" if block[3] == "lambda1" else block[3]
                made[f"blocks.{block[1]}.{names[block[2]]}.{kind}"] = tensor
            else:
                made[name] = tensor
        for name, parts in apart.items():
            if len(parts) == len(_QKV_NAMES):
                made[name] = torch.cat([parts[part] for part in _QKV_NAMES])
        return made

    return rename


def _convert_conch(state: StateDict) -> StateDict:
    inside = ("visual.trunk.", "visual.attn_pool_contrast.", "visual.ln_contrast.")
    return {n.removeprefix("visual."): t for n, t in state.items() if n.startswith(inside)}


_CONVERTERS: dict[str, Callable[[StateDict], StateDict]] = {
    "timm": lambda state: state,
    "vit": _make_transformers_converter(_VIT_NAMES),
    "dinov2": _make_transformers_converter(_DINOV2_NAMES),
    "conch": _convert_conch,
}


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


_HUB_NAME_PART = r"[A-Za-z0-9]\w*(?:[.-]\w+)*"
_HUB_NAME = re.compile(f"hf-hub:({_HUB_NAME_PART}/{_HUB_NAME_PART})")


@dataclass(frozen=True)
class TimmModelSpec:
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
    weight_layout: str = "timm"


def resolve_timm_model(name: str, revision: str = "", allow_network: bool = False) -> TimmModelSpec:
    """What an encoder's name means: a known one, timm's own, or the hub's.

    ask : whether the hub may be asked for an unknown `hf-hub:` name that was not met before.
    Raises EncoderError when there is none.
    """
    hub = _HUB_NAME.fullmatch(name)
    if name in PUBLISHED_ENCODERS and hub:
        known = PUBLISHED_ENCODERS[name]
        options = dict(known.options)
        if known.swiglu:
            options |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
        return TimmModelSpec(
            name, known.architecture, options, {}, hub[1], weight_layout=known.weight_layout
        )
    if hub:
        stated_by_hub = read_hub_config(hub[1], revision or None, allow_network)
        if stated_by_hub is None:
            raise MissingWeightsError(EncoderSpec(name, revision))
        architecture = stated_by_hub["architecture"]
        _require_architecture(architecture)
        arguments, stated = (
            found if isinstance(found := stated_by_hub.get(key), dict) else {}
            for key in ("model_args", "pretrained_cfg")
        )
        return TimmModelSpec(name, architecture, arguments, stated, hub[1])
    _require_architecture(name)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    pretrained = config.to_dict() if config else {}
    repository = str(pretrained.get("hf_hub_id") or "")
    return TimmModelSpec(name, name, {}, pretrained, repository, pretrained.get("hf_hub_filename"))


def find_published_weights(model_spec: TimmModelSpec, revision: str = "") -> Path:
    """The file of a plan's published weights, which has been downloaded before.

    Nothing is downloaded here: licence, access and size are to be stated first, as
    `napari-dkan encoders get` and the panel do. Raises EncoderError saying so.
    """
    if not model_spec.repository:
        raise EncoderError(
            f"No weights of {model_spec.name} are published on the hub; give a local weights file."
        )
    here = find_cached_weights(model_spec.repository, model_spec.filename, revision or None)
    if here is None:
        raise MissingWeightsError(EncoderSpec(model_spec.name, revision))
    return here


class MissingWeightsError(EncoderError):
    """Published weights are not on this machine; the message is what they are and the way there."""

    def __init__(self, spec: EncoderSpec) -> None:
        found = get_weights_info_for_spec(spec)
        of = f" --revision {spec.revision}" if spec.revision else ""
        super().__init__(
            f"The weights of this encoder are not on this machine. {found.summary} Get them with "
            f"`napari-dkan encoders get {found.short_name}{of}`, or give a local weights file."
        )


def create_network(model_spec: TimmModelSpec, weights: Path | None, **options: Any) -> nn.Module:
    """The network of a plan, without classifier; random weights where none are given.

    Raises EncoderError when the weights do not fit or timm cannot build it.
    """
    if weights is None:
        return _create_timm_model(model_spec, options)
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in convert_to_timm(model_spec.weight_layout, read_weights(weights)).items()
    }
    # Compared before anything is allocated; and drawing a billion random numbers takes a while.
    with torch.device("meta"):
        net = _create_timm_model(model_spec, options)
    if not _load_weights(net, state):
        raise EncoderError(
            f"{weights} does not hold weights of {model_spec.name}; give the file that belongs to it."
        )
    if any(t.is_meta for t in (*net.parameters(), *net.buffers())):  # what no file holds
        net = _create_timm_model(model_spec, options)
        _load_weights(net, state)
    return net


def _create_timm_model(model_spec: TimmModelSpec, options: Mapping[str, Any]) -> Any:
    try:
        net = timm.create_model(
            model_spec.architecture,
            pretrained=False,
            num_classes=0,
            **model_spec.options,
            **options,
        )
    except Exception as error:  # the hub's arguments may be of any kind
        raise EncoderError(
            f"The encoder {model_spec.name} cannot be built by timm {timm.__version__} "
            f"({type(error).__name__}); check its name or update timm."
        ) from None
    return ConchImageTower(net) if model_spec.weight_layout == "conch" else net


def _load_weights(net: Any, state: dict[str, Tensor]) -> bool:
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


def _require_architecture(name: str) -> None:
    # timm also follows addresses of hubs and folders; a name may come from a file that
    # somebody else wrote, so it must be a plain one.
    if not re.fullmatch(r"[A-Za-z0-9_.]{1,80}", name) or not timm.is_model(name.split(".")[0]):
        raise EncoderError(
            f"There is no tile encoder named {name!r:.90}; use a timm model's name or "
            "hf-hub:owner/model."
        )
