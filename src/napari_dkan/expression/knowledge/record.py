"""The description of one gene, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .table import GeneTable

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

    def with_description(self, name: str, summary: str, source: str, biotype: str = "") -> GeneRecord:
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
    record = bare.with_description(gene.name, gene.summary, table.source, gene.biotype).with_note(match.note)
    others = table.symbols_with_same_entrez(gene)
    if others:
        return record.with_note(f"doubtful: the table gives {gene.entrez} to {others[0]} as well")
    return record
