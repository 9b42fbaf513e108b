"""Gene sets from GMT files, and their scores at spots.

GMT: one line per set, tab-separated name, description and genes (Broad Institute, "GMT: Gene Matrix
Transposed file format"). Hallmark: Liberzon et al., Cell Systems 1, 417, 2015. Score: mean of the
set's genes minus the mean of control genes of similar level (``scanpy.tl.score_genes``; Satija et
al., Nature Biotechnology 33, 495, 2015).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import GeneError, SpotsError
from ..expression.panel import Panel

HALLMARK_FILE = Path(__file__).parent / "sets" / "hallmark.v7.0.symbols.gmt.gz"
_MAX_GMT_BYTES = 200_000_000  # bytes of text; all of MSigDB has about a tenth


@dataclass(frozen=True)
class GeneSet:
    """A named set of gene symbols, each once, in the order of the file."""

    name: str
    genes: tuple[str, ...]

    @property
    def title(self) -> str:
        """For people: ``HALLMARK_P53_PATHWAY`` -> ``P53 PATHWAY``."""
        return self.name.removeprefix("HALLMARK_").replace("_", " ").strip() or self.name


def read_gmt(path: str | Path) -> tuple[GeneSet, ...]:
    """The sets of a .gmt or .gmt.gz file; blank lines and lines that start with # are skipped.

    Genes may carry a weight after a comma, as Enrichr writes them. Raises GeneError naming the
    file when it is missing, no such text, without a set, or names a set twice.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read(_MAX_GMT_BYTES + 1)
        if len(data) > _MAX_GMT_BYTES:
            raise GeneError(f"{path.name} is larger than any collection of gene sets; check it.")
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise GeneError(f"There is no file {path}; check the path.") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise GeneError(f"{path.name} is not a readable GMT file; download it again.") from error
    sets = [_parse_gmt_line(line) for line in text.splitlines() if line.strip() and line[0] != "#"]
    found = [s for s in sets if s is not None and s.genes]
    if not found:
        raise GeneError(
            f"{path.name} holds no gene set; a GMT file has a line per set with tabs between its "
            "name, a description and its genes."
        )
    names: set[str] = set()
    for one in found:
        if one.name in names:
            raise GeneError(f"{path.name} names the set {one.name} twice; rename one.")
        names.add(one.name)
    return tuple(found)


@cache
def load_hallmark_sets() -> tuple[GeneSet, ...]:
    """The 50 Hallmark sets of MSigDB v7.0, which come with the package (CC-BY-4.0)."""
    return read_gmt(HALLMARK_FILE)


def _parse_gmt_line(line: str) -> GeneSet | None:
    name, _, rest = line.partition("\t")
    genes = (g.partition(",")[0].strip() for g in rest.split("\t")[1:])
    unique = tuple(dict.fromkeys(g for g in genes if g))
    return GeneSet(name.strip(), unique) if name.strip() else None


MIN_PANEL_GENES = 5  # of a set in the panel; the mean of fewer is the noise of one
_CONTROL_GENES_PER_BIN = 50  # genes from each bin of level, as scanpy has it
_GENES_PER_BIN = (
    25  # genes; a panel is small, so that a bin is all control and nothing is drawn by chance
)
_MAX_BINS = 25
_SCORE_SEED = 2021


@dataclass(frozen=True, eq=False)
class GeneSetScores:
    """Scores of the sets that could be scored.

    names : S. scores : (N, S) float32, in the units of the values.
    skipped : by name, why a set has no score.
    used : by name, the panel genes that make up its score.
    """

    names: tuple[str, ...]
    scores: NDArray[np.float32]
    skip_reasons: dict[str, str]
    scored_genes: dict[str, tuple[str, ...]]


def score_gene_sets(
    values: NDArray[np.floating],
    panel: Panel,
    sets: Sequence[GeneSet],
    paired_values: NDArray[np.floating] | None = None,
) -> GeneSetScores:
    """Score sets on values (N, G) of a panel's genes.

    beside : (M, G) values that are to be scored with the same control genes: give predicted
        values beside measured ones and the other way round, and both scores are comparable. The
        control genes are chosen by the genes' levels over both together.

    Raises SpotsError when a value is missing, GeneError when no set at all can be scored.
    """
    import anndata
    import pandas as pd
    import scanpy

    both = np.asarray(values, np.float64)
    if paired_values is not None:
        both = np.concatenate([both, np.asarray(paired_values, np.float64)])
    if not np.isfinite(both).all():
        raise SpotsError("Some spots have no value for some gene; predict all genes first.")
    rows = pd.Index([str(i) for i in range(len(both))])
    data = anndata.AnnData(
        both, obs=pd.DataFrame(index=rows), var=pd.DataFrame(index=list(panel.symbols))
    )
    bins = int(np.clip(round(len(panel) / _GENES_PER_BIN) + 1, 2, _MAX_BINS))
    symbol_of = _map_aliases(panel)
    used: dict[str, tuple[str, ...]] = {}
    skipped: dict[str, str] = {}
    columns: list[NDArray[np.float32]] = []
    for one in sets:
        hits = (symbol_of.get(g.upper()) for g in one.genes)
        genes = tuple(dict.fromkeys(g for g in hits if g))
        if len(genes) < MIN_PANEL_GENES:
            skipped[one.name] = (
                f"{len(genes)} of its {len(one.genes)} genes "
                f"{'is' if len(genes) == 1 else 'are'} in the panel; it takes {MIN_PANEL_GENES}"
            )
            continue
        try:
            scanpy.tl.score_genes(
                data,
                list(genes),
                ctrl_size=_CONTROL_GENES_PER_BIN,
                n_bins=bins,
                random_state=_SCORE_SEED,
            )
        except RuntimeError:  # what scanpy says when no gene is left for control
            skipped[one.name] = "the panel has no other genes of similar level to compare it with"
            continue
        used[one.name] = genes
        columns.append(data.obs["score"].to_numpy(np.float32)[: len(values)])
    if not columns:
        raise GeneError(
            f"None of the {len(sets)} gene sets has {MIN_PANEL_GENES} genes among the {len(panel)} "
            "of the panel; choose other sets."
        )
    return GeneSetScores(tuple(used), np.stack(columns, axis=1), skipped, used)


def _map_aliases(panel: Panel) -> dict[str, str]:
    """The panel's symbol by any name in capitals; a name that two genes claim is nobody's."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for gene in panel.genes:
        for alias in {a.upper() for a in gene.aliases}:
            twice |= {alias} & found.keys()
            found[alias] = gene.symbol
    known = {alias: symbol for alias, symbol in found.items() if alias not in twice}
    return known | {symbol.upper(): symbol for symbol in panel.symbols}
