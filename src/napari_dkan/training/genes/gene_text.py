"""Panel and gene text features of a run, from given files or from the data folder."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import CheckpointError, SpotsError
from ...expression.panel import Panel, annotate_panel_from_folder, read_panel
from ...expression.readers.her2st_sections import find_dkan_gene_text, find_dkan_panel
from ...model.gene_list_file import read_gene_list
from ...model.tensor_files import read_torch_file
from ...model.text.text_basis import TextBasis
from ..train_settings import TrainSettings
from .gene_file import read_gene_file


@dataclass(frozen=True)
class GeneTextFeatures:
    """features (G, d_t) float32 in panel order, one line on where they come from, and the basis
    that places further genes in the same space (None where there is no text)."""

    features: Tensor
    source: str
    basis: TextBasis | None = None


@dataclass(frozen=True)
class GeneTextEmbeddings:
    """embeddings (G, D) of a panel's genes as their encoder gave them; source: the file."""

    embeddings: Tensor
    encoder: str
    source: str

    def reduce(self, width: int, rows: Sequence[int] | None = None) -> GeneTextFeatures:
        """All genes, or some, in the principal axes of these very genes.

        The projection keeps the angles between them as far as width allows; nothing about
        expression enters it.
        """
        table = self.embeddings if rows is None else self.embeddings[list(rows)]
        basis = TextBasis.fit(table, width, self.encoder)
        features = basis.project(table)
        source = self.source
        if table.shape[1] > width:
            spread = (table.double() - table.double().mean(0)).square().sum()
            kept = (
                float((features.double() * basis.scale).square().sum() / spread) if spread else 1.0
            )
            source = (
                f"{self.source}, {table.shape[1]} numbers per gene reduced to {width} principal "
                f"components over the panel ({kept:.0%} of the variance)"
            )
        return GeneTextFeatures(features, source, basis)


def read_gene_text(path: str | Path, panel: Panel, width: int) -> GeneTextFeatures:
    """Embeddings of a panel's genes, reduced to width; errors as of `read_panel_text`."""
    return read_gene_text_embeddings(path, panel).reduce(width)


def read_gene_text_embeddings(path: str | Path, panel: Panel) -> GeneTextEmbeddings:
    """Embeddings of a panel's genes.

    path : a gene file of `napari-dkan genes build`, or an ``.npz`` with ``genes`` (G,) and
    ``features`` (G, D). A gene is found by the panel's spelling, else as an approved symbol.

    Raises SpotsError when an .npz is not such a table or a gene of the panel is missing, and
    GeneError when a gene file is damaged.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        file = read_gene_file(path)
        rows = {symbol: file.find_row(symbol) for symbol in panel.symbols}
        row = {symbol: i for symbol, i in rows.items() if i is not None}
        table, encoder = file.features, file.encoder.label
    else:
        row, table = _read_npz(path)
        encoder = path.name
    missing = [s for s in panel.symbols if s not in row]
    if missing:
        raise SpotsError(f"{path} has no text for {len(missing)} panel genes, {missing[0]} first.")
    return GeneTextEmbeddings(table[[row[s] for s in panel.symbols]], encoder, path.name)


def make_random_gene_text(panel: Panel, width: int, seed: int) -> GeneTextFeatures:
    """One random vector per gene, for panels without text: a gene's identity and no more."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(panel), width, generator=generator)
    return GeneTextFeatures(features, f"none: random vectors, seed {seed}")


def _read_npz(path: Path) -> tuple[dict[str, int], Tensor]:
    """The row of each gene, and the table (G, D)."""
    try:
        with np.load(path, allow_pickle=False) as data:
            row = {str(g): i for i, g in enumerate(data["genes"])}
            table = np.asarray(data["features"], dtype=np.float64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise SpotsError(
            f"{path} cannot be read as gene text; give an .npz with genes and features."
        ) from error
    if table.ndim != 2 or len(row) != len(table) or not np.isfinite(table).all():
        raise SpotsError(f"{path}: features must be one row of finite numbers per gene.")
    return row, torch.from_numpy(table)


def resolve_panel(
    data: str | Path, file: str | Path | None, gene_tables: str | Path | None = None
) -> Panel:
    """The panel of a file (text, or a published ``genes_*.npy``), else the data's own.

    Raises SpotsError or CheckpointError naming the file, or that there is none.
    """
    path = Path(file) if file is not None else find_dkan_panel(data)
    if path is None:
        raise SpotsError(f"{data} brings no gene panel of its own; give one by --panel.")
    panel = Panel.from_symbols(read_gene_list(path)) if path.suffix == ".npy" else read_panel(path)
    return panel if gene_tables is None else annotate_panel_from_folder(panel, gene_tables)


def resolve_gene_text(
    data: str | Path, file: str | Path | None, panel: Panel, settings: TrainSettings
) -> GeneTextFeatures:
    """Gene text of a file, else the data's own, else random vectors.

    The published ``ST-text/*.pt`` is a (G, D) tensor in the order of the data's gene list.

    Raises SpotsError or CheckpointError naming the file.
    """
    path = Path(file) if file is not None else find_dkan_gene_text(data)
    if path is None:
        return make_random_gene_text(panel, settings.text_dim, settings.seed)
    if path.suffix == ".pt":
        genes = find_dkan_panel(data)
        listed = panel.symbols if genes is None else tuple(read_gene_list(genes))
        return _read_published_text(path, listed, panel).reduce(settings.text_dim)
    return read_gene_text(path, panel, settings.text_dim)


def _read_published_text(path: Path, listed: tuple[str, ...], panel: Panel) -> GeneTextEmbeddings:
    content = read_torch_file(path)
    features = content.get("gene_features") if isinstance(content, dict) else content
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise CheckpointError(f"{path} does not hold a table of gene features (genes x numbers).")
    if len(features) != len(listed) or not torch.isfinite(features).all():
        raise SpotsError(
            f"{path} holds {len(features)} rows of features where the gene list has "
            f"{len(listed)} genes, or holds no finite numbers; give the files of one data set."
        )
    row = {symbol: i for i, symbol in enumerate(listed)}
    missing = [s for s in panel.symbols if s not in row]
    if missing:
        raise SpotsError(f"{path} has no text for {len(missing)} panel genes, {missing[0]} first.")
    table = features.float()[[row[s] for s in panel.symbols]]
    return GeneTextEmbeddings(table, "BioBERT (published)", path.name)
