"""Descriptions from NCBI, taken over only where the record is that of the wanted gene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from .entrez import EntrezClient, EntrezGene
from .record import GeneRecord
from .table import RENAMED_SYMBOLS


def update_from_entrez(
    records: Sequence[GeneRecord],
    entrez: EntrezClient,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[GeneRecord]:
    """The records with NCBI's names and summaries, in the same order.

    A gene whose Entrez id is known is fetched by it, others are searched by approved symbol.
    Either way the record counts only when its nomenclature symbol is the wanted one, or, for an
    id, when the wanted one is among its aliases and no gene's symbol any more (it was renamed
    since). A record of another gene is reported in the note, and no summary is taken from it.

    Raises GeneError when NCBI cannot be reached.
    """
    known = entrez.fetch_genes([r.entrez for r in records if r.entrez])
    out = []
    for done, record in enumerate(records):
        advance(done, len(records))
        out.append(_update_record(record, known.get(record.entrez), entrez))
    advance(len(records), len(records))
    return out


def _update_record(record: GeneRecord, by_id: EntrezGene | None, entrez: EntrezClient) -> GeneRecord:
    wanted = record.approved or RENAMED_SYMBOLS.get(record.symbol, record.symbol)
    if by_id is not None and by_id.symbol == wanted:
        return _apply_entrez_gene(record, by_id)
    ids = entrez.search_ids(wanted)
    if by_id is not None and wanted in by_id.aliases and not ids:
        return _apply_entrez_gene(record, by_id).with_note(f"NCBI calls {wanted} {by_id.symbol} now")
    if by_id is not None:
        note = f"mismatch: NCBI's record {by_id.entrez} is {by_id.symbol}, not {wanted}"
        # The table has its summary from the same record.
        record = replace(record.with_description(record.name, "", record.source), entrez="").with_note(note)
    found = entrez.fetch_genes(ids)
    same = [gene for gene in found.values() if gene.symbol == wanted]
    if len(same) == 1:
        return _apply_entrez_gene(record, same[0])
    if same:
        return record.with_note(f"NCBI has {len(same)} human genes called {wanted}, none was taken")
    for gene in found.values():
        record = record.with_note(f"mismatch: NCBI found {gene.symbol} for {wanted}")
    return record if found else record.with_note(f"NCBI has no human gene called {wanted}")


def _apply_entrez_gene(record: GeneRecord, gene: EntrezGene) -> GeneRecord:
    record, match = record.without_doubt_notes(), record.match
    if not record.approved:
        match = "approved" if gene.symbol == record.symbol else "renamed"
        record = replace(record, note="")
        if match == "renamed":
            record = record.with_note(f"{record.symbol} is called {gene.symbol} now")
    record = replace(record, approved=gene.symbol, entrez=gene.entrez, match=match)
    if not gene.summary and record.text_from == "summary":
        return record.with_note("NCBI has no summary, so the table's is kept")
    return record.with_description(gene.name, gene.summary, f"NCBI Gene {gene.entrez}")
