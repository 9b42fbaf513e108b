"""What is known about a panel's genes, from tables that need no network."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..errors import SpotsError
from .panel import Gene, Panel

# HGNC renamed these after the studies whose panels we ship; alias tables list aliases, not
# previous symbols
_RENAMED = {
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


def annotate(panel: Panel, descriptions: str | Path, aliases: str | Path) -> Panel:
    """The panel with Ensembl ids, approved names and aliases where the tables know them.

    descriptions : gzipped TSV with ``symbol``, ``ensembl_id``, ``name``.
    aliases : gzipped TSV with ``alias``, ``approved``.

    The panel's own symbols stay as they are, since they name the columns of the counts. A symbol
    that is not approved any more is looked up through its alias, and then the approved symbol and
    its other aliases become aliases of the gene, so that either spelling finds it. An alias of
    two approved genes is left unresolved rather than guessed.

    Raises SpotsError when a table is missing or lacks those columns.
    """
    known = {row["symbol"]: row for row in _rows(descriptions, ("symbol", "ensembl_id", "name"))}
    approved: dict[str, list[str]] = defaultdict(list)
    alias_of: dict[str, list[str]] = defaultdict(list)
    for row in _rows(aliases, ("alias", "approved")):
        approved[row["alias"]].append(row["approved"])
        alias_of[row["approved"]].append(row["alias"])

    def one(gene: Gene) -> Gene:
        symbol = _RENAMED.get(gene.symbol, gene.symbol)
        names = set(approved.get(symbol, ()))
        if symbol not in known and len(names) == 1:
            symbol = names.pop()
        row = known.get(symbol)
        if row is None:
            return gene
        others = dict.fromkeys([symbol, *alias_of.get(symbol, ()), *gene.aliases])
        others.pop(gene.symbol, None)
        return replace(
            gene,
            ensembl=gene.ensembl or row["ensembl_id"],
            name=gene.name or row["name"],
            aliases=tuple(others),
        )

    return Panel(tuple(one(g) for g in panel.genes))


def annotate_from(panel: Panel, folder: str | Path) -> Panel:
    """`annotate` with the two tables of a folder, under the names they have in our data."""
    folder = Path(folder)
    return annotate(
        panel, folder / "human_gene_descriptions.tsv.gz", folder / "hgnc_alias_to_approved.tsv.gz"
    )


def read_panel(path: str | Path) -> Panel:
    """A panel from a text file with one gene symbol per line, in the order of the file.

    Raises SpotsError when the file is missing, empty, not text, or names a gene twice.
    """
    path = Path(path)
    try:
        symbols = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise SpotsError(
            f"{path} cannot be read as a panel; give a text file with one gene per line."
        ) from error
    if not symbols:
        raise SpotsError(f"{path} names no gene; give a text file with one gene per line.")
    return Panel.from_symbols(symbols)


def _rows(path: str | Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    path = Path(path)
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if not set(columns) <= set(reader.fieldnames or ()):
                raise SpotsError(f"{path} needs the columns {', '.join(columns)}.")
            yield from reader
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise SpotsError(f"{path} cannot be read as a gzipped gene table.") from error
