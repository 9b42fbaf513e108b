"""The ordered genes that a checkpoint predicts, read from text and annotated from gene tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import SpotsError
from .knowledge.gene_records import gene_table_paths, read_gene_table


@dataclass(frozen=True)
class Gene:
    """One gene of a panel; all fields but the symbol may be unknown ("" or ())."""

    symbol: str
    ensembl: str = ""
    name: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """Ordered genes; entry i of the network's gene axis is ``genes[i]``.

    Raises SpotsError if a symbol is repeated.
    """

    genes: tuple[Gene, ...]
    _row: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rows: dict[str, int] = {}
        for i, gene in enumerate(self.genes):
            if gene.symbol in rows:
                raise SpotsError(f"The panel names {gene.symbol} twice; each gene may appear once.")
            rows[gene.symbol] = i
        object.__setattr__(self, "_row", rows)

    @classmethod
    def from_symbols(cls, symbols: Iterable[str]) -> Panel:
        """Create a panel of genes without annotation."""
        return cls(tuple(Gene(s) for s in symbols))

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols in the order of the panel."""
        return tuple(self._row)

    def __len__(self) -> int:
        return len(self.genes)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._row

    def row(self, symbol: str) -> int:
        """Return the row of a symbol, alias or Ensembl id, case-insensitive.

        Raises SpotsError, with similar symbols, if the panel has no such gene.
        """
        if symbol in self._row:
            return self._row[symbol]
        row = self._find_exact(symbol.upper())
        if row is None:
            similar = ", ".join(g.symbol for g in self.search(symbol)[:3])
            hint = f" Did you mean {similar}?" if similar else ""
            raise SpotsError(
                f"{symbol} is not among the {len(self)} genes of this checkpoint's panel.{hint}"
            )
        return row

    def rows(self, symbols: Sequence[str]) -> list[int]:
        """Return the rows of several symbols; see `row`."""
        return [self.row(s) for s in symbols]

    def search(self, text: str) -> list[Gene]:
        """Find genes by symbol, alias (such as a former symbol) or substring.

        Best first: exact symbol, exact alias, symbol prefix, then substrings of symbol, alias,
        Ensembl id or name. An empty text returns the whole panel.
        """
        key = text.strip().upper()
        if not key:
            return list(self.genes)
        ranked = [
            (r, i) for i, g in enumerate(self.genes) if (r := _match_rank(g, key)) is not None
        ]
        return [self.genes[i] for _, i in sorted(ranked)]

    def _find_exact(self, key: str) -> int | None:
        for i, gene in enumerate(self.genes):
            if gene.symbol.upper() == key:
                return i
        for i, gene in enumerate(self.genes):
            if key in (a.upper() for a in gene.aliases) or gene.ensembl.upper() == key:
                return i
        return None


def _match_rank(gene: Gene, key: str) -> int | None:
    symbol = gene.symbol.upper()
    aliases = [a.upper() for a in gene.aliases]
    if symbol == key:
        return 0
    if key in aliases:
        return 1
    if symbol.startswith(key):
        return 2
    if key in symbol:
        return 3
    if any(key in a for a in aliases) or key in gene.ensembl.upper():
        return 4
    return 5 if key in gene.name.upper() else None


def annotate_panel(panel: Panel, descriptions: str | Path, aliases: str | Path) -> Panel:
    """Add Ensembl ids, approved names and aliases from gene tables.

    The symbols of the panel stay, since they name the columns of the counts. A symbol that is no
    longer approved is resolved by its alias; the approved symbol and its other aliases become
    aliases of the gene, so that each of them finds it. An alias of two approved genes is not
    resolved.

    Parameters
    ----------
    descriptions
        Gzipped TSV with ``symbol``, ``ensembl_id``, ``name``.
    aliases
        Gzipped TSV with ``alias``, ``approved``.

    Raises
    ------
    SpotsError
        A table is missing or does not have those columns.
    """
    table = read_gene_table(descriptions, aliases)

    def annotate(gene: Gene) -> Gene:
        entry = table.resolve(gene.symbol).gene
        if entry is None:
            return gene
        other_names = dict.fromkeys([entry.symbol, *table.aliases(entry.symbol), *gene.aliases])
        other_names.pop(gene.symbol, None)
        return replace(
            gene,
            ensembl=gene.ensembl or entry.ensembl,
            name=gene.name or entry.name,
            aliases=tuple(other_names),
        )

    return Panel(tuple(annotate(gene) for gene in panel.genes))


def annotate_panel_from_folder(panel: Panel, folder: str | Path) -> Panel:
    """Annotate a panel with the two gene tables of a folder; see `gene_table_paths`."""
    return annotate_panel(panel, *gene_table_paths(folder))


def read_panel(path: str | Path) -> Panel:
    """Read a panel from a text file with one gene symbol per line.

    Raises
    ------
    SpotsError
        The file is missing, empty, not text, or has a gene twice.
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
