"""Build timm networks from published weights.

Weights with the names of `transformers` or CONCH are renamed to timm's names first.
`transformers` stores queries, keys and values separately where timm has one matrix; CONCH's file
also holds a text tower. The values do not change.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ...errors import EncoderError
from .encoder_catalog import PUBLISHED_ENCODERS, EncoderWeightsInfo, create_weights_info
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

# Tensors of a file that are not part of the tile encoder: the head on the class token and the
# mask token of training.
_IGNORED_PREFIXES = ("pooler.", "embeddings.mask_token")


def _rename_transformers(names: Mapping[str, str], state: StateDict) -> StateDict:
    renamed: dict[str, Tensor] = {}
    qkv: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        name = name.removeprefix("vit.").removeprefix("dinov2.")
        block = _TRANSFORMERS_BLOCK.fullmatch(name)
        if name.startswith(_IGNORED_PREFIXES):
            continue
        if block is None:
            renamed[_TRANSFORMERS_NAMES.get(name, name)] = tensor
        elif block[2] in _QKV_NAMES:
            qkv.setdefault(f"blocks.{block[1]}.attn.qkv.{block[3]}", {})[block[2]] = tensor
        elif block[2] in names:
            kind = "gamma" if block[3] == "lambda1" else block[3]
            renamed[f"blocks.{block[1]}.{names[block[2]]}.{kind}"] = tensor
        else:
            renamed[name] = tensor
    for name, parts in qkv.items():
        if len(parts) == len(_QKV_NAMES):
            renamed[name] = torch.cat([parts[part] for part in _QKV_NAMES])
    return renamed


def _rename_conch(state: StateDict) -> StateDict:
    prefixes = ("visual.trunk.", "visual.attn_pool_contrast.", "visual.ln_contrast.")
    return {n.removeprefix("visual."): t for n, t in state.items() if n.startswith(prefixes)}


# By weight layout. A name that is not known is unchanged, so that a strict loader finds it.
_CONVERTERS: dict[str, Callable[[StateDict], StateDict]] = {
    "timm": lambda state: state,
    "vit": partial(_rename_transformers, _VIT_NAMES),
    "dinov2": partial(_rename_transformers, _DINOV2_NAMES),
    "conch": _rename_conch,
}


CONCH_WIDTH, CONCH_HEADS = 512, 8


class AttentionPool(nn.Module):
    """Pool tokens (B, T, channels) to (B, width) by attention of one learned query.

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
        keys = self.ln_k(tokens)
        query = self.ln_q(self.query).expand(len(tokens), -1, -1)
        pooled: Tensor = self.attn(query, keys, keys, need_weights=False)[0]
        return pooled[:, 0]


class ConchImageTower(nn.Module):
    """CONCH's image encoder: normalised tiles (B, 3, px, px) -> (B, width).

    The features are those before the projection to the space shared with text. Submodules have
    the names of the published weights, without ``visual.``.

    Parameters
    ----------
    trunk
        A timm ViT; all of its tokens are pooled, the class token included.
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
    """How to build a network: a timm architecture with its arguments, and the source of weights.

    Attributes
    ----------
    options
        Arguments of `timm.create_model`.
    pretrained
        timm's `pretrained_cfg`.
    repository, filename
        Of the weights on the hub; "" if they are not published there, None for the usual file
        names.
    weight_layout
        See `PublishedEncoder`.
    """

    name: str
    architecture: str
    options: dict[str, Any] = field(default_factory=dict)
    pretrained: dict[str, Any] = field(default_factory=dict)
    repository: str = ""
    filename: str | None = None
    weight_layout: str = "timm"


def resolve_timm_model(name: str, revision: str = "", allow_network: bool = False) -> TimmModelSpec:
    """Find out how to build an encoder: from the catalogue, timm, or the hub's description.

    Parameters
    ----------
    name
        Of the catalogue, of a timm model, or ``hf-hub:owner/model``.
    revision
        Hub commit or tag, "" for the newest.
    allow_network
        Whether the hub may be asked for a `hf-hub:` name whose description is neither in the
        catalogue nor in the cache.

    Raises
    ------
    EncoderError
        If there is no such encoder.
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
        hub_config = read_hub_config(hub[1], revision or None, allow_network)
        if hub_config is None:
            info = create_weights_info(EncoderSpec(name, revision), hub[1], "", None)
            raise MissingWeightsError(info, revision)
        architecture = hub_config["architecture"]
        _require_architecture(architecture)
        options, pretrained = (
            value if isinstance(value := hub_config.get(key), dict) else {}
            for key in ("model_args", "pretrained_cfg")
        )
        return TimmModelSpec(name, architecture, options, pretrained, hub[1])
    _require_architecture(name)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    pretrained = config.to_dict() if config else {}
    repository = str(pretrained.get("hf_hub_id") or "")
    return TimmModelSpec(name, name, {}, pretrained, repository, pretrained.get("hf_hub_filename"))


def require_published(model_spec: TimmModelSpec) -> None:
    """Raise EncoderError if no weights of a network are published on the hub."""
    if not model_spec.repository:
        raise EncoderError(
            f"No weights of {model_spec.name} are published on the hub; give a local weights file."
        )


def find_published_weights(model_spec: TimmModelSpec, revision: str = "") -> Path:
    """Find the published weights of a network among the downloaded files.

    Nothing is downloaded here: licence, access and size have to be shown first, as
    `napari-dkan encoders get` and the panel do.

    Raises
    ------
    EncoderError
        If no weights are published, or they are not downloaded.
    """
    require_published(model_spec)
    name, repository = model_spec.name, model_spec.repository
    cached = find_cached_weights(repository, model_spec.filename, revision or None)
    if cached is None:
        from_timm = not name.startswith("hf-hub:")
        licence = str(model_spec.pretrained.get("license") or "") if from_timm else ""
        info = create_weights_info(EncoderSpec(name, revision), repository, licence, None)
        raise MissingWeightsError(info, revision)
    return cached


class MissingWeightsError(EncoderError):
    """Published weights are not downloaded; the message describes them and how to get them."""

    def __init__(self, info: EncoderWeightsInfo, revision: str) -> None:
        option = f" --revision {revision}" if revision else ""
        super().__init__(
            f"The weights of this encoder are not on this machine. {info.summary} Get them with "
            f"`napari-dkan encoders get {info.short_name}{option}`, or give a local weights file."
        )


def create_network(model_spec: TimmModelSpec, weights: Path | None, **options: Any) -> nn.Module:
    """Build a network without classifier.

    Parameters
    ----------
    weights
        File to load, None for random weights.
    options
        Further arguments of `timm.create_model`.

    Raises
    ------
    EncoderError
        If the weights do not fit or timm cannot build the network.
    """
    if weights is None:
        return _create_timm_model(model_spec, options)
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in _CONVERTERS[model_spec.weight_layout](read_weights(weights)).items()
    }
    # Names and shapes are compared before anything is allocated, and drawing a billion random
    # numbers takes long.
    with torch.device("meta"):
        net = _create_timm_model(model_spec, options)
    if not _load_weights(net, state):
        raise EncoderError(
            f"{weights} does not hold weights of {model_spec.name}; give the file that belongs "
            "to it."
        )
    if any(t.is_meta for t in (*net.parameters(), *net.buffers())):  # constants that no file has
        net = _create_timm_model(model_spec, options)
        _load_weights(net, state)
    return net


def _create_timm_model(model_spec: TimmModelSpec, options: Mapping[str, Any]) -> nn.Module:
    try:
        net: nn.Module = timm.create_model(
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


def _load_weights(net: nn.Module, state: dict[str, Tensor]) -> bool:
    """Load every weight of a network; return whether the file belongs to that network.

    timm's own loader is lenient if there is no classifier: it would leave random weights where a
    file lacks some. Here only a classifier may be unexpected.
    """
    adapt = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    try:
        if adapt is not None:  # older names, another grid of positions
            state = adapt(dict(state), net)
        missing, unexpected = net.load_state_dict(state, strict=False, assign=True)
    except Exception:  # timm's adapting code raises any error for weights that do not fit
        return False
    config: Any = getattr(net, "pretrained_cfg", {})
    classifier = config.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    allowed = (*heads, "head", "fc", "classifier", "mask_token")
    return not missing and all(name.startswith(allowed) for name in unexpected)


def _require_architecture(name: str) -> None:
    # timm also follows addresses of hubs and folders. The name may come from an untrusted file,
    # so it must be a plain one.
    if not re.fullmatch(r"[A-Za-z0-9_.]{1,80}", name) or not timm.is_model(name.split(".")[0]):
        raise EncoderError(
            f"There is no tile encoder named {name!r:.90}; use a timm model's name or "
            "hf-hub:owner/model."
        )
