"""Build a gene file from gene symbols: resolve, describe, refine, encode and report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .. import __version__
from ..errors import GeneError
from ..expression.knowledge.gene_records import GeneRecord, GeneTable, record_from_table
from ..expression.knowledge.ncbi_gene import EntrezClient, update_from_entrez
from ..expression.knowledge.summary_refiner import SummaryRefiner
from ..inference.gene_file import GeneFile
from ..model.text_encoders import TextEncoder

NOTE_NO_SUMMARY = "no summary, so the text is the approved name"
NOTE_TRUNCATED = "the end of the text is past the encoder's limit"


def build_gene_file(
    symbols: Sequence[str],
    encoder: TextEncoder,
    table: GeneTable | None = None,
    entrez: EntrezClient | None = None,
    refiner: SummaryRefiner | None = None,
    params: Mapping[str, Any] | None = None,
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> GeneFile:
    """Describe genes and encode their descriptions, in the order of the symbols.

    The text of a gene that is not resolved is its symbol.

    Parameters
    ----------
    table
        Local table of genes, used first.
    entrez
        Client whose texts of NCBI replace those of the table.
    refiner
        Shortens the texts.
    params
        Parameters of the build, recorded in the file.

    Raises
    ------
    GeneError
        When none of the symbols is a gene, or NCBI cannot be reached.
    """
    records = [
        record_from_table(symbol, table) if table else GeneRecord(symbol, text=symbol)
        for symbol in symbols
    ]
    if entrez is not None:
        records = update_from_entrez(records, entrez, lambda *n: on_progress("asking NCBI", *n))
    if not any(record.approved for record in records):
        raise GeneError(
            f"None of the {len(records)} genes is known, {records[0].symbol} first; give approved "
            "symbols or Ensembl ids of human genes."
        )
    if refiner is not None:
        records = refiner(records, lambda *n: on_progress("refining", *n))
    cut_off = encoder.too_long([record.text for record in records])
    records = [_add_notes(r, records, cut) for r, cut in zip(records, cut_off, strict=True)]
    build_info = {
        "version": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "params": dict(params or {}),
        "cut_off": sum(cut_off),
    }
    features = encoder([record.text for record in records])
    return GeneFile(tuple(records), features, encoder.spec, build_info)


def make_gene_report(genes: GeneFile) -> dict[str, Any]:
    """Count genes by kind of match and of text, and list genes with notes."""
    records = genes.genes
    return {
        "genes": len(records),
        "match": dict(Counter(record.match for record in records)),
        "text": dict(Counter(record.text_from for record in records)),
        "cut_off": genes.build_info.get("cut_off", 0),
        "unresolved": [record.symbol for record in records if not record.approved],
        "mismatches": [record.symbol for record in records if _has_mismatch(record)],
        "notes": {record.symbol: record.note for record in records if record.note},
        "encoder": genes.encoder.to_json(),
        "made": genes.build_info,
    }


def format_gene_report(genes: GeneFile) -> str:
    """Format the report in a few lines."""
    report = make_gene_report(genes)
    match, text = Counter(report["match"]), Counter(report["text"])
    described = text["summary"] + text["refined"]
    lines = [
        f"{report['genes']} genes: {match['approved'] + match['ensembl']} by approved symbol or "
        f"Ensembl id, {match['renamed']} renamed, {match['alias']} by alias, "
        f"{len(report['unresolved'])} not resolved",
        f"{described} with a summary ({text['refined']} refined), {text['name']} with their name "
        f"only, {report['cut_off']} cut off at the encoder's limit",
    ]
    lines += [f"{s}: {report['notes'].get(s, '')}" for s in report["unresolved"]]
    lines += [f"{s}: {report['notes'][s]}" for s in report["mismatches"]]
    return "\n".join(dict.fromkeys(lines))


def _has_mismatch(record: GeneRecord) -> bool:
    """Return whether a source gave, or may have given, another gene."""
    return "mismatch:" in record.note or "doubtful:" in record.note


def _add_notes(record: GeneRecord, records: Sequence[GeneRecord], cut_off: bool) -> GeneRecord:
    """Note a missing summary, a truncated text and a repeated gene."""
    if record.text_from == "name":
        record = record.with_note(NOTE_NO_SUMMARY)
    if cut_off:
        record = record.with_note(NOTE_TRUNCATED)
    same = [r.symbol for r in records if r.approved and r.approved == record.approved]
    others = [symbol for symbol in same if symbol != record.symbol]
    return record.with_note(f"the same gene as {others[0]}") if others else record
