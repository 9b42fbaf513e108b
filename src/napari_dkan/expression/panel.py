"""Panel: the ordered genes a checkpoint predicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..errors import SpotsError


@dataclass(frozen=True)
class Gene:
    """One gene of a panel; everything but the symbol may be unknown ("" or ())."""

    symbol: str
    ensembl: str = ""
    name: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """Ordered genes; row i of a network's output axis is ``genes[i]``."""

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
        return cls(tuple(Gene(s) for s in symbols))

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(self._row)

    def __len__(self) -> int:
        return len(self.genes)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._row

    def row(self, symbol: str) -> int:
        """Row of a symbol or alias, in any case.

        Raises SpotsError when the panel has no such gene.
        """
        if symbol in self._row:
            return self._row[symbol]
        hit = self._find_exact(symbol.upper())
        if hit is None:
            near = ", ".join(g.symbol for g in self.search(symbol)[:3])
            hint = f" Did you mean {near}?" if near else ""
            raise SpotsError(
                f"{symbol} is not among the {len(self)} genes of this checkpoint's panel.{hint}"
            )
        return hit

    def rows(self, symbols: Sequence[str]) -> list[int]:
        return [self.row(s) for s in symbols]

    def search(self, text: str) -> list[Gene]:
        """Genes matching a symbol, an alias (old symbols find new ones) or a substring.

        Best first: exact symbol, exact alias, symbol prefix, then substrings of
        symbol, alias, Ensembl id or name. An empty text gives the whole panel.
        """
        key = text.strip().upper()
        if not key:
            return list(self.genes)
        ranked = [(r, i) for i, g in enumerate(self.genes) if (r := _match_rank(g, key)) is not None]
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
