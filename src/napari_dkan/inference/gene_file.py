"""genes.safetensors: a description and a text feature vector for each gene.

One tensor ``features`` (G, D) float32; the header entry ``napari_dkan_genes`` is JSON with
``format``, ``encoder`` (name, sha256, dimension), ``genes`` (a GeneRecord each) and ``made``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError, GeneError
from ..expression.knowledge.gene_records import MATCH_STATUSES, TEXT_KINDS, GeneRecord
from ..model.checkpoint.checkpoint_header import GENE_FILE_KEY
from ..model.safetensors_header import (
    FLOAT_DTYPES,
    parse_strict_json,
    read_safetensors_header,
)
from ..model.tensor_files import read_safetensors, write_safetensors
from ..model.text_encoders import TextEncoderSpec

GENE_FILE_FORMAT = 1
MAX_GENES = 100_000
_RECORD_FIELDS = {f.name for f in fields(GeneRecord)}


@dataclass(frozen=True)
class GeneFile:
    """Descriptions and text features of G genes.

    Attributes
    ----------
    features
        (G, D) float32 text features.
    encoder
        Text encoder of the features.
    build_info
        Version, date and parameters of the build.
    """

    genes: tuple[GeneRecord, ...]
    features: Tensor
    encoder: TextEncoderSpec
    build_info: dict[str, Any] = field(default_factory=dict)

    def find_row(self, name: str) -> int | None:
        """Find the row of a gene by its symbol in the file, approved symbol or Ensembl id.

        None when the file does not have it, or has several genes of that approved symbol.
        """
        for key in ("symbol", "approved", "ensembl"):
            rows = [i for i, gene in enumerate(self.genes) if name and getattr(gene, key) == name]
            if rows:
                return rows[0] if len(rows) == 1 else None
        return None


def write_gene_file(path: str | Path, genes: GeneFile) -> None:
    """Write a gene file atomically; raises OutputError."""
    entry = {
        "format": GENE_FILE_FORMAT,
        "encoder": genes.encoder.to_json(),
        "genes": [asdict(gene) for gene in genes.genes],
        "made": genes.build_info,
    }
    text = json.dumps(entry, ensure_ascii=False)
    write_safetensors(
        Path(path), {"features": genes.features.float()}, {GENE_FILE_KEY: text}, half=False
    )


def read_gene_file(path: str | Path) -> GeneFile:
    """Read a gene file; its header is validated before anything large is allocated.

    Raises
    ------
    GeneError
        When the file is absent, damaged, of another kind, or inconsistent.
    """
    path = Path(path)
    try:
        return _read_checked(path)
    except CheckpointError as error:
        raise GeneError(
            f"{path} cannot be used as a gene file: {str(error).rstrip('.')}; make one with "
            "`napari-dkan genes build`."
        ) from None


def _read_checked(path: Path) -> GeneFile:
    header = read_safetensors_header(path)
    if GENE_FILE_KEY not in header.metadata:
        raise CheckpointError("it describes no genes")
    data = parse_strict_json(header.metadata[GENE_FILE_KEY])
    if not isinstance(data, dict) or data.get("format") != GENE_FILE_FORMAT:
        raise CheckpointError(f"it is not of format {GENE_FILE_FORMAT}, the one this version reads")
    encoder = TextEncoderSpec.from_json(data.get("encoder"))
    genes = _parse_gene_records(data.get("genes"))
    build_info = data.get("made", {})
    if not isinstance(build_info, dict):
        raise CheckpointError("its entry on how it was made is damaged")
    dtype, shape = header.tensors.get("features", ("", ()))
    if dtype not in FLOAT_DTYPES or shape != (len(genes), encoder.dimension):
        raise CheckpointError(
            f"its features are not {len(genes)} genes x {encoder.dimension} numbers"
        )
    features = read_safetensors(path, ["features"])["features"]
    return GeneFile(genes, features, encoder, build_info)


def _parse_gene_records(entries: Any) -> tuple[GeneRecord, ...]:
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_GENES:
        raise CheckpointError(f"its list of genes is not one of 1 to {MAX_GENES:,}")
    genes: list[GeneRecord] = []
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != _RECORD_FIELDS:
            raise CheckpointError(f"its gene {len(genes) + 1} is incomplete")
        if not all(isinstance(value, str) for value in entry.values()):
            raise CheckpointError(f"its gene {len(genes) + 1} holds something that is no text")
        gene = GeneRecord(**entry)
        if not gene.symbol or gene.match not in MATCH_STATUSES or gene.text_from not in TEXT_KINDS:
            raise CheckpointError(f"its gene {len(genes) + 1} is not one of this format")
        genes.append(gene)
    if len({gene.symbol for gene in genes}) < len(genes):
        raise CheckpointError("it names a gene twice")
    return tuple(genes)
