"""Import published DKAN checkpoints: Lightning file, gene list and gene features."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError, SpotsError
from ...expression.label_scale import LabelScale
from ...expression.panel import Panel
from ..encoders import resolve_encoder_spec
from ..encoders.encoder_spec import EXTERNAL_ENCODER, EncoderSpec
from ..gene_list_file import read_gene_list
from ..methods.network_builder import build_network
from ..network.dkan_config import DKANConfig
from ..network.network_config import StackConfig
from ..tensor_files import read_torch_file, require_within_file_size
from .checkpoint_file import Checkpoint, save_checkpoint
from .checkpoint_header import PatchGeometry

# Suffix of the published hyper-parameters of a stack -> field of DKANConfig.
_STACK_FIELDS = {
    "1": "fusion",
    "2": "global_",
    "3": "neighbor",
    "_img": "image",
    "_exp": "expression",
    "_text": "text",
}

# Prefix of a published tensor name -> prefix of the name here; the longest match counts.
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

# Parts of names of wrapped networks: DistributedDataParallel, torch.compile, Lightning, FSDP.
_INNER_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_WRAPPERS = ("model", "module", "_forward_module", *_INNER_WRAPPERS)

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
    """Translate published hyper-parameters; entries about training are ignored.

    Heads and ratios are in the hyper-parameters only. The kernel size is that of the tensor.
    Raises CheckpointError if an entry is missing or out of range.
    """

    def get(name: str, default: Any = None) -> Any:
        value = parameters.get(name, default)
        if value is None:
            raise CheckpointError(f"the hyper-parameters lack {name!r}")
        return value

    stacks = {
        field: StackConfig(
            depth=get(f"depth{key}"),
            heads=get(f"num_heads{key}"),
            ratio=get(f"mlp_ratio{key}"),
            dropout=float(get(f"dropout{key}", 0.1)),
        )
        for key, field in _STACK_FIELDS.items()
    }
    grid = get("res_neighbor", (5, 5))
    grid = tuple(grid) if isinstance(grid, (list, tuple)) else (grid, grid)
    if len(grid) != 2 or grid[0] != grid[1]:
        raise CheckpointError(f"the neighbour grid {grid!r:.40} is not a square")
    trunk = get("target_encoder_name", "resnet18")
    if trunk != "resnet18":
        raise CheckpointError(f"the target trunk {trunk!r:.40} is not resnet18")
    kernel = state.get("global_encoder.pos_layer.proj1.weight")
    if kernel is None:
        raise CheckpointError("the tensor global_encoder.pos_layer.proj1.weight is missing")
    return DKANConfig(
        genes=get("num_genes"),
        dim=get("emb_dim"),
        text_dim=text_dim,
        trunk=trunk,
        trunk_dim=get("emb_dim_target", 512),
        grid=grid[0],
        kernel=kernel.shape[-1],
        expression_dropout=float(get("dropout_linear_exp", 0.1)),
        members=1,
        standardise=False,
        features=0,
        linear=0,
        **stacks,
    )


def translate_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename published tensors.

    Of the single-key layers, `to_q` and the key half of `to_kv` are omitted, since they have no
    effect (see `attention_blocks.SingleKeyAttention`). Raises CheckpointError for a tensor that
    belongs to no published layer.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        prefix = max((p for p in _PREFIX_MAP if name.startswith(p)), key=len, default=None)
        if prefix is None:
            raise CheckpointError(f"the tensor {name!r:.80} belongs to no published DKAN layer")
        new_prefix, rest = _PREFIX_MAP[prefix], name[len(prefix) :]
        block = _BLOCK_PATTERN.fullmatch(rest)
        if block:
            depth, is_attention, leaf = int(block[1]), block[2] == "0", block[3]
            if prefix == "global_encoder.layer2.":
                depth += 1  # layer 1 is the one before the position encoding
            is_single_key = is_attention and new_prefix in ("image.", "expression.")
            if is_single_key and leaf == "fn.to_q.weight":
                continue
            if is_single_key and leaf == "fn.to_kv.weight":
                rest, tensor = "value.weight", tensor.chunk(2, dim=0)[1]
            else:
                table = _ATTENTION_NAMES if is_attention else _FEED_FORWARD_NAMES
                rest = _translate_block_name(name, leaf, table)
            rest = f"{'attention' if is_attention else 'feed'}.{depth}.{rest}"
        elif name == "global_encoder.pos_layer.proj1.weight" and tensor.ndim == 4:
            tensor = tensor[:, 0]
        renamed[new_prefix + rest] = tensor
    return renamed


def _translate_block_name(name: str, block_name: str, table: dict[str, str]) -> str:
    for published, new in table.items():
        if block_name.startswith(published):
            return new + block_name[len(published) :]
    raise CheckpointError(f"the tensor {name!r:.80} belongs to no published DKAN layer")


UNI_DIMENSION = 1024
LEGACY_ST_PITCH_DIAMETER_UM = 200.0, 100.0  # pitch and diameter of the legacy spot array
PUBLISHED_PATCH_PX = 224
HER2ST_PATCH_UM = 154.112  # 224 px at the 0.688 um/px of the HER2+ slides


def convert_published(
    ckpt: str | Path,
    genes: str | Path,
    gene_features: str | Path,
    out: str | Path,
    *,
    patch_um: float = HER2ST_PATCH_UM,
    spot_pitch_um: float = LEGACY_ST_PITCH_DIAMETER_UM[0],
    spot_diameter_um: float = LEGACY_ST_PITCH_DIAMETER_UM[1],
    encoder: str | None = None,
    label_scale: LabelScale | None = None,
    annotate: Callable[[Panel], Panel] | None = None,
    title: str = "",
    half: bool = False,
) -> Checkpoint:
    """Import a published checkpoint; nothing in the three files is executed.

    Parameters
    ----------
    ckpt
        Lightning checkpoint with `state_dict` and `hyper_parameters`.
    genes
        `.npy` (also an object array) or text file, one gene a line, in network order.
    gene_features
        `.pt` with a (G, d_t) tensor, or a dict with it as `gene_features`.
    out
        Checkpoint file to write.
    patch_um
        Side of a 224 px patch. Published patches are 224 px at level 0 of slides whose pixel size
        the files do not state, so the default is that of HER2+.
    spot_pitch_um, spot_diameter_um
        Of the spot array.
    encoder
        Name for `resolve_encoder_spec`; by default UNI if the width is 1024, else "external", which
        predicts from precomputed features only.
    label_scale
        By default that of the package.
    annotate
        Adds Ensembl ids, names and aliases to the panel.
    title
        Of the card; by default made from the file name.
    half
        See `save_checkpoint`.

    Raises
    ------
    CheckpointError
        Of one sentence with the name of the file, if it is damaged or the files do not fit.
    OutputError
        If the checkpoint cannot be written.
    """
    ckpt, genes, gene_features = Path(ckpt), Path(genes), Path(gene_features)
    parameters, state = _read_lightning_checkpoint(ckpt)
    symbols = read_gene_list(genes)
    features = _read_gene_features(gene_features, symbols)
    if len(features) != len(symbols):
        raise CheckpointError(
            f"{gene_features} has features of {len(features)} genes "
            f"but {genes} lists {len(symbols)}."
        )
    try:
        panel = Panel.from_symbols(symbols)
    except SpotsError as error:
        raise CheckpointError(f"{genes} is not a panel: {error}") from None
    try:
        config = translate_config(parameters, state, features.shape[1])
        if config.genes != len(symbols):
            raise CheckpointError(
                f"it predicts {config.genes} genes but {genes.name} lists {len(symbols)}"
            )
        tensors = {n: _to_contiguous_float(t) for n, t in translate_state_dict(state).items()}
        tensors["gene_features"] = features
        tensors["label_mean"] = torch.zeros(config.genes)
        tensors["label_std"] = torch.ones(config.genes)
        network = build_network(config, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{ckpt} cannot be imported: {str(error).rstrip('.')}.") from None
    checkpoint = Checkpoint(
        network=network,
        panel=annotate(panel) if annotate else panel,
        label_scale=label_scale or LabelScale(),
        patch=PatchGeometry(PUBLISHED_PATCH_PX, patch_um),
        spot_pitch_um=spot_pitch_um,
        spot_diameter_um=spot_diameter_um,
        encoder=_choose_encoder_spec(encoder, config.dim),
        gene_text=f"gene features imported from {gene_features.name}",
        card={
            "title": title or f"{ckpt.stem} (published DKAN)",
            "imported_from": ckpt.name,
            "method": "Zhang et al., AAAI 2026, arXiv 2511.17685",
        },
    )
    return save_checkpoint(out, checkpoint, half=half)


def _read_lightning_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    content = read_torch_file(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    parameters = content.get("hyper_parameters") if isinstance(content, dict) else None
    if isinstance(parameters, Namespace):
        parameters = vars(parameters)
    if not isinstance(state, dict) or not isinstance(parameters, dict):
        raise CheckpointError(
            f"{path} is not a Lightning checkpoint of DKAN: "
            "it needs a state_dict and hyper_parameters."
        )
    if not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items()):
        raise CheckpointError(f"{path} is not a Lightning checkpoint: its state is not tensors.")
    require_within_file_size(path, state.values())
    return {str(k): v for k, v in parameters.items()}, _strip_wrapper_prefixes(state, path)


def _strip_wrapper_prefixes(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Remove what distributed, compiled and other wrappers add to the names of tensors."""
    stripped: dict[str, Tensor] = {}
    for name, tensor in state.items():
        parts = name.split(".")
        n_prefixes = next((i for i, part in enumerate(parts) if part not in _WRAPPERS), len(parts))
        inner = [part for part in parts[n_prefixes:] if part not in _INNER_WRAPPERS]
        short = ".".join(inner)
        if short in stripped:
            raise CheckpointError(
                f"{path} holds the tensor {short:.80} of two networks, {name:.80} is the second; "
                "save the state of one of them."
            )
        stripped[short] = tensor
    return stripped


def _read_gene_features(path: Path, symbols: list[str]) -> Tensor:
    content = read_torch_file(path)
    names = content.get("gene_names") if isinstance(content, dict) else None
    tensor = content.get("gene_features") if isinstance(content, dict) else content
    if not isinstance(tensor, Tensor) or tensor.ndim != 2 or not tensor.is_floating_point():
        raise CheckpointError(f"{path} does not hold a table of gene features (genes x numbers).")
    require_within_file_size(path, [tensor])
    if names is not None and list(names) != symbols:
        raise CheckpointError(
            f"{path} names other genes, or in another order, than the gene list; "
            "give the two files of one data set."
        )
    return _to_contiguous_float(tensor)


def _to_contiguous_float(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.float().contiguous() if tensor.is_floating_point() else tensor.contiguous()


def _choose_encoder_spec(name: str | None, dimension: int) -> EncoderSpec:
    if name is not None:
        return resolve_encoder_spec(name)
    if dimension == UNI_DIMENSION:
        return resolve_encoder_spec("uni")
    return EncoderSpec(EXTERNAL_ENCODER, dimension=dimension)
