"""Resolve gene symbols with local tables, and describe genes.

A symbol is approved, an Ensembl id, renamed, an alias of one gene, ambiguous or unknown.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import SpotsError

MATCH_STATUSES = ("approved", "ensembl", "renamed", "alias", "ambiguous", "unknown")
TEXT_KINDS = ("refined", "summary", "name", "symbol")

# HGNC renamed these genes after the studies of the bundled panels were published. Alias tables
# list aliases, not previous symbols.
RENAMED_SYMBOLS = {
    "AES": "TLE5",
    "ATP5B": "ATP5F1B",
    "ATP5E": "ATP5F1E",
    "ATP5G2": "ATP5MC2",
    "H1FX": "H1-10",
    "H2AFJ": "H2AJ",
    "H3F3B": "H3-3B",
    "KIAA0100": "BLTP2",
    "PHB": "PHB1",
    "SEPW1": "SELENOW",
    "TCEB2": "ELOB",
}


@dataclass(frozen=True)
class GeneTableEntry:
    """One row of a gene table; all fields but the symbol may be "" if unknown."""

    symbol: str
    ensembl: str = ""
    name: str = ""
    entrez: str = ""
    biotype: str = ""
    summary: str = ""


@dataclass(frozen=True)
class SymbolMatch:
    """The gene that a name was resolved to.

    Attributes
    ----------
    gene
        None if the status is "ambiguous" or "unknown".
    status
        One of `MATCH_STATUSES`.
    note
        An explanation, if the approved symbol is not the given name.
    """

    gene: GeneTableEntry | None
    status: str
    note: str = ""


@dataclass(frozen=True)
class GeneTable:
    """Genes by approved symbol, and the approved symbols that each alias belongs to."""

    genes: dict[str, GeneTableEntry]
    approved_by_alias: dict[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = ""
    _aliases: dict[str, list[str]] = field(init=False, repr=False, compare=False)
    _by_ensembl: dict[str, list[GeneTableEntry]] = field(init=False, repr=False, compare=False)
    _by_entrez: dict[str, list[GeneTableEntry]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        aliases: dict[str, list[str]] = defaultdict(list)
        for alias, owners in self.approved_by_alias.items():
            for owner in owners:
                aliases[owner].append(alias)
        object.__setattr__(self, "_aliases", dict(aliases))
        genes = self.genes.values()
        object.__setattr__(self, "_by_ensembl", _group_by_key((g.ensembl, g) for g in genes))
        # A row without an Ensembl id may be a gene under a former symbol.
        current = (g for g in genes if g.ensembl)
        object.__setattr__(self, "_by_entrez", _group_by_key((g.entrez, g) for g in current))

    def resolve(self, name: str) -> SymbolMatch:
        """Resolve a symbol or an Ensembl id (any version) to a gene, if it is unambiguous.

        An approved symbol comes first, then an Ensembl id, a former symbol, and last an alias of
        one approved gene. Names are case-sensitive: Psap is a mouse gene.
        """
        gene = self.genes.get(name)
        if gene is not None and gene.ensembl:
            return SymbolMatch(gene, "approved")
        if name.startswith("ENSG"):
            matches = self._by_ensembl.get(name.split(".")[0], [])
            if len(matches) == 1:
                return SymbolMatch(matches[0], "ensembl", f"{name} is {matches[0].symbol}")
        current = self._find_current_gene(name)
        if current is not None:
            return SymbolMatch(current, "renamed", f"{name} is called {current.symbol} now")
        if gene is not None:
            return SymbolMatch(
                gene, "approved", f"{name} has no Ensembl id; it may be an old symbol"
            )
        return self._resolve_alias(name)

    def aliases(self, symbol: str) -> tuple[str, ...]:
        """Return the aliases of an approved symbol, including those of other genes too."""
        return tuple(self._aliases.get(symbol, ()))

    def symbols_with_same_entrez(self, gene: GeneTableEntry) -> tuple[str, ...]:
        """Return the symbols of other current genes with the Entrez id of this one."""
        genes = self._by_entrez.get(gene.entrez, [])
        return tuple(other.symbol for other in genes if other.symbol != gene.symbol)

    def _find_current_gene(self, name: str) -> GeneTableEntry | None:
        renamed = self.genes.get(RENAMED_SYMBOLS.get(name, ""))
        if renamed is not None or name not in self.genes:
            return renamed
        genes = self._by_entrez.get(self.genes[name].entrez, [])
        return genes[0] if len(genes) == 1 and genes[0].symbol != name else None

    def _resolve_alias(self, name: str) -> SymbolMatch:
        owners = sorted(set(self.approved_by_alias.get(name, ())))
        if len(owners) > 1:
            return SymbolMatch(None, "ambiguous", f"{name} is an alias of {', '.join(owners)}")
        gene = self.genes.get(owners[0]) if owners else None
        if gene is not None:
            return SymbolMatch(gene, "alias", f"{name} is an alias of {gene.symbol}")
        upper = self.genes.get(name.upper()) if name != name.upper() else None
        hint = f"; {upper.symbol} is written in capitals" if upper else ""
        return SymbolMatch(None, "unknown", f"no gene of the table is called {name}{hint}")


def read_gene_table(
    descriptions: str | Path, aliases: str | Path | None = None, *, summaries: bool = False
) -> GeneTable:
    """Read a gene table from gzipped (or plain) TSV files with a header line.

    Parameters
    ----------
    descriptions
        File with ``symbol``, ``ensembl_id``, ``name``, and optionally ``entrez_id``, ``biotype``
        and ``refseq_summary``.
    aliases
        File with ``alias``, ``approved``.
    summaries
        The optional columns are required.

    Raises
    ------
    SpotsError
        A file is missing, does not have those columns or describes a gene twice.
    """
    required: tuple[str, ...] = ("symbol", "ensembl_id", "name")
    if summaries:
        required += ("entrez_id", "biotype", "refseq_summary")
    genes: dict[str, GeneTableEntry] = {}
    for row in _read_tsv_rows(descriptions, required):
        gene = GeneTableEntry(
            symbol=row["symbol"],
            ensembl=row["ensembl_id"],
            name=row["name"],
            entrez=row.get("entrez_id", ""),
            biotype=row.get("biotype", ""),
            summary=row.get("refseq_summary", ""),
        )
        if genes.setdefault(gene.symbol, gene) != gene:
            raise SpotsError(f"{descriptions} describes {gene.symbol} twice; keep one row of it.")
    owners: dict[str, list[str]] = defaultdict(list)
    for row in _read_tsv_rows(aliases, ("alias", "approved")) if aliases is not None else ():
        owners[row["alias"]].append(row["approved"])
    source = Path(descriptions).name
    return GeneTable(genes, {alias: tuple(names) for alias, names in owners.items()}, source)


def gene_table_paths(folder: str | Path) -> tuple[Path, Path]:
    """Return the paths of descriptions and aliases in a folder with their usual names."""
    folder = Path(folder)
    return folder / "human_gene_descriptions.tsv.gz", folder / "hgnc_alias_to_approved.tsv.gz"


def _group_by_key(pairs: Iterable[tuple[str, GeneTableEntry]]) -> dict[str, list[GeneTableEntry]]:
    groups: dict[str, list[GeneTableEntry]] = defaultdict(list)
    for key, gene in pairs:
        if key:
            groups[key].append(gene)
    return dict(groups)


def _read_tsv_rows(path: str | Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    path = Path(path)
    open_file = gzip.open if path.suffix == ".gz" else open
    try:
        with open_file(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if not set(columns) <= set(reader.fieldnames or ()):
                raise SpotsError(f"{path} needs the columns {', '.join(columns)}.")
            for row in reader:  # cells may be missing in a line, or superfluous
                yield {key: value or "" for key, value in row.items() if key is not None}
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise SpotsError(f"{path} cannot be read as a gzipped gene table.") from error


@dataclass(frozen=True)
class GeneRecord:
    """Description of a gene of a panel; "" if unknown.

    Attributes
    ----------
    symbol
        As in the panel.
    approved, ensembl, entrez, name
        Approved symbol, ids and name of the gene.
    match
        How the symbol was resolved, one of `MATCH_STATUSES`.
    text
        Input of a text encoder.
    text_from
        Kind of the text, one of `TEXT_KINDS`; "name" is the approved name without a summary,
        "symbol" the symbol of a gene that was not resolved.
    source
        Where the text comes from.
    note
        Notes for the user, separated by semicolons.
    """

    symbol: str
    approved: str = ""
    ensembl: str = ""
    entrez: str = ""
    name: str = ""
    match: str = "unknown"
    text: str = ""
    text_from: str = "symbol"
    source: str = ""
    note: str = ""

    def with_description(
        self, name: str, summary: str, source: str, biotype: str = ""
    ) -> GeneRecord:
        """Return this record with the text of a summary, or of the approved name without one."""
        title = ", ".join(part for part in (self.approved, name) if part) + "."
        gene_type = f" Gene type: {biotype.replace('_', ' ')}." if biotype and not summary else ""
        return replace(
            self,
            name=name,
            text=f"{title} {summary}" if summary else title + gene_type,
            text_from="summary" if summary else "name",
            source=source,
        )

    def with_note(self, note: str) -> GeneRecord:
        """Return this record with a further note."""
        return replace(self, note="; ".join(part for part in (self.note, note) if part))

    def without_doubt_notes(self) -> GeneRecord:
        """Return this record without notes of doubt, which a better source has resolved."""
        notes = [part for part in self.note.split("; ") if not part.startswith("doubtful:")]
        return replace(self, note="; ".join(notes))


def record_from_table(symbol: str, table: GeneTable) -> GeneRecord:
    """Describe the gene of a symbol, an alias or an Ensembl id from a table."""
    match = table.resolve(symbol)
    gene = match.gene
    if gene is None:
        return GeneRecord(symbol, match=match.status, text=symbol, note=match.note)
    record = GeneRecord(symbol, gene.symbol, gene.ensembl, gene.entrez, match=match.status)
    record = record.with_description(gene.name, gene.summary, table.source, gene.biotype)
    record = record.with_note(match.note)
    others = table.symbols_with_same_entrez(gene)
    if others:
        return record.with_note(f"doubtful: the table gives {gene.entrez} to {others[0]} as well")
    return record
