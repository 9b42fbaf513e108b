"""Which column of a count table holds a panel's gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..expression.panel import Panel

if TYPE_CHECKING:
    from anndata import AnnData


def match_panel_columns(panel: Panel, data: AnnData) -> list[str | None]:
    """For each gene its column: by symbol, else Ensembl id, else an alias; None without one.

    An alias that is another gene's symbol in the panel, or that two genes would claim, is not
    followed: a gene too few is better than a wrong one.
    """
    names = set(map(str, data.var_names))
    by_id: dict[str, str] = {}
    if "gene_ids" in data.var:
        ids = (str(i).split(".")[0] for i in data.var["gene_ids"])
        by_id = dict(zip(ids, map(str, data.var_names), strict=True))
    claims: dict[str, int] = {}
    for gene in panel.genes:
        for alias in set(gene.aliases) & names:
            claims[alias] = claims.get(alias, 0) + 1
    found: list[str | None] = []
    for gene in panel.genes:
        if gene.symbol in names:
            found.append(gene.symbol)
            continue
        if gene.ensembl and (gene.ensembl in by_id or gene.ensembl in names):
            found.append(by_id.get(gene.ensembl, gene.ensembl))
            continue
        aliases = [a for a in gene.aliases if claims.get(a) == 1 and a not in panel]
        found.append(aliases[0] if len(aliases) == 1 else None)
    return found


def rename_to_panel_symbols(data: AnnData, panel: Panel) -> AnnData:
    """The section with its genes under the panel's symbols; what is missing is told later."""
    columns = match_panel_columns(panel, data)
    known = [(s, c) for s, c in zip(panel.symbols, columns, strict=True) if c is not None]
    part = data[:, [c for _, c in known]].copy()
    part.var_names = [s for s, _ in known]
    return part
