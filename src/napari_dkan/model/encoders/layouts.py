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

State = Mapping[str, Tensor]

_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias|lambda1)")
_EMBEDDED = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_ATTENTION = {"attention.output.dense": "attn.proj"}
_VIT = _ATTENTION | {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_DINOV2 = _ATTENTION | {n: n for n in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")}
_DINOV2 |= {"layer_scale1": "ls1", "layer_scale2": "ls2"}
_APART = [f"attention.attention.{part}" for part in ("query", "key", "value")]

# What of a file belongs to no tile encoder: the head over the class token, a training aid,
# CONCH's text, captions and projection.
_NOT_NEEDED = ("pooler.", "embeddings.mask_token")


def to_timm(layout: str, state: State) -> State:
    """The weights of a file of this layout, named as the network built for it names them.

    A name that is not known stays, so that a strict loader finds it.
    """
    return _LAYOUTS[layout](state)


def _transformers(names: Mapping[str, str]) -> Callable[[State], State]:
    def rename(state: State) -> State:
        made: dict[str, Tensor] = {}
        apart: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            name = name.removeprefix("vit.").removeprefix("dinov2.")
            block = _BLOCK.fullmatch(name)
            if name.startswith(_NOT_NEEDED):
                continue
            if block is None:
                made[_EMBEDDED.get(name, name)] = tensor
            elif block[2] in _APART:
                apart.setdefault(f"blocks.{block[1]}.attn.qkv.{block[3]}", {})[block[2]] = tensor
            elif block[2] in names:
                kind = "gamma" if block[3] == "lambda1" else block[3]
                made[f"blocks.{block[1]}.{names[block[2]]}.{kind}"] = tensor
            else:
                made[name] = tensor
        for name, parts in apart.items():
            if len(parts) == len(_APART):
                made[name] = torch.cat([parts[part] for part in _APART])
        return made

    return rename


def _conch(state: State) -> State:
    inside = ("visual.trunk.", "visual.attn_pool_contrast.", "visual.ln_contrast.")
    return {n.removeprefix("visual."): t for n, t in state.items() if n.startswith(inside)}


_LAYOUTS: dict[str, Callable[[State], State]] = {
    "timm": lambda state: state,
    "vit": _transformers(_VIT),
    "dinov2": _transformers(_DINOV2),
    "conch": _conch,
}
