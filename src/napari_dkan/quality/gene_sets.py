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
from ..inference.gene_set_score import GeneSetScore

HALLMARK_FILE = Path(__file__).parent / "sets" / "hallmark.v7.0.symbols.gmt.gz"
_MAX_GMT_BYTES = 200_000_000  # about ten times all of MSigDB


@dataclass(frozen=True)
class GeneSet:
    """A named set of gene symbols, each once, in the order of the file."""

    name: str
    genes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Displayed name: ``P53 PATHWAY`` for ``HALLMARK_P53_PATHWAY``."""
        return self.name.removeprefix("HALLMARK_").replace("_", " ").strip() or self.name


def read_gmt(path: str | Path) -> tuple[GeneSet, ...]:
    """Read the sets of a .gmt or .gmt.gz file.

    Blank lines and lines that start with # are skipped. Genes may have a weight after a comma, as
    in files of Enrichr.

    Raises
    ------
    GeneError
        If the file is missing or not readable, has no set, or names a set twice.
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
    for gene_set in found:
        if gene_set.name in names:
            raise GeneError(f"{path.name} names the set {gene_set.name} twice; rename one.")
        names.add(gene_set.name)
    return tuple(found)


@cache
def load_hallmark_sets() -> tuple[GeneSet, ...]:
    """Return the 50 Hallmark sets of MSigDB v7.0, which are part of the package (CC-BY-4.0)."""
    return read_gmt(HALLMARK_FILE)


def _parse_gmt_line(line: str) -> GeneSet | None:
    name, _, rest = line.partition("\t")
    genes = (g.partition(",")[0].strip() for g in rest.split("\t")[1:])
    unique = tuple(dict.fromkeys(g for g in genes if g))
    return GeneSet(name.strip(), unique) if name.strip() else None


MIN_PANEL_GENES = 5  # a mean of fewer genes is mostly noise
# Below the 50 controls that scanpy draws from a bin, so that all of its genes are controls.
_GENES_PER_BIN = 25
_MAX_BINS = 25


@dataclass(frozen=True, eq=False)
class GeneSetScores:
    """Scores of S gene sets.

    Attributes
    ----------
    names : tuple of str
        The S sets.
    scores : (N, S) float32 array
        In the units of the values.
    skip_reasons : dict
        By name of a set, why it has no score.
    scored_genes : dict
        By name of a set, its genes in the panel.
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
    """Score gene sets at spots.

    Parameters
    ----------
    values : (N, G) array
        Values of the genes of the panel.
    paired_values : (M, G) array, optional
        Values that will be scored with the same control genes, such as the predicted ones for
        the measured ones and vice versa; this makes both scores comparable. Control genes are
        chosen by the levels of the genes over both together.

    Raises
    ------
    SpotsError
        If a value is missing.
    GeneError
        If no set can be scored.
    """
    both = np.asarray(values, np.float64)
    if paired_values is not None:
        both = np.concatenate([both, np.asarray(paired_values, np.float64)])
    if not np.isfinite(both).all():
        raise SpotsError("Some spots have no value for some gene; predict all genes first.")
    scores, skipped = define_gene_set_scores(sets, panel, both.mean(axis=0))
    if not scores:
        raise GeneError(
            f"None of the {len(sets)} gene sets has {MIN_PANEL_GENES} genes among the {len(panel)} "
            "of the panel; choose other sets."
        )
    own = both[: len(values)]
    columns = [score.combine(own[:, score.columns(panel)]) for score in scores.values()]
    genes = {name: score.genes for name, score in scores.items()}
    return GeneSetScores(tuple(scores), np.stack(columns, axis=1), skipped, genes)


def define_gene_set_scores(
    sets: Sequence[GeneSet], panel: Panel, levels: NDArray[np.floating]
) -> tuple[dict[str, GeneSetScore], dict[str, str]]:
    """Choose the genes and the control genes of scores, as ``scanpy.tl.score_genes`` does.

    Genes are ranked by level and divided into bins of about 25; the controls of a set are all
    other genes in the bins of its genes.

    Parameters
    ----------
    levels : (G,) array
        Mean of each gene of the panel.

    Returns
    -------
    tuple of dict
        Scores by name of the set, and why other sets have none.
    """
    n_bins = int(np.clip(round(len(panel) / _GENES_PER_BIN) + 1, 2, _MAX_BINS))
    rank = np.searchsorted(np.sort(levels), levels) + 1  # ties have the lowest rank
    bin_of = rank // max(round(len(panel) / (n_bins - 1)), 1)
    symbol_of, symbols = _map_aliases(panel), np.array(panel.symbols)
    scores: dict[str, GeneSetScore] = {}
    skipped: dict[str, str] = {}
    for gene_set in sets:
        hits = {name: symbol_of.get(name.upper()) for name in gene_set.genes}
        genes = tuple(dict.fromkeys(symbol for symbol in hits.values() if symbol))
        if len(genes) < MIN_PANEL_GENES:
            skipped[gene_set.name] = (
                f"{len(genes)} of its {len(gene_set.genes)} genes "
                f"{'is' if len(genes) == 1 else 'are'} in the panel; it takes {MIN_PANEL_GENES}"
            )
            continue
        rows = panel.rows(genes)
        is_control = np.isin(bin_of, bin_of[rows])
        is_control[rows] = False
        if not is_control.any():
            skipped[gene_set.name] = (
                "the panel has no other genes of similar level to compare it with"
            )
            continue
        title = f"{gene_set.title} score"
        scores[gene_set.name] = GeneSetScore(
            title if title not in panel else f"{title} (gene set)",
            genes,
            tuple(symbols[is_control].tolist()),
            tuple(name for name, symbol in hits.items() if symbol is None),
        )
    return scores, skipped


def _map_aliases(panel: Panel) -> dict[str, str]:
    """Map every upper-case name to a symbol of the panel, without aliases of two genes."""
    found: dict[str, str] = {}
    ambiguous: set[str] = set()
    for gene in panel.genes:
        for alias in {a.upper() for a in gene.aliases}:
            ambiguous |= {alias} & found.keys()
            found[alias] = gene.symbol
    unique = {alias: symbol for alias, symbol in found.items() if alias not in ambiguous}
    return unique | {symbol.upper(): symbol for symbol in panel.symbols}
