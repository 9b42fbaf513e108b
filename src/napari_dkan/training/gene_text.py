"""Panel and gene text features of a run, from given files or from the data folder."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointError, SpotsError
from ..expression.panel import Panel, annotate_panel_from_folder, read_panel
from ..expression.readers.layouts.her2st_sections import find_dkan_gene_text, find_dkan_panel
from ..inference.gene_file import read_gene_file
from ..model.gene_list_file import read_gene_list
from ..model.tensor_files import read_torch_file
from ..model.text_basis import TextBasis
from .train_settings import TrainSettings


@dataclass(frozen=True)
class GeneTextFeatures:
    """Text features of a panel's genes as the network gets them.

    Attributes
    ----------
    features
        (G, d_t) float32 in panel order.
    source
        Where they come from, in one line.
    basis
        Basis that maps further genes into the same space; None where there is no text.
    """

    features: Tensor
    source: str
    basis: TextBasis | None = None


@dataclass(frozen=True)
class GeneTextEmbeddings:
    """Text embeddings (G, D) of a panel's genes, with their encoder and the file's name."""

    embeddings: Tensor
    encoder: str
    source: str

    def reduce(self, width: int, rows: Sequence[int] | None = None) -> GeneTextFeatures:
        """Project all genes, or some, on the principal axes of these genes.

        The projection preserves the angles between them as far as the width allows; it does not
        depend on expression.
        """
        table = self.embeddings if rows is None else self.embeddings[list(rows)]
        basis = TextBasis.fit(table, width, self.encoder)
        features = basis.project(table)
        source = self.source
        if table.shape[1] > width:
            total = (table.double() - table.double().mean(0)).square().sum()
            projected = (features.double() * basis.scale).square().sum()
            explained = float(projected / total) if total else 1.0
            source = (
                f"{self.source}, {table.shape[1]} numbers per gene reduced to {width} principal "
                f"components over the panel ({explained:.0%} of the variance)"
            )
        return GeneTextFeatures(features, source, basis)


def read_gene_text(path: str | Path, panel: Panel, width: int) -> GeneTextFeatures:
    """Read embeddings of a panel's genes and reduce them; see `read_gene_text_embeddings`."""
    return read_gene_text_embeddings(path, panel).reduce(width)


def read_gene_text_embeddings(path: str | Path, panel: Panel) -> GeneTextEmbeddings:
    """Read embeddings of a panel's genes.

    Parameters
    ----------
    path
        A gene file of `napari-dkan genes build`, or an ``.npz`` with ``genes`` (G,) and
        ``features`` (G, D). A gene is found by the panel's spelling, else as an approved symbol.

    Raises
    ------
    SpotsError
        When an .npz is no such table or a gene of the panel is missing.
    GeneError
        When a gene file is damaged.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        file = read_gene_file(path)
        rows = {symbol: file.find_row(symbol) for symbol in panel.symbols}
        row_by_symbol = {symbol: i for symbol, i in rows.items() if i is not None}
        table, encoder = file.features, file.encoder.label
    else:
        row_by_symbol, table = _read_npz(path)
        encoder = path.name
    return GeneTextEmbeddings(
        _select_panel_rows(table, row_by_symbol, panel, path), encoder, path.name
    )


def _select_panel_rows(
    table: Tensor, row_by_symbol: dict[str, int], panel: Panel, path: Path
) -> Tensor:
    """Select the rows of the panel's genes; raises SpotsError for missing ones."""
    missing = [s for s in panel.symbols if s not in row_by_symbol]
    if missing:
        raise SpotsError(f"{path} has no text for {len(missing)} panel genes, {missing[0]} first.")
    return table[[row_by_symbol[s] for s in panel.symbols]]


def make_random_gene_text(panel: Panel, width: int, seed: int) -> GeneTextFeatures:
    """Draw a random vector per gene, for panels without text: it identifies the gene only."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(panel), width, generator=generator)
    return GeneTextFeatures(features, f"none: random vectors, seed {seed}")


def _read_npz(path: Path) -> tuple[dict[str, int], Tensor]:
    """Read the row of each gene, and the table (G, D)."""
    try:
        with np.load(path, allow_pickle=False) as data:
            row_by_symbol = {str(g): i for i, g in enumerate(data["genes"])}
            table = np.asarray(data["features"], dtype=np.float64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise SpotsError(
            f"{path} cannot be read as gene text; give an .npz with genes and features."
        ) from error
    if table.ndim != 2 or len(row_by_symbol) != len(table) or not np.isfinite(table).all():
        raise SpotsError(f"{path}: features must be one row of finite numbers per gene.")
    return row_by_symbol, torch.from_numpy(table)


def resolve_panel(
    data: str | Path, file: str | Path | None, gene_tables: str | Path | None = None
) -> Panel:
    """Read the panel of a file (text, or a published ``genes_*.npy``), else that of the data.

    Raises
    ------
    SpotsError, CheckpointError
        When there is no panel, or its file cannot be read.
    """
    path = Path(file) if file is not None else find_dkan_panel(data)
    if path is None:
        raise SpotsError(f"{data} brings no gene panel of its own; give one by --panel.")
    panel = Panel.from_symbols(read_gene_list(path)) if path.suffix == ".npy" else read_panel(path)
    return panel if gene_tables is None else annotate_panel_from_folder(panel, gene_tables)


def resolve_gene_text(
    data: str | Path, file: str | Path | None, panel: Panel, settings: TrainSettings
) -> GeneTextFeatures:
    """Read the gene text of a file, else that of the data, else make random vectors.

    The published ``ST-text/*.pt`` is a (G, D) tensor in the order of the data's gene list.

    Raises
    ------
    SpotsError, CheckpointError, GeneError
        When the file cannot be used.
    """
    path = Path(file) if file is not None else find_dkan_gene_text(data)
    if path is None:
        return make_random_gene_text(panel, settings.text_dim, settings.seed)
    if path.suffix == ".pt":
        gene_list = find_dkan_panel(data)
        symbols = panel.symbols if gene_list is None else tuple(read_gene_list(gene_list))
        return _read_published_text(path, symbols, panel).reduce(settings.text_dim)
    return read_gene_text(path, panel, settings.text_dim)


def _read_published_text(path: Path, symbols: tuple[str, ...], panel: Panel) -> GeneTextEmbeddings:
    content = read_torch_file(path)
    features = content.get("gene_features") if isinstance(content, dict) else content
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise CheckpointError(f"{path} does not hold a table of gene features (genes x numbers).")
    if len(features) != len(symbols) or not torch.isfinite(features).all():
        raise SpotsError(
            f"{path} holds {len(features)} rows of features where the gene list has "
            f"{len(symbols)} genes, or holds no finite numbers; give the files of one data set."
        )
    row_by_symbol = {symbol: i for i, symbol in enumerate(symbols)}
    table = _select_panel_rows(features.float(), row_by_symbol, panel, path)
    return GeneTextEmbeddings(table, "BioBERT (published)", path.name)
