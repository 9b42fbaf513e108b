"""Weights that other libraries named, under the names that timm gives them.

`transformers` keeps queries, keys and values apart where timm has them in one matrix, in this
order; CONCH's file holds a text tower beside its image tower. Only names and that joining differ:
the numbers stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

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
