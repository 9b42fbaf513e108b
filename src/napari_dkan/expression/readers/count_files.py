"""Read counts from tables, Parquet, 10x HDF5, Matrix Market and h5ad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import SpotsError
from ...hdf5_validation import validate_hdf5
from ...size_limits import validate_gzip_size, validate_matrix_market_size
from ..counts import CountMatrix, counts_from_matrix
from .table_files import read_table

_GENE_FEATURE_TYPE = "Gene Expression"  # 10x files may also have antibodies and others


def read_counts(path: str | Path) -> CountMatrix:
    """Read counts (spots x genes).

    Parameters
    ----------
    path
        A TSV or CSV (gzipped or not) or Parquet table whose first column has the names of the
        spots, a 10x ``.h5``, a 10x Matrix Market folder, or an ``.h5ad``.

    Raises
    ------
    SpotsError
        The file is none of these or its counts are not raw.
    """
    path = Path(path)
    if path.is_dir():
        return _read_10x_mtx(path)
    if not path.exists():
        raise SpotsError(f"{path} does not exist; check the path.")
    if path.suffix == ".h5ad":
        from .anndata_io import counts_from_anndata, read_h5ad_file

        return counts_from_anndata(read_h5ad_file(path), path)
    return _read_10x_hdf5(path) if path.suffix in (".h5", ".hdf5") else _read_count_table(path)


def _read_count_table(path: Path) -> CountMatrix:
    table = read_table(path, index=True)
    genes = [str(c) for c in table.columns]
    try:
        matrix = table.to_numpy(dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise SpotsError(
            f"{path} holds something other than counts; every cell after the spot "
            "name must be a number."
        ) from error
    counts = counts_from_matrix(matrix, [str(s) for s in table.index], genes, path)
    return replace(counts, account=counts.account.add_note(*table.attrs.get("notes", ())))


def _read_10x_hdf5(path: Path) -> CountMatrix:
    """Read the HDF5 of Space Ranger 1 to 4 ("Feature-Barcode Matrices HDF5", version 2)."""
    import h5py
    from scipy import sparse

    try:
        if problem := validate_hdf5(path):
            raise SpotsError(
                f"{path} is not a readable 10x matrix ({problem}); "
                "copy filtered_feature_bc_matrix.h5 again."
            )
        with h5py.File(path, "r") as file:
            group = file["matrix"]
            rows, columns = (int(n) for n in group["shape"][:2])
            matrix = sparse.csc_matrix(
                (group["data"][:], group["indices"][:], group["indptr"][:]), shape=(rows, columns)
            )
            matrix.check_format()
            spots = _decode_strings(group["barcodes"][:])
            features = group["features"]
            genes, ids = _decode_strings(features["name"][:]), _decode_strings(features["id"][:])
            kinds = (
                _decode_strings(features["feature_type"][:]) if "feature_type" in features else []
            )
    except (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        # h5py raises any of these for a damaged file.
        raise SpotsError(
            f"{path} is not a readable 10x matrix; copy filtered_feature_bc_matrix.h5 again."
        ) from error
    return _select_gene_features(matrix, spots, genes, ids, kinds, path)


def _read_10x_mtx(folder: Path) -> CountMatrix:
    """Read a ``filtered_feature_bc_matrix`` folder: matrix.mtx, features.tsv, barcodes.tsv."""
    from scipy.io import mmread

    files = {}
    for name in ("matrix.mtx", "features.tsv", "barcodes.tsv"):
        path = next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)
        if path is None:
            raise SpotsError(f"{folder} has no {name}.gz; copy the whole folder again.")
        files[name] = path
    features = read_table(files["features.tsv"], header=False, as_text=True)
    barcodes = read_table(files["barcodes.tsv"], header=False, as_text=True)
    try:
        path = files["matrix.mtx"]
        if problem := validate_gzip_size(path) or validate_matrix_market_size(path):
            raise SpotsError(f"{path} is not read: {problem}; copy it again.")
        matrix = mmread(path)
    except (OSError, EOFError, ValueError, TypeError, IndexError) as error:
        raise SpotsError(
            f"{files['matrix.mtx']} is not a readable matrix; copy it again."
        ) from error
    columns = [features[i].astype(str).tolist() for i in features.columns[:3]]
    ids, genes, kinds = (*columns, [], [])[:3] if len(columns) > 1 else (columns[0], columns[0], [])
    return _select_gene_features(
        matrix, barcodes[0].astype(str).tolist(), genes, ids, kinds, folder
    )


def _select_gene_features(
    matrix: Any,
    spots: list[str],
    genes: list[str],
    ids: list[str],
    kinds: Sequence[str],
    path: Path,
) -> CountMatrix:
    """Return the counts of the features that are genes; `matrix` is features x spots."""
    if matrix.shape != (len(genes), len(spots)) or (kinds and len(kinds) != len(genes)):
        raise SpotsError(f"{path}: its matrix does not fit its lists of features and barcodes.")
    rows = [
        i
        for i, kind in enumerate(kinds or [_GENE_FEATURE_TYPE] * len(genes))
        if kind == _GENE_FEATURE_TYPE
    ]
    return counts_from_matrix(
        matrix.tocsr()[rows].T, spots, [genes[i] for i in rows], path, [ids[i] for i in rows]
    )


def _decode_strings(values: NDArray[Any]) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]
