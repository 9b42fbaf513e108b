"""Resolve gene symbols with tables that need no network, and describe genes.

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

# HGNC renamed these after the studies whose panels we ship; alias tables list aliases, not
# previous symbols
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
    """One row of a gene table; everything but the symbol may be "" where it is unknown."""

    symbol: str
    ensembl: str = ""
    name: str = ""
    entrez: str = ""
    biotype: str = ""
    summary: str = ""


@dataclass(frozen=True)
class SymbolMatch:
    """What a name was resolved to.

    how : "approved", "ensembl", "renamed", "alias", "ambiguous" or "unknown"; gene is None for
        the last two.
    note : why, where the gene's approved symbol is not the name that was given.
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
        # A row without an Ensembl id may be a gene under a symbol it had once.
        current = (g for g in genes if g.ensembl)
        object.__setattr__(self, "_by_entrez", _group_by_key((g.entrez, g) for g in current))

    def resolve(self, name: str) -> SymbolMatch:
        """The one gene that a symbol or an Ensembl id (any version) means; never a guess.

        An approved symbol wins, then an Ensembl id, a former symbol, and last an alias that
        belongs to one approved gene. Case counts: Psap is the mouse's gene.
        """
        gene = self.genes.get(name)
        if gene is not None and gene.ensembl:
            return SymbolMatch(gene, "approved")
        if name.startswith("ENSG"):
            found = self._by_ensembl.get(name.split(".")[0], [])
            if len(found) == 1:
                return SymbolMatch(found[0], "ensembl", f"{name} is {found[0].symbol}")
        now = self._find_current_gene(name)
        if now is not None:
            return SymbolMatch(now, "renamed", f"{name} is called {now.symbol} now")
        if gene is not None:
            return SymbolMatch(
                gene, "approved", f"{name} has no Ensembl id; it may be an old symbol"
            )
        return self._resolve_alias(name)

    def aliases(self, symbol: str) -> tuple[str, ...]:
        """The aliases of an approved symbol, those it shares with other genes included."""
        return tuple(self._aliases.get(symbol, ()))

    def symbols_with_same_entrez(self, gene: GeneTableEntry) -> tuple[str, ...]:
        """Other current genes to which the table gives the Entrez id of this one."""
        twins = self._by_entrez.get(gene.entrez, [])
        return tuple(g.symbol for g in twins if g.symbol != gene.symbol)

    def _find_current_gene(self, name: str) -> GeneTableEntry | None:
        renamed = self.genes.get(RENAMED_SYMBOLS.get(name, ""))
        if renamed is not None or name not in self.genes:
            return renamed
        heirs = self._by_entrez.get(self.genes[name].entrez, [])
        return heirs[0] if len(heirs) == 1 and heirs[0].symbol != name else None

    def _resolve_alias(self, name: str) -> SymbolMatch:
        owners = sorted(set(self.approved_by_alias.get(name, ())))
        if len(owners) > 1:
            return SymbolMatch(None, "ambiguous", f"{name} is an alias of {', '.join(owners)}")
        gene = self.genes.get(owners[0]) if owners else None
        if gene is not None:
            return SymbolMatch(gene, "alias", f"{name} is an alias of {gene.symbol}")
        near = self.genes.get(name.upper()) if name != name.upper() else None
        hint = f"; {near.symbol} is written in capitals" if near else ""
        return SymbolMatch(None, "unknown", f"no gene of the table is called {name}{hint}")


def read_gene_table(
    descriptions: str | Path, aliases: str | Path | None = None, *, summaries: bool = False
) -> GeneTable:
    """A table from gzipped (or plain) TSV files with a header line.

    descriptions : ``symbol``, ``ensembl_id``, ``name``; with summaries also ``entrez_id``,
        ``biotype`` and ``refseq_summary``, which are otherwise read where they are there.
    aliases : ``alias``, ``approved``.

    Raises SpotsError when a file is missing, lacks those columns or names a gene twice.
    """
    needed: tuple[str, ...] = ("symbol", "ensembl_id", "name")
    if summaries:
        needed += ("entrez_id", "biotype", "refseq_summary")
    genes: dict[str, GeneTableEntry] = {}
    for row in _read_tsv_rows(descriptions, needed):
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
    """Descriptions and aliases in a folder, under the names they have in our data."""
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
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if not set(columns) <= set(reader.fieldnames or ()):
                raise SpotsError(f"{path} needs the columns {', '.join(columns)}.")
            for row in reader:  # a short line lacks its last cells, a long one has extra ones
                yield {key: value or "" for key, value in row.items() if key is not None}
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise SpotsError(f"{path} cannot be read as a gzipped gene table.") from error


MATCH_STATUSES = ("approved", "ensembl", "renamed", "alias", "ambiguous", "unknown")
TEXT_KINDS = ("refined", "summary", "name", "symbol")


@dataclass(frozen=True)
class GeneRecord:
    """What is known about a gene of a panel; "" where it is not known.

    symbol : the name that was asked for, as a panel spells it. approved : the gene it means.
    match : how it was resolved, one of MATCHES.
    text : what a text encoder reads. text_from : what the text is made of, one of TEXTS; "name"
        is the approved name without a summary, "symbol" the bare name of a gene not resolved.
    source : where the text comes from. note : what a person should know about it.
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
        """This record with the text of a summary, or of the approved name where there is none."""
        start = ", ".join(part for part in (self.approved, name) if part) + "."
        sort = f" Gene type: {biotype.replace('_', ' ')}." if biotype and not summary else ""
        return replace(
            self,
            name=name,
            text=f"{start} {summary}" if summary else start + sort,
            text_from="summary" if summary else "name",
            source=source,
        )

    def with_note(self, note: str) -> GeneRecord:
        """This record with a further note."""
        return replace(self, note="; ".join(part for part in (self.note, note) if part))

    def without_doubt_notes(self) -> GeneRecord:
        """This record without a note of doubt, once a better source has settled it."""
        notes = [part for part in self.note.split("; ") if not part.startswith("doubtful:")]
        return replace(self, note="; ".join(notes))


def record_from_table(symbol: str, table: GeneTable) -> GeneRecord:
    """What a table knows about the gene that a symbol, an alias or an Ensembl id means."""
    match = table.resolve(symbol)
    gene = match.gene
    if gene is None:
        return GeneRecord(symbol, match=match.status, text=symbol, note=match.note)
    bare = GeneRecord(symbol, gene.symbol, gene.ensembl, gene.entrez, match=match.status)
    record = bare.with_description(gene.name, gene.summary, table.source, gene.biotype).with_note(
        match.note
    )
    others = table.symbols_with_same_entrez(gene)
    if others:
        return record.with_note(f"doubtful: the table gives {gene.entrez} to {others[0]} as well")
    return record
