"""Small sections on disk, in the layouts that tests read."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse


def write_tenx(
    path: Path,
    counts: np.ndarray,
    barcodes: list[str],
    genes: list[str],
    ids: list[str] | None = None,
    kinds: list[str] | None = None,
) -> None:
    """A 10x HDF5 matrix; counts are spots x genes."""
    matrix = sparse.csc_matrix(np.asarray(counts).T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = np.array(matrix.shape, dtype=np.int32)
        group["barcodes"] = np.array(barcodes, dtype="S")
        features = group.create_group("features")
        features["name"] = np.array(genes, dtype="S")
        features["id"] = np.array(ids or [f"ENSG{i:05d}" for i in range(len(genes))], dtype="S")
        features["feature_type"] = np.array(kinds or ["Gene Expression"] * len(genes), dtype="S")


def write_positions(path: Path, barcodes: list[str], in_tissue: list[int], xy: np.ndarray) -> None:
    """Space Ranger's positions on a square array, as CSV with a header or as Parquet."""
    side = int(np.ceil(np.sqrt(len(barcodes))))
    rows, columns = np.divmod(np.arange(len(barcodes)), side)
    table = pd.DataFrame(
        {
            "barcode": barcodes,
            "in_tissue": in_tissue,
            "array_row": rows,
            "array_col": columns,
            "pxl_row_in_fullres": xy[:, 1],
            "pxl_col_in_fullres": xy[:, 0],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False)


def write_bins(sample: Path, bin_um: int, mpp: float, side: int = 5) -> list[str]:
    """One bin size of a Visium HD output; the first bin lies off the tissue."""
    folder = sample / "binned_outputs" / f"square_{bin_um:03d}um"
    barcodes = [f"s_{bin_um:03d}um_{i // side:05d}_{i % side:05d}-1" for i in range(side**2)]
    row, column = np.divmod(np.arange(side**2), side)
    xy = (np.column_stack([column, row]) + 0.5) * bin_um / mpp
    write_positions(folder / "spatial" / "tissue_positions.parquet", barcodes, [0] + [1] * 24, xy)
    factors = {"microns_per_pixel": mpp, "bin_size_um": float(bin_um)}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    counts = np.arange(side**2 * 3).reshape(-1, 3)
    write_tenx(folder / "filtered_feature_bc_matrix.h5", counts, barcodes, ["A", "B", "C"])
    return barcodes


def write_st(
    root: Path, section: str, spots: pd.DataFrame, counts: pd.DataFrame, ending: str
) -> None:
    """Counts and a spot file as her2st or the published layout name them; no image."""
    for folder in ("ST-cnts", "ST-spotfiles"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    spots.to_csv(root / "ST-spotfiles" / f"{section}_selection.tsv", sep="\t", index=False)
    path = root / "ST-cnts" / f"{section}{ending}"
    if ending.endswith(".parquet"):
        counts.to_parquet(path)
    else:
        counts.to_csv(path, sep="\t")


def st_spots(side: int = 4, pitch_px: float = 290.0) -> pd.DataFrame:
    """A square array of spots in her2st's columns."""
    y, x = (a.ravel() for a in np.mgrid[1 : side + 1, 1 : side + 1])
    pixels = {"pixel_x": x * pitch_px, "pixel_y": y * pitch_px}
    return pd.DataFrame({"x": x, "y": y, "new_x": x, "new_y": y, **pixels, "selected": 1})


def st_counts(spots: pd.DataFrame, genes: tuple[str, ...] = ("A", "B")) -> pd.DataFrame:
    """Counts of such spots: gene j of spot i has i + j."""
    names = [f"{x}x{y}" for x, y in zip(spots["x"].round(), spots["y"].round(), strict=True)]
    values = np.add.outer(np.arange(len(names)), np.arange(len(genes)))
    return pd.DataFrame(values, index=names, columns=list(genes))
