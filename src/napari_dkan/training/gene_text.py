"""Gene text features for a panel, made narrow enough for a small network."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import SpotsError
from ..expression.panel import Panel


@dataclass(frozen=True)
class GeneText:
    """features (G, d_t) float32 in panel order, and one line on where they come from."""

    features: Tensor
    source: str


def read_gene_text(path: str | Path, panel: Panel, width: int) -> GeneText:
    """Embeddings from an ``.npz`` with ``genes`` (G,) and ``features`` (G, D), reduced to width.

    The reduction is a principal component projection over the panel's genes, which keeps the
    angles between them as far as width allows; nothing about expression enters it.

    Raises SpotsError when the file is not such a table or lacks a gene of the panel.
    """
    path = Path(path)
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
    missing = [s for s in panel.symbols if s not in row]
    if missing:
        raise SpotsError(f"{path} has no text for {len(missing)} panel genes, {missing[0]} first.")
    table = table[[row[s] for s in panel.symbols]]
    table = table - table.mean(axis=0)
    source = path.name
    if table.shape[1] > width:
        left, spread, _ = np.linalg.svd(table, full_matrices=False)
        kept = float((spread[:width] ** 2).sum() / (spread**2).sum())
        signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])
        source = (
            f"{path.name}, {table.shape[1]} numbers per gene reduced to {width} principal "
            f"components over the panel ({kept:.0%} of the variance)"
        )
        table = (left * signs * spread)[:, :width]
        if table.shape[1] < width:  # fewer genes than numbers
            table = np.pad(table, ((0, 0), (0, width - table.shape[1])))
    scale = np.sqrt((table**2).mean()) or 1.0
    return GeneText(torch.from_numpy((table / scale).astype(np.float32)), source)


def no_gene_text(panel: Panel, width: int, seed: int) -> GeneText:
    """One random vector per gene, for panels without text: a gene's identity and no more."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(panel), width, generator=generator)
    return GeneText(features, f"none: random vectors, seed {seed}")
