"""Panel and gene text of a run: from the files that were named, else those beside the data."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, SpotsError
from ..expression.genetable import annotate_panel_from_folder, read_panel
from ..expression.panel import Panel
from ..expression.published import find_dkan_panel, find_dkan_gene_text
from ..model.genelist import read_gene_list
from ..model.torchfile import read_torch_file
from .gene_text import GeneTextFeatures, GeneTextEmbeddings, make_random_gene_text, read_gene_text
from .settings import TrainSettings


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
