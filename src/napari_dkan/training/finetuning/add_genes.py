"""Extend a network by further genes, initialized from their text features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import SpotsError
from ...expression.panel import Panel
from ...inference.zero_shot_genes import load_zero_shot_genes
from ...model.checkpoint.checkpoint_file import Checkpoint
from ...model.network.dkan_network import DKAN
from ...model.network.ensemble import combine_members, get_linear_path, list_dkan_members
from ...model.network.network_interface import ExpressionNetwork
from ..data.measured_section import match_panel_columns

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class AddedGenes:
    """A checkpoint extended by K new genes.

    Attributes
    ----------
    checkpoint
        The checkpoint; its panel and network have the new genes at the end.
    symbols
        Symbols of the new genes.
    features
        (K, d_t) text features of the new genes; None when there are none.
    unmeasured_symbols
        Genes of the file that not every section measures.
    """

    checkpoint: Checkpoint
    symbols: tuple[str, ...] = ()
    features: Tensor | None = None
    unmeasured_symbols: tuple[str, ...] = ()


def add_genes(
    checkpoint: Checkpoint, gene_file: Path | None, sections: Sequence[AnnData]
) -> AddedGenes:
    """Add the genes of a gene file that every section measures; without a file, add none.

    A new gene starts with its text features; its mean and standard deviation are set later, from
    the training spots.

    Raises
    ------
    SpotsError
        When no gene is new and measured, or the checkpoint has no text basis.
    """
    if gene_file is None:
        return AddedGenes(checkpoint)
    new = load_zero_shot_genes(checkpoint, gene_file, None, allow_unproven=True)
    candidates = Panel(new.genes)
    columns = [match_panel_columns(candidates, data) for data in sections]
    is_measured = [all(c[i] is not None for c in columns) for i in range(len(candidates))]
    if not any(is_measured):
        raise SpotsError(
            f"{gene_file} has no gene that is new to the panel and measured in every section; "
            "leave the file out."
        )
    rows = [i for i, measured in enumerate(is_measured) if measured]
    genes = tuple(candidates.genes[i] for i in rows)
    features = new.text_features[rows]
    extended = replace(
        checkpoint,
        network=_extend_network(checkpoint.network, features),
        panel=Panel((*checkpoint.panel.genes, *genes)),
        reference=None,  # it describes the old panel
    )
    unmeasured = tuple(
        gene.symbol
        for gene, measured in zip(candidates.genes, is_measured, strict=True)
        if not measured
    )
    return AddedGenes(extended, tuple(g.symbol for g in genes), features, unmeasured)


def _extend_network(network: ExpressionNetwork, features: Tensor) -> ExpressionNetwork:
    members = [_extend_member(m, features) for m in list_dkan_members(network)]
    path = get_linear_path(network)
    return combine_members(members, None if path is None else path.extend(len(features))).eval()


def _extend_member(old: DKAN, features: Tensor) -> DKAN:
    """Copy a network; weights of a new gene are the means over the panel's genes."""
    n_new, old_state = len(features), old.state_dict()
    extended = DKAN(
        replace(old.config, genes=old.config.genes + n_new),
        torch.cat([old.gene_features, features.to(old.device)]),
    )
    state = extended.state_dict()
    for name, tensor in old_state.items():
        if name == "gene_features":
            continue
        if tensor.shape != state[name].shape:  # (G, ...), or (d, G) of the expression encoder
            axis = next(i for i, n in enumerate(tensor.shape) if n != state[name].shape[i])
            shape = list(tensor.shape)
            shape[axis] = n_new
            tensor = torch.cat([tensor, tensor.mean(dim=axis, keepdim=True).expand(shape)], axis)
        state[name] = tensor
    extended.load_state_dict(state)
    return extended.to(old.device).eval()
