"""What is known about a panel's genes, from tables that need no network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import SpotsError
from .knowledge.table import read_gene_table, gene_table_paths
from .panel import Gene, Panel


def annotate_panel(panel: Panel, descriptions: str | Path, aliases: str | Path) -> Panel:
    """The panel with Ensembl ids, approved names and aliases where the tables know them.

    descriptions : gzipped TSV with ``symbol``, ``ensembl_id``, ``name``.
    aliases : gzipped TSV with ``alias``, ``approved``.

    The panel's own symbols stay as they are, since they name the columns of the counts. A symbol
    that is not approved any more is looked up through its alias, and then the approved symbol and
    its other aliases become aliases of the gene, so that either spelling finds it. An alias of
    two approved genes is left unresolved rather than guessed.

    Raises SpotsError when a table is missing or lacks those columns.
    """
    table = read_gene_table(descriptions, aliases)

    def one(gene: Gene) -> Gene:
        known = table.resolve(gene.symbol).gene
        if known is None:
            return gene
        others = dict.fromkeys([known.symbol, *table.aliases(known.symbol), *gene.aliases])
        others.pop(gene.symbol, None)
        return replace(
            gene,
            ensembl=gene.ensembl or known.ensembl,
            name=gene.name or known.name,
            aliases=tuple(others),
        )

    return Panel(tuple(one(g) for g in panel.genes))


def annotate_panel_from_folder(panel: Panel, folder: str | Path) -> Panel:
    """`annotate` with the two tables of a folder, under the names they have in our data."""
    return annotate_panel(panel, *gene_table_paths(folder))


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
