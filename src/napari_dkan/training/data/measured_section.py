"""The labelled spots of a measured section and the panel genes that it contains."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FewGenesError, SpotsError
from ...expression.array_geometry import array_coords_from_lattice
from ...expression.gene_species import describe_species
from ...expression.label_scale import SectionLabels, array_coords_from_section, labels_from_section
from ...expression.panel import Panel
from ...expression.readers.read_account import account_of, set_account
from ...model.checkpoint.checkpoint_file import Checkpoint
from ...spatial.spots import Spots

if TYPE_CHECKING:
    from anndata import AnnData


_log = logging.getLogger(__name__)

MIN_PANEL_SHARE = 0.1  # of a panel that a section measures; fewer names agree by chance


def match_panel_columns(panel: Panel, data: AnnData) -> list[str | None]:
    """Find the column of each panel gene: by symbol, else Ensembl id, else an alias.

    An alias that is the symbol of another panel gene, or an alias of two panel genes, is not
    used: a missing gene is better than a wrong one.

    Returns
    -------
    Names of columns in panel order; None for a gene that the section does not measure.
    """
    names = set(map(str, data.var_names))
    by_id: dict[str, str] = {}
    if "gene_ids" in data.var:
        ids = (str(i).split(".")[0] for i in data.var["gene_ids"])
        by_id = dict(zip(ids, map(str, data.var_names), strict=True))
    alias_counts: dict[str, int] = {}
    for gene in panel.genes:
        for alias in set(gene.aliases) & names:
            alias_counts[alias] = alias_counts.get(alias, 0) + 1
    columns: list[str | None] = []
    for gene in panel.genes:
        if gene.symbol in names:
            columns.append(gene.symbol)
            continue
        if gene.ensembl and (gene.ensembl in by_id or gene.ensembl in names):
            columns.append(by_id.get(gene.ensembl, gene.ensembl))
            continue
        aliases = [a for a in gene.aliases if alias_counts.get(a) == 1 and a not in panel]
        columns.append(aliases[0] if len(aliases) == 1 else None)
    return columns


def select_panel_genes(data: AnnData, panel: Panel) -> tuple[AnnData, Panel, NDArray[np.bool_]]:
    """Select the panel genes that a section measures and name them by the panel's symbols.

    Returns
    -------
    A copy of the section with these genes, the panel of these genes, and (G,) which genes of
    the given panel they are.
    """
    columns = match_panel_columns(panel, data)
    is_measured = np.array([c is not None for c in columns], dtype=bool)
    measured_panel = Panel(tuple(g for g, m in zip(panel.genes, is_measured, strict=True) if m))
    selected = data[:, [c for c in columns if c is not None]].copy()
    selected.var_names = list(measured_panel.symbols)
    return selected, measured_panel, is_measured


def note_measured_genes(data: AnnData, n_measured: int, n_panel: int) -> None:
    """Note in the account of a section how many genes of a checkpoint's panel it measures."""
    matched = f"{n_measured} of the checkpoint's {n_panel} genes are measured"
    set_account(data, account_of(data).add_note(matched))
    _log.info(f"{_section_name(data)}: {matched}")


def require_panel_genes(
    data: AnnData, panel: Panel, n_measured: int, few_genes: bool = False
) -> None:
    """Check that a section measures enough genes of a panel.

    Parameters
    ----------
    n_measured
        How many of them it measures.
    few_genes
        Accept less than a tenth although the genes look like those of another species, of which
        a handful of names agree.

    Raises
    ------
    FewGenesError
        It measures less than a tenth and its genes look like those of another species.
    SpotsError
        It measures none.
    """
    if n_measured >= MIN_PANEL_SHARE * len(panel) or (few_genes and n_measured):
        return
    names = list(map(str, data.var_names))
    ids = list(map(str, data.var["gene_ids"])) if "gene_ids" in data.var else []
    species = describe_species(names) or describe_species(ids)
    if n_measured and not species:
        return
    others = [name for name in names if name not in panel]
    finding = (
        f"{_section_name(data)} measures {n_measured or 'none'} of the checkpoint's "
        f"{len(panel)} genes ({', '.join(panel.symbols[:3])}, ...); its own "
        + (f"look like {species}, such as " if species else "are named like ")
        + f"{', '.join(others[:3])}."
    )
    raise FewGenesError(finding) if n_measured else SpotsError(finding)


def _section_name(data: AnnData) -> str:
    return str(data.uns.get("section") or "The section")


@dataclass(frozen=True)
class MeasuredSection:
    """Labelled spots of a section and the panel genes it measures.

    Attributes
    ----------
    data
        Counts of the measured panel genes, named by the panel's symbols.
    panel
        The measured panel genes.
    panel_rows
        Rows of these genes in the checkpoint's panel.
    missing_genes
        Symbols of the other genes of the checkpoint's panel.
    labels
        Labels of the measured genes on the checkpoint's scale.
    """

    data: AnnData
    panel: Panel
    panel_rows: tuple[int, ...]
    missing_genes: tuple[str, ...]
    labels: SectionLabels

    @property
    def name(self) -> str:
        """Name of the section."""
        return str(self.data.uns["section"])

    def labeled_spots(self) -> Spots:
        """Return the labelled spots."""
        uns, rows = self.data.uns, self.labels.rows
        return Spots(
            np.asarray(self.data.obsm["spatial"], dtype=float)[rows],
            array_coords_from_section(self.data)[rows],
            tuple(map(str, self.data.obs_names[rows])),
            finite_or_none(uns.get("spot_diameter_um")),
            finite_or_none(uns.get("spot_pitch_um")),
        )


def make_measured_section(
    data: AnnData, checkpoint: Checkpoint, few_genes: bool = False
) -> MeasuredSection:
    """Compute labels on the checkpoint's scale for the panel genes that a section measures.

    The library size is the sum over the measured panel genes, so a section that lacks many of
    them is on a slightly different scale. Missing array coordinates are derived where the spots
    form a lattice.

    Parameters
    ----------
    few_genes
        See `require_panel_genes`.

    Raises
    ------
    SpotsError
        When the section has too few of the genes, a single labelled spot, no positions, no
        array, or values that are no counts.
    """
    panel, name = checkpoint.panel, _section_name(data)
    selected, measured_panel, is_measured = select_panel_genes(data, panel)
    require_panel_genes(data, panel, len(measured_panel), few_genes)
    selected.uns["section"] = name
    note_measured_genes(selected, len(measured_panel), len(panel))
    _ensure_array_coordinates(selected, name)
    labels = labels_from_section(selected, measured_panel, checkpoint.label_scale)
    if len(labels.rows) < 2:
        raise SpotsError(
            f"{name} has a single labelled spot; a correlation takes at least two, give more."
        )
    rows = tuple(np.flatnonzero(is_measured).tolist())
    missing = tuple(s for s, m in zip(panel.symbols, is_measured, strict=True) if not m)
    return MeasuredSection(selected, measured_panel, rows, missing, labels)


def _ensure_array_coordinates(data: AnnData, name: str) -> None:
    """Check the positions of the spots, and add array coordinates where they are missing."""
    if "spatial" not in data.obsm:
        raise SpotsError(
            f"{name} has counts but no positions of its spots; give a file with them, or an h5ad "
            "with obsm['spatial'] in level-0 pixels."
        )
    xy = np.asarray(data.obsm["spatial"], dtype=float)
    if not np.isfinite(xy).all():
        raise SpotsError(f"{name} has spots without a finite position; remove those rows.")
    if {"array_col", "array_row"} <= set(data.obs.columns):
        return
    coordinates = array_coords_from_lattice(xy)
    if coordinates is None:
        raise SpotsError(
            f"{name} has no array coordinates and its spots lie on no regular lattice, so its "
            "labels cannot be averaged over neighbours as the checkpoint's were; add array_row "
            "and array_col."
        )
    data.obs["array_col"], data.obs["array_row"] = coordinates.T


def finite_or_none(value: Any) -> float | None:
    """Return a number of ``uns`` as a float; None where it is absent or NaN."""
    return None if value is None or not np.isfinite(float(value)) else float(value)
