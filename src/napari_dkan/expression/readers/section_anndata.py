"""Build the AnnData of a section from counts, spots and metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import SpotsError
from ...spatial.spots import Spots
from ..array_geometry import mpp_from_spots
from ..counts import CountMatrix
from .read_account import ACCOUNT_KEY, ReadAccount, log_account

if TYPE_CHECKING:
    from anndata import AnnData


_MAX_MPP_RATIO = 1.1  # pixel sizes that differ by more than this factor contradict each other
_ARRAY_ORIGIN = "spot array"


@dataclass(frozen=True)
class SectionEntry:
    """A section that was found and can be read.

    Attributes
    ----------
    name
        Unique in its folder.
    patient
        "" if unknown before the section is read, or at all.
    layout
        "her2st", "DKAN", "Space Ranger", "HEST-1k", "SpatialData" or "h5ad".
    read
        Reads the section; see `build_section`. Raises SpotsError.
    """

    name: str
    patient: str
    layout: str
    read: Callable[[], AnnData]


@dataclass(frozen=True)
class SectionMetadata:
    """What a layout states about a section besides counts and spots.

    Attributes
    ----------
    name
        Of the section.
    patient
        "" when unknown.
    image
        Path of the full-resolution image, "" when there is none.
    mpp
        um per px of that image, None to fit it to the spot array.
    mpp_origin
        Where `mpp` comes from.
    notes
        Further entries of ``uns``, for example why there is no image.
    account
        What the reader left out or chose, beside what `CountMatrix` and `Spots` state.
    """

    name: str
    patient: str = ""
    image: str = ""
    mpp: float | None = None
    mpp_origin: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)
    account: ReadAccount = field(default_factory=ReadAccount)


def build_section(
    counts: CountMatrix, spots: Spots, metadata: SectionMetadata, source: Path
) -> AnnData:
    """Build a section of the spots that have both counts and a position.

    Parameters
    ----------
    counts, spots
        Matched by the names of the spots.
    metadata
        Of the section.
    source
        The file or folder with the positions, for errors.

    Returns
    -------
    AnnData
        Spots in the order of `spots`: ``.X`` raw counts (csr float32), ``var['gene_ids']`` where
        known, ``obs['array_row'|'array_col']`` where known, ``obsm['spatial']`` spot centres
        (x, y) in level-0 px of the image, and in ``uns``: ``section``, ``patient`` and ``image``
        ("" when unknown), ``mpp``, ``spot_pitch_um`` and ``spot_diameter_um`` (NaN when
        unknown), ``mpp_origin``, ``mpp_array`` where the spot array contradicts it,
        ``spots_without_counts``, ``genes_merged``, the notes, and
        ``read_account`` (`ReadAccount.to_dict`).

    Raises
    ------
    SpotsError
        A spot is named twice, or counts and positions have no spot in common.
    """
    import anndata
    import pandas as pd

    if not spots.names:
        raise SpotsError(
            f"{source} does not name its spots, so they cannot be matched with the counts; "
            "add a column id."
        )
    if len(set(spots.names)) != len(spots):
        duplicate = next(n for n in spots.names if spots.names.count(n) > 1)
        raise SpotsError(f"{source} names spot {duplicate} twice; keep one.")
    row_of = {name: i for i, name in enumerate(counts.spot_names)}
    present = np.array([name in row_of for name in spots.names], dtype=bool)
    if not present.any() and set(spots.names) & set(counts.genes):
        raise SpotsError(
            f"{counts.account.file} has the genes in its rows and the spots in its columns; "
            "transpose it."
        )
    if not present.any():
        raise SpotsError(
            f"The counts and {source} have no spot in common: {counts.spot_names[0]} is not like "
            f"{spots.names[0] if len(spots) else 'an empty list'}."
        )
    _check_same_sample(counts, spots, source)
    n_missing = len(spots) - int(present.sum())
    mpp, origin, note = _resolve_mpp(spots, metadata)  # from all spots, with counts or without
    spots = spots.take(present)
    obs = pd.DataFrame(index=pd.Index(spots.names, dtype=str))
    if spots.array_coords is not None:
        obs["array_row"], obs["array_col"] = spots.array_coords[:, 1], spots.array_coords[:, 0]
    account = _make_account(counts, spots, n_missing, metadata, source)
    account = replace(account, mpp=None if np.isnan(mpp) else mpp, mpp_origin=origin)
    account = account.add_note(*note.values())
    log_account(account)
    var = pd.DataFrame(index=pd.Index(counts.genes, dtype=str))
    if counts.ensembl_ids:
        var["gene_ids"] = list(counts.ensembl_ids)
    return anndata.AnnData(
        counts.matrix[[row_of[n] for n in spots.names]],
        obs=obs,
        var=var,
        obsm={"spatial": spots.xy},
        uns={
            "section": metadata.name,
            "patient": metadata.patient,
            "image": metadata.image,
            "mpp": mpp,
            "mpp_origin": origin,
            "spot_pitch_um": float("nan") if spots.pitch_um is None else spots.pitch_um,
            "spot_diameter_um": float("nan") if spots.diameter_um is None else spots.diameter_um,
            "spots_without_counts": n_missing,
            "genes_merged": counts.n_merged_genes,
            **note,
            **metadata.notes,
            ACCOUNT_KEY: account.to_dict(),
        },
    )


def _check_same_sample(counts: CountMatrix, spots: Spots, source: Path) -> None:
    """Raise SpotsError if filtered counts are mostly of spots that are off tissue.

    Space Ranger filters by tissue, and the barcodes of all samples are the same, so positions of
    another sample show only by this.
    """
    path = Path(counts.account.file)
    n_off_tissue = len(set(spots.off_tissue) & set(counts.spot_names))
    if "filtered" in path.name and 2 * n_off_tissue > len(counts.spot_names):
        raise SpotsError(
            f"{n_off_tissue} of the {len(counts.spot_names)} barcodes of {path} are off tissue in "
            f"{source}; the two files are not of the same sample."
        )


def _make_account(
    counts: CountMatrix,
    spots: Spots,
    n_without_counts: int,
    metadata: SectionMetadata,
    source: Path,
) -> ReadAccount:
    """Merge what the counts, the spots (those with counts) and the layout state."""
    account = metadata.account.merge(counts.account)
    account = account.merge(
        ReadAccount(str(source), spots_left_out=spots.left_out, notes=spots.notes)
    )
    account = account.leave_out_spots("without counts", n_without_counts)
    n_off_tissue = len(set(spots.off_tissue) & set(counts.spot_names))
    account = account.leave_out_spots(
        "with counts but no position", len(counts.spot_names) - len(spots) - n_off_tissue
    )
    notes = (str(text) for key, text in metadata.notes.items() if key.endswith("_note"))
    return replace(
        account.add_note(*notes),
        spots_read=len(spots),
        genes_read=len(counts.genes),
        image=metadata.image,
    )


def _resolve_mpp(spots: Spots, metadata: SectionMetadata) -> tuple[float, str, dict[str, Any]]:
    fitted = mpp_from_spots(spots)
    if metadata.mpp is None:
        return (float("nan"), "", {}) if fitted is None else (fitted, _ARRAY_ORIGIN, {})
    if metadata.mpp_origin == _ARRAY_ORIGIN:  # fitted by its reader to better coordinates
        return metadata.mpp, metadata.mpp_origin, {}
    if fitted is None or max(fitted / metadata.mpp, metadata.mpp / fitted) < _MAX_MPP_RATIO:
        return metadata.mpp, metadata.mpp_origin, {}
    note = f"{metadata.mpp_origin} say {metadata.mpp:.4g} um/px, the spot array says {fitted:.4g}"
    return metadata.mpp, metadata.mpp_origin, {"mpp_note": note, "mpp_array": fitted}
