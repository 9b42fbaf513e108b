"""Import of a published checkpoint: Lightning file, gene list and gene features -> our file."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, SpotsError
from ..expression.label_scale import LabelScale
from ..expression.panel import Panel
from .assemble import build_network
from .checkpoint import Checkpoint, PatchGeometry, save_checkpoint
from .encoders import EXTERNAL_ENCODER, resolve_encoder_spec
from .encoders.protocol import EncoderSpec
from .genelist import read_gene_list
from .published_names import translate_config, translate_state_dict
from .torchfile import read_torch_file, require_within_file_size

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
    """Import a published checkpoint and write ours; nothing in the three files is executed.

    ckpt : Lightning checkpoint with `state_dict` and `hyper_parameters`.
    genes : `.npy` (also an object array) or text file, one gene a line, in network order.
    gene_features : `.pt` with a (G, d_t) tensor, or a dict holding it as `gene_features`.
    patch_um : side of a 224 px patch; published patches are 224 px at level 0 of slides
        whose pixel size the files do not state, so the default is that of HER2+.
    encoder : name for `spec_of`; without one it is UNI where the width is 1024, else
        "external", which predicts from ready-made features only.
    annotate : adds Ensembl ids, names and aliases to the panel.

    Raises CheckpointError (one sentence naming the file) or OutputError.
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
    # Wrapped or compiled networks put a word before each name.
    state = {n.removeprefix("model.").replace("_orig_mod.", ""): t for n, t in state.items()}
    require_within_file_size(path, state.values())
    return {str(k): v for k, v in parameters.items()}, state


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
