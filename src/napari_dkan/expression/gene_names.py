"""The genes among the features of a count matrix, and their symbols and Ensembl ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from .readers.read_account import ReadAccount

# Names of columns, best first, compared in lower case without punctuation.
_SYMBOL_COLUMNS: tuple[str, ...] = (
    "genesymbols",
    "genesymbol",
    "featurename",
    "genename",
    "symbol",
    "hgncsymbol",
)
_SYMBOL_COLUMNS += ("realgenename", "genenames", "symbols", "hgncsymbols", "featurenames")
_SYMBOL_COLUMNS += ("externalgenename", "geneshortname", "hugosymbol", "gene", "genes", "name")
_ID_COLUMNS: tuple[str, ...] = (
    "geneids",
    "geneid",
    "ensembl",
    "ensemblid",
    "featureid",
    "ensemblids",
)
_ID_COLUMNS += ("ensemblgeneid", "ensemblgeneids", "featureids")
_KIND_COLUMNS = ("featuretypes", "featuretype", "modality")

_GENE_KINDS = ("gene expression", "gene", "genes", "rna", "gex", "mrna")
_OTHER_KIND = re.compile(
    r"antibod|crispr|guide|multiplex|hashtag|control|codeword|custom|peaks|\badt\b"
    r"|\bhto\b|\bprotein\b(?! coding)|surface|probe|spike|vdj|antigen"
)
_SYMBOL = re.compile(r"[A-Za-z][A-Za-z0-9._-]*(?:_PAR_Y)?")
_MIN_DISTINCT_SYMBOLS = 0.9  # of the values of a column
_ENSEMBL_ID = re.compile(r"ENS[A-Z]*\d+(?:\.\d+)?(?:_PAR_Y)?")
_ENSEMBL_VERSION = re.compile(r"(ENS[A-Z]*\d+)\.\d+")
# A reference of several genomes puts the genome before each name: GRCh38_ERBB2, mm10___Erbb2.
_GENOME = r"GRCh\d+|GRCm\d+|GRCz\d+|hg\d+|mm\d+|rn\d+|mRatBN[\d.-]+"
_GENOME_PREFIX = re.compile(rf"({_GENOME})(?:_+|-+)(?=.)")
_HUMAN_GENOME = re.compile(r"GRCh\d+|hg\d+", re.IGNORECASE)


@dataclass(frozen=True)
class GeneColumns:
    """The columns of a count matrix that are genes.

    Attributes
    ----------
    columns
        (G,) numbers of the columns.
    symbols
        G symbols, Ensembl ids where the file has no symbols.
    ensembl_ids
        G Ensembl ids without versions, or ().
    account
        Which columns were left out, and why.
    """

    columns: NDArray[np.int64]
    symbols: tuple[str, ...]
    ensembl_ids: tuple[str, ...]
    account: ReadAccount


@dataclass(frozen=True)
class FeatureTable:
    """What a file states of the columns of its counts; () for what it does not state.

    Attributes
    ----------
    names
        Symbols, or Ensembl ids.
    ensembl_ids, kinds, genomes
        Ids, feature types such as "Gene Expression", and genomes such as "GRCh38".
    """

    names: Sequence[str]
    ensembl_ids: Sequence[str] = ()
    kinds: Sequence[str] = ()
    genomes: Sequence[str] = ()


def select_genes(features: FeatureTable, path: Path) -> GeneColumns:
    """Select the features that are human genes, or genes, and clean their names.

    Antibodies, guides, controls and other features are left out, as are the genes of another
    genome beside the human one. Prefixes of genomes and versions of Ensembl ids are removed.

    Raises
    ------
    SpotsError
        There are features but none is a gene.
    """
    names, prefixes = _strip_genomes(features.names)
    ids, _ = _strip_genomes(features.ensembl_ids)
    names, ids = _strip_versions(names), _strip_versions(ids)
    genomes = prefixes or list(map(str, features.genomes))
    account = ReadAccount()
    keep = np.ones(len(names), dtype=bool)
    reasons: list[tuple[NDArray[np.bool_], str]] = []
    if len(features.kinds):
        kinds = [_clean(kind) for kind in features.kinds]
        is_gene_kind = _gene_kinds(kinds)
        if len(names) and not is_gene_kind.any():
            found = ", ".join(f"{n} {kind}" for kind, n in Counter(kinds).most_common(3))
            raise SpotsError(
                f"{path} holds no gene expression but {found}; give the file with the counts of "
                "genes."
            )
        for kind in dict.fromkeys(k for k, g in zip(kinds, is_gene_kind, strict=True) if not g):
            of_kind = np.array([k == kind for k in kinds]) & ~is_gene_kind
            reasons.append((of_kind, f"of type {kind or 'unknown'}"))
    if genomes:
        is_human = np.array([bool(_HUMAN_GENOME.match(g)) for g in genomes])
        for genome in dict.fromkeys(genomes):
            if is_human.any() and re.match(_GENOME, genome) and not _HUMAN_GENOME.match(genome):
                reasons.append((np.array([g == genome for g in genomes]), f"of genome {genome}"))
    for is_left_out, reason in reasons:
        account = account.leave_out_genes(reason, int((is_left_out & keep).sum()))
        keep &= ~is_left_out
    nameless = _repeat_without_id(names, ids, keep)
    account = account.leave_out_genes(
        "without an Ensembl id, named as a gene with one", int(nameless.sum())
    )
    keep &= ~nameless
    columns = np.flatnonzero(keep)
    symbols = tuple(names[i] for i in columns)
    if not ids and looks_like_ensembl(symbols):
        return GeneColumns(columns, symbols, symbols, account)
    return GeneColumns(columns, symbols, tuple(ids[i] for i in columns) if ids else (), account)


def features_from_var(var: Any) -> FeatureTable:
    """Read the features of the ``var`` of an AnnData; its index may hold symbols, ids or numbers.

    Which column has the symbols is decided by its name and its content, or by its content where
    only one looks like it.
    """
    index = [str(v) for v in var.index]
    bare, _ = _strip_genomes(index)
    columns = {re.sub("[^a-z0-9]", "", str(c).lower()): c for c in reversed(list(var.columns))}
    kinds = next(
        (k for n in _KIND_COLUMNS if n in columns and _has_kinds(k := _texts(var[columns[n]]))), []
    )
    genomes = _texts(var[columns["genome"]]) if "genome" in columns else []
    ids = next((_texts(var[columns[n]]) for n in _ID_COLUMNS if n in columns), [])
    is_ensembl = looks_like_ensembl(bare)
    if not is_ensembl and not all(name.isdecimal() for name in bare):
        return FeatureTable(index, ids, kinds, genomes)
    named = (_texts(var[columns[n]]) for n in _SYMBOL_COLUMNS if n in columns)
    symbols = next((s for s in named if _look_like_symbols(s)), None)
    if symbols is None:
        symbols = _find_symbols(var)
    if symbols is None:
        has_ids = not is_ensembl and looks_like_ensembl(ids)
        return FeatureTable(ids if has_ids else index, ids, kinds, genomes)
    names = [symbol or name for symbol, name in zip(symbols, index, strict=True)]
    return FeatureTable(names, index if is_ensembl else ids, kinds, genomes)


def _find_symbols(var: Any) -> list[str] | None:
    """Return the only text column that looks like symbols, nearly all of them different."""
    texts = (_texts(var[c]) for c in var.columns if var[c].dtype.kind not in "biufc")
    found = [
        values
        for values in texts
        if _look_like_symbols(values)
        and all(_SYMBOL.fullmatch(v) for v in values if v)
        and len(set(values)) > _MIN_DISTINCT_SYMBOLS * len(values)
    ]
    return found[0] if len(found) == 1 else None


def looks_like_ensembl(names: Sequence[str]) -> bool:
    """Whether most names are Ensembl ids, with or without a version."""
    return 2 * sum(bool(_ENSEMBL_ID.fullmatch(n)) for n in names) > len(names)


def _look_like_symbols(values: Sequence[str]) -> bool:
    bare, _ = _strip_genomes(values)
    good = sum(bool(v) and not v.isdecimal() and not _ENSEMBL_ID.fullmatch(v) for v in bare)
    return 2 * good > len(bare)


def _texts(column: Any) -> list[str]:
    """Return the values of a column as text, "" for missing ones."""
    return ["" if v is None or v != v or str(v) == "nan" else str(v) for v in column]


def _clean(kind: Any) -> str:
    return re.sub("[_\\s]+", " ", str(kind)).strip()


def _has_kinds(values: Sequence[str]) -> bool:
    return any(_is_gene_kind(k) or _is_other_kind(k) for k in map(_clean, dict.fromkeys(values)))


def _is_gene_kind(kind: str) -> bool:
    return kind.lower() in _GENE_KINDS


def _is_other_kind(kind: str) -> bool:
    return bool(_OTHER_KIND.search(kind.lower()))


def _gene_kinds(kinds: Sequence[str]) -> NDArray[np.bool_]:
    """Return which features are genes; kinds of no known name are, if no kind is that of genes."""
    if any(map(_is_gene_kind, kinds)):
        return np.array([_is_gene_kind(k) or not k for k in kinds], dtype=bool)
    return np.array([not _is_other_kind(k) for k in kinds], dtype=bool)


def _strip_genomes(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Remove the genome before most names; return names and genomes, [] where there are none."""
    matches = [_GENOME_PREFIX.match(str(n)) for n in names]
    if 2 * sum(m is not None for m in matches) <= len(names):
        return list(map(str, names)), []
    stripped = [
        str(n)[m.end() :] if m is not None else str(n) for n, m in zip(names, matches, strict=True)
    ]
    return stripped, ["" if m is None else m[1] for m in matches]


def _strip_versions(names: Sequence[str]) -> list[str]:
    return [m[1] if (m := _ENSEMBL_VERSION.fullmatch(n)) else n for n in names]


def _repeat_without_id(
    names: Sequence[str], ids: Sequence[str], keep: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which features share the name of a gene with an Ensembl id but have none.

    These are antibodies and the like in files whose ids are those of Ensembl.
    """
    repeated = np.zeros(len(names), dtype=bool)
    if not ids or not looks_like_ensembl(ids):
        return repeated
    has_id = np.array([bool(_ENSEMBL_ID.fullmatch(i)) for i in ids])
    with_id = {names[i] for i in np.flatnonzero(has_id & keep).tolist()}
    for i in np.flatnonzero(~has_id & keep).tolist():
        repeated[i] = names[i] in with_id
    return repeated
