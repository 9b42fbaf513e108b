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
from ...model.network.ensemble import Ensemble, combine_members
from ..data.measured_section import match_panel_columns

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class AddedGenes:
    """checkpoint : with a panel and a network of more genes, K of them new, at the end.

    features : (K, d_t) of the new ones. not_measured : genes of the file that no section measures.
    """

    checkpoint: Checkpoint
    symbols: tuple[str, ...] = ()
    features: Tensor | None = None
    unmeasured_symbols: tuple[str, ...] = ()


def add_genes(
    checkpoint: Checkpoint, gene_file: Path | None, sections: Sequence[AnnData]
) -> AddedGenes:
    """With the genes of a gene file that every section measures; as it is without a file.

    A new gene starts as its text places it; its level comes with the first spots. Raises
    SpotsError when no gene is new and measured, or the checkpoint cannot place genes by text.
    """
    if gene_file is None:
        return AddedGenes(checkpoint)
    found = load_zero_shot_genes(checkpoint, gene_file, None, allow_unproven=True)
    asked = Panel(found.genes)
    columns = [match_panel_columns(asked, data) for data in sections]
    there = [all(c[i] is not None for c in columns) for i in range(len(asked))]
    if not any(there):
        raise SpotsError(
            f"{gene_file} has no gene that is new to the panel and measured in every section; "
            "leave --new-genes out."
        )
    rows = [i for i, t in enumerate(there) if t]
    genes = tuple(asked.genes[i] for i in rows)
    features = found.text_features[rows]
    # what the card and the reference say is of the old panel
    made = replace(
        checkpoint,
        network=_extend_network(checkpoint.network, features),
        panel=Panel((*checkpoint.panel.genes, *genes)),
        reference=None,
    )
    missing = tuple(g.symbol for g, t in zip(asked.genes, there, strict=True) if not t)
    return AddedGenes(made, tuple(g.symbol for g in genes), features, missing)


def _extend_network(network: DKAN | Ensemble, features: Tensor) -> DKAN | Ensemble:
    members = network.member_networks if isinstance(network, Ensemble) else [network]
    return combine_members([_extend_member(m, features) for m in members]).eval()


def _extend_member(old: DKAN, features: Tensor) -> DKAN:
    """The same weights; those of a gene are the panel's mean for a new one."""
    more, given = len(features), old.state_dict()
    made = DKAN(
        replace(old.config, genes=old.config.genes + more),
        torch.cat([old.gene_features, features.to(old.device)]),
    )
    wanted = made.state_dict()
    for name, tensor in given.items():
        if name == "gene_features":
            continue
        if tensor.shape != wanted[name].shape:  # (G, ...), or (d, G) where expression comes in
            axis = next(i for i, n in enumerate(tensor.shape) if n != wanted[name].shape[i])
            shape = list(tensor.shape)
            shape[axis] = more
            tensor = torch.cat([tensor, tensor.mean(dim=axis, keepdim=True).expand(shape)], axis)
        wanted[name] = tensor
    made.load_state_dict(wanted)
    return made.eval()
