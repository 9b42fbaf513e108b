"""Sections in the layout of the her2st study (Andersson et al. 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SpotsError
from .arrayfit import ST_DIAMETER_UM, ST_PITCH_UM, fit_mpp
from .spotfile import read_spots, rounded, spot_ids
from .tables import numbers, read_table

if TYPE_CHECKING:
    from anndata import AnnData


def find_section(root: str | Path, section: str) -> tuple[Path, Path, Path]:
    """Image, counts and spot file of a section.

    root : a folder with ``ST-imgs``, ``ST-cnts`` and ``ST-spotfiles``, or one that holds it as
        ``her2st``.

    Raises SpotsError naming what is missing.
    """
    root = Path(root)
    if not (root / "ST-cnts").is_dir() and (root / "her2st" / "ST-cnts").is_dir():
        root = root / "her2st"
    patient = section[:1]
    counts = next(
        (p for end in (".tsv.gz", ".tsv") if (p := root / "ST-cnts" / f"{section}{end}").is_file()),
        None,
    )
    if counts is None:
        raise SpotsError(
            f"{root} has no counts of section {section}; expected ST-cnts/{section}.tsv.gz in it."
        )
    spots = root / "ST-spotfiles" / f"{section}_selection.tsv"
    if not spots.is_file():
        raise SpotsError(f"{spots} does not exist; it holds the spot positions of {section}.")
    folder = root / "ST-imgs" / patient / section
    images = sorted(p for p in folder.glob("*") if p.is_file() and not p.name.startswith("."))
    if len(images) != 1:
        found = "no image" if not images else f"{len(images)} images"
        raise SpotsError(f"{folder} holds {found}; exactly one is expected.")
    return images[0], counts, spots


def read_section(root: str | Path, section: str) -> AnnData:
    """One section: raw counts, spot positions, image and pixel size.

    Returns an AnnData of the spots that have both counts and a position: ``.X`` raw counts
    (sparse float32), names ``XxY``, ``obs['array_row'|'array_col']``, ``obsm['spatial']`` spot
    centres (x, y) in level-0 px, and in ``uns`` ``section``, ``image`` (path), ``mpp`` fitted on
    the array, ``mpp_origin``, ``spot_pitch_um``, ``spot_diameter_um`` and
    ``spots_without_counts``.

    Raises SpotsError naming the file that is missing or not as expected.
    """
    import anndata
    import pandas as pd
    from scipy import sparse

    image, counts_path, spots_path = find_section(root, section)
    spots = read_spots(spots_path)
    table = read_table(spots_path)
    fitted = [c for c in ("new_x", "new_y") if c in table.columns] or ["x", "y"]
    if not {"x", "y", "pixel_x", "pixel_y", *fitted} <= set(table.columns) or spots.array is None:
        raise SpotsError(
            f"{spots_path} is not a her2st spot file; it needs x, y, pixel_x, pixel_y."
        )
    mpp = fit_mpp(
        numbers(table, fitted, spots_path),
        numbers(table, ["pixel_x", "pixel_y"], spots_path),
        ST_PITCH_UM,
    )

    counts = read_table(counts_path, index=True)
    if counts.columns.has_duplicates:
        gene = counts.columns[counts.columns.duplicated()][0]
        raise SpotsError(f"{counts_path} has two columns for gene {gene}; merge them.")
    matrix = _count_matrix(counts, counts_path)
    # ids in the counts may carry decimals like the spot file's coordinates do
    ids = _rounded_ids(counts.index, counts_path)
    row_of = {name: i for i, name in enumerate(ids)}
    if len(row_of) != len(ids):
        name = next(n for n in ids if ids.count(n) > 1)
        raise SpotsError(f"{counts_path} has two rows for spot {name}; keep one.")
    present = np.array([name in row_of for name in spots.names])
    if not present.any():
        raise SpotsError(f"{counts_path} and {spots_path} have no spot in common.")
    missing = len(spots) - int(present.sum())
    spots = spots.take(present)
    assert spots.array is not None
    return anndata.AnnData(
        sparse.csr_matrix(matrix[[row_of[n] for n in spots.names]]),
        obs=pd.DataFrame(
            {"array_row": spots.array[:, 1], "array_col": spots.array[:, 0]},
            index=list(spots.names),
        ),
        var=pd.DataFrame(index=counts.columns.astype(str)),
        obsm={"spatial": spots.xy},
        uns={
            "section": section,
            "image": str(image),
            "mpp": mpp,
            "mpp_origin": "spot array",
            "spot_pitch_um": ST_PITCH_UM,
            "spot_diameter_um": ST_DIAMETER_UM,
            "spots_without_counts": missing,
        },
    )


def _count_matrix(counts, path: Path) -> np.ndarray:
    try:
        matrix = counts.to_numpy(dtype=np.float32)
    except ValueError as error:
        raise SpotsError(
            f"{path} holds something other than counts; every cell after the spot "
            "name must be a number."
        ) from error
    if not matrix.size:
        raise SpotsError(f"{path} holds no counts.")
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        raise SpotsError(f"{path} holds negative or missing counts; give raw counts.")
    return matrix


def _rounded_ids(index, path: Path) -> list[str]:
    try:
        pairs = np.array([str(name).split("x") for name in index], dtype=float).reshape(-1, 2)
    except ValueError as error:
        raise SpotsError(f"{path}: the first column must hold spot names like 10x12.") from error
    return list(spot_ids(rounded(pairs)))
