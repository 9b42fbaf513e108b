"""Published layer names and hyper-parameters, translated to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from .config import DKANConfig, StackConfig

# Published stack number or name -> the field of DKANConfig.
_STACK_FIELDS = {
    "1": "fusion",
    "2": "global_",
    "3": "neighbor",
    "_img": "image",
    "_exp": "expression",
    "_text": "text",
}

# Beginning of a published name -> beginning of ours; the longest match counts.
_PREFIX_MAP = {
    "target_encoder.0.": "trunk.net.conv1.",
    "target_encoder.1.": "trunk.net.bn1.",
    "target_encoder.4.": "trunk.net.layer1.",
    "target_encoder.5.": "trunk.net.layer2.",
    "target_encoder.6.": "trunk.net.layer3.",
    "target_encoder.7.": "trunk.net.layer4.",
    "target_transform.": "target.",
    "neighbor_encoder.layer.": "neighbor.",
    "neighbor_encoder.norm.": "neighbor_norm.",
    "global_encoder.pos_layer.proj1.": "global_encoder.position.",
    "global_encoder.layer1.": "global_encoder.layers.",
    "global_encoder.layer2.": "global_encoder.layers.",
    "global_encoder.norm.": "global_encoder.norm.",
    "fusion_encoder.fusion_layer.": "fusion.",
    "fusion_encoder.norm.": "fusion_norm.",
    "text_encoder.": "text.",
    "text_fc.": "text_fit.",
    "img_fusion_encoder.": "image.",
    "exp_fusion_encoder.": "expression.",
    "exp_encoder.projection.": "expression_encoder.project.",
    "exp_encoder.fc.": "expression_encoder.refine.",
    "exp_encoder.layer_norm.": "expression_encoder.norm.",
    "fc_final_img.": "head.",
    "fc.": "head_fused.",
    "fc_target.": "head_target.",
    "fc_neighbor.": "head_neighbor.",
    "fc_global.": "head_global.",
}

# Inside a block: `layers.<depth>.0` is its attention and `layers.<depth>.1` its feed-forward.
_ATTENTION_NAMES = {
    "norm.": "norm.",
    "fn.to_qkv.": "qkv.",
    "fn.to_q.": "query.",
    "fn.to_kv.": "key_value.",
    "fn.to_out.0.": "out.",
    "fn.attention_biases": "bias.weight",
}
_FEED_FORWARD_NAMES = {"norm.": "norm.", "fn.net.0.": "expand.", "fn.net.3.": "contract."}
_BLOCK_PATTERN = re.compile(r"layers\.(\d+)\.([01])\.(.+)")


def translate_config(
    parameters: Mapping[str, Any], state: Mapping[str, Tensor], text_dim: int
) -> DKANConfig:
    """Published hyper-parameters -> DKANConfig; entries about training are ignored.

    Heads and ratios are in the hyper-parameters only; sizes are taken from the
    tensors where both tell. Raises CheckpointError when one is missing or absurd.
    """

    def value(name: str, default: Any = None) -> Any:
        found = parameters.get(name, default)
        if found is None:
            raise CheckpointError(f"the hyper-parameters lack {name!r}")
        return found

    stacks = {
        field: StackConfig(
            depth=value(f"depth{key}"),
            heads=value(f"num_heads{key}"),
            ratio=value(f"mlp_ratio{key}"),
            dropout=float(value(f"dropout{key}", 0.1)),
        )
        for key, field in _STACK_FIELDS.items()
    }
    grid = value("res_neighbor", (5, 5))
    grid = tuple(grid) if isinstance(grid, (list, tuple)) else (grid, grid)
    if len(grid) != 2 or grid[0] != grid[1]:
        raise CheckpointError(f"the neighbour grid {grid!r:.40} is not a square")
    trunk = value("target_encoder_name", "resnet18")
    if trunk != "resnet18":
        raise CheckpointError(f"the target trunk {trunk!r:.40} is not resnet18")
    kernel = state.get("global_encoder.pos_layer.proj1.weight")
    if kernel is None:
        raise CheckpointError("the tensor global_encoder.pos_layer.proj1.weight is missing")
    return DKANConfig(
        genes=value("num_genes"),
        dim=value("emb_dim"),
        text_dim=text_dim,
        trunk=trunk,
        trunk_dim=value("emb_dim_target", 512),
        grid=grid[0],
        kernel=kernel.shape[-1],
        expression_dropout=float(value("dropout_linear_exp", 0.1)),
        members=1,
        standardise=False,
        **stacks,
    )


def translate_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors under our names.

    The single-key layers keep only what has an effect: `to_q` and the key half of
    `to_kv` are dropped (see `layers.SingleKeyAttention`). Raises CheckpointError
    for a tensor that belongs to no published layer.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        prefix = max((p for p in _PREFIX_MAP if name.startswith(p)), key=len, default=None)
        if prefix is None:
            raise CheckpointError(f"the tensor {name!r:.80} belongs to no published DKAN layer")
        ours, rest = _PREFIX_MAP[prefix], name[len(prefix) :]
        block = _BLOCK_PATTERN.fullmatch(rest)
        if block:
            depth, part, leaf = int(block[1]), block[2], block[3]
            if prefix == "global_encoder.layer2.":
                depth += 1  # layer 1 is the one before the position encoding
            if ours in ("image.", "expression.") and part == "0":
                if leaf == "fn.to_q.weight":
                    continue
                if leaf == "fn.to_kv.weight":
                    rest, tensor = "value.weight", tensor.chunk(2, dim=0)[1]
                else:
                    rest = _translate_block_name(name, leaf, _ATTENTION_NAMES)
            else:
                rest = _translate_block_name(name, leaf, _ATTENTION_NAMES if part == "0" else _FEED_FORWARD_NAMES)
            rest = f"{'attention' if part == '0' else 'feed'}.{depth}.{rest}"
        elif name == "global_encoder.pos_layer.proj1.weight" and tensor.ndim == 4:
            tensor = tensor[:, 0]
        out[ours + rest] = tensor
    return out


def _translate_block_name(name: str, block_name: str, table: dict[str, str]) -> str:
    for theirs, ours in table.items():
        if block_name.startswith(theirs):
            return ours + block_name[len(theirs) :]
    raise CheckpointError(f"the tensor {name!r:.80} belongs to no published DKAN layer")
