"""A checkpoint that can place genes by their text, and gene files for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from napari_dkan.expression.knowledge.gene_records import GeneRecord
from napari_dkan.inference.gene_file import GeneFile, write_gene_file
from napari_dkan.model import Checkpoint, load_checkpoint, save_checkpoint
from napari_dkan.model.text_basis import TextBasis
from napari_dkan.model.text_encoders import TextEncoderSpec

LENGTH = 24
ENCODER = TextEncoderSpec("words", "0123456789abcdef", LENGTH)
PROVEN = {"pcc": 0.36, "shuffled_pcc": 0.28, "panel_mean_pcc": 0.36, "beats_shuffled": True}
UNPROVEN = PROVEN | {"pcc": 0.29, "beats_shuffled": False}


def with_text(source: Path, path: Path, zero_shot: dict | None = None) -> Checkpoint:
    """The small checkpoint with a text basis and this card entry."""
    checkpoint = load_checkpoint(source)
    torch.manual_seed(0)
    texts = torch.randn(len(checkpoint.panel), LENGTH)
    basis = TextBasis.fit(texts, checkpoint.network.config.text_dim, ENCODER.label)
    card = checkpoint.card | ({} if zero_shot is None else {"zero_shot": zero_shot})
    return save_checkpoint(path, replace(checkpoint, text_basis=basis, card=card))


def gene_file(path: Path, encoder: TextEncoderSpec = ENCODER) -> Path:
    """Three new genes, one without a text, and two of the panel, one under its old name."""
    torch.manual_seed(1)

    def record(symbol: str, approved: str = "", ensembl: str = "") -> GeneRecord:
        text = f"{symbol}, a gene."
        name = f"{symbol} protein"
        return GeneRecord(symbol, approved or symbol, ensembl, "", name, "approved", text, "name")

    genes = (
        record("FOXP3", ensembl="ENSG00000049768"),
        record("HER2", "ERBB2", "ENSG00000141736"),
        record("MLANA"),
        record("KRT8"),
        GeneRecord("AP000769.1", text="AP000769.1"),
    )
    features = torch.randn(len(genes), encoder.dimension)
    write_gene_file(path, GeneFile(genes, features, encoder))
    return path
