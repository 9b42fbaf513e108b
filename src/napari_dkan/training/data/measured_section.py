"""The labelled spots of a measured section and the panel genes that it contains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import SpotsError
from ...expression.array_geometry import array_coords_from_lattice
from ...expression.label_scale import SectionLabels, array_coords_from_section, labels_from_section
from ...expression.panel import Panel
from ...model.checkpoint.checkpoint_file import Checkpoint
from ...spatial.spots import Spots

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


@dataclass(frozen=True)
class MeasuredSection:
    """Labelled spots of a section and the panel genes it measures.

    data : its genes under the panel's symbols. rows : of these genes in the checkpoint's panel.
    """

    data: AnnData
    panel: Panel
    panel_rows: tuple[int, ...]
    missing_genes: tuple[str, ...]
    labels: SectionLabels

    @property
    def name(self) -> str:
        return str(self.data.uns["section"])

    def labeled_spots(self) -> Spots:
        """The labelled spots."""
        uns, rows = self.data.uns, self.labels.rows
        return Spots(
            np.asarray(self.data.obsm["spatial"], dtype=float)[rows],
            array_coords_from_section(self.data)[rows],
            tuple(map(str, self.data.obs_names[rows])),
            finite_or_none(uns.get("spot_diameter_um")),
            finite_or_none(uns.get("spot_pitch_um")),
        )


def make_measured_section(data: AnnData, checkpoint: Checkpoint) -> MeasuredSection:
    """Labels on the checkpoint's scale of the panel genes that the section measures.

    The library size is that over the genes present, so a section that lacks many of them is on a
    slightly different scale. Array coordinates that it lacks are derived where its spots lie on a
    lattice. Raises SpotsError when it has none of the genes, one labelled spot, no positions or
    no array, or counts that are no counts.
    """
    panel, name = checkpoint.panel, str(data.uns.get("section") or "The section")
    columns = match_panel_columns(panel, data)
    rows = tuple(i for i, column in enumerate(columns) if column is not None)
    if not rows:
        raise SpotsError(
            f"{name} measures none of the checkpoint's {len(panel)} genes "
            f"({', '.join(panel.symbols[:3])}, ...); its genes are named like "
            f"{', '.join(map(str, data.var_names[:3]))}."
        )
    kept = Panel(tuple(panel.genes[i] for i in rows))
    part = data[:, [c for c in columns if c is not None]].copy()
    part.var_names = list(kept.symbols)
    part.uns["section"] = name
    _ensure_array_coordinates(part, name)
    labels = labels_from_section(part, kept, checkpoint.label_scale)
    if len(labels.rows) < 2:
        raise SpotsError(
            f"{name} has a single labelled spot; a correlation takes at least two, give more."
        )
    missing = tuple(g.symbol for i, g in enumerate(panel.genes) if i not in set(rows))
    return MeasuredSection(part, kept, rows, missing, labels)


def _ensure_array_coordinates(part: AnnData, name: str) -> None:
    """Check that its spots have positions, and give them array coordinates where they lack."""
    if "spatial" not in part.obsm:
        raise SpotsError(
            f"{name} has counts but no positions of its spots; give a file with them, or an h5ad "
            "with obsm['spatial'] in level-0 pixels."
        )
    xy = np.asarray(part.obsm["spatial"], dtype=float)
    if not np.isfinite(xy).all():
        raise SpotsError(f"{name} has spots without a finite position; remove those rows.")
    if {"array_col", "array_row"} <= set(part.obs.columns):
        return
    array = array_coords_from_lattice(xy)
    if array is None:
        raise SpotsError(
            f"{name} has no array coordinates and its spots lie on no regular lattice, so its "
            "labels cannot be averaged over neighbours as the checkpoint's were; add array_row "
            "and array_col."
        )
    part.obs["array_col"], part.obs["array_row"] = array.T


def finite_or_none(value: Any) -> float | None:
    """A number of ``uns``, None where it is absent or NaN."""
    return None if value is None or not np.isfinite(float(value)) else float(value)
