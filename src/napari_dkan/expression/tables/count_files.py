"""Read counts from tables, Parquet, 10x HDF5, Matrix Market and h5ad."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import SpotsError
from ...hdf5_validation import validate_hdf5
from ...size_limits import validate_gzip_size, validate_matrix_market_size
from ..counts import CountMatrix, counts_from_matrix
from ..gene_names import FeatureTable
from .table_files import read_table

if TYPE_CHECKING:
    import pandas as pd

_MTX_NAMES = ("matrix.mtx.gz", "matrix.mtx")
_FEATURE_NAMES = ("features.tsv", "genes.tsv")  # Cell Ranger 2 wrote genes.tsv
# First cells of a header line that other programs add to a list, in lower case without
# punctuation; pandas names a column 0, R calls it x or V1.
_HEADER_CELLS = frozenset(
    (
        *("0", "1", "x", "v1", "id", "ids", "index", "name", "gene", "genes", "geneid", "geneids"),
        *("genename", "genesymbol", "symbol", "ensembl", "ensemblid", "ensemblgeneid", "feature"),
        *("features", "featureid", "featurename", "barcode", "barcodes", "cell", "cells", "cellid"),
        *("cellbarcode", "spot", "spots", "spotid"),
    )
)


def read_counts(path: str | Path, library: str | None = None) -> CountMatrix:
    """Read counts (spots x genes).

    Parameters
    ----------
    path
        A TSV or CSV (gzipped or not) or Parquet table whose first column has the names of the
        spots, a 10x ``.h5``, a 10x Matrix Market folder or its ``matrix.mtx``, whose files may
        have a prefix, or an ``.h5ad``.
    library
        The section of an h5ad that holds several; others have none.

    Raises
    ------
    SpotsError
        The file is none of these or its counts are not raw.
    """
    path = Path(path)
    if path.is_dir():
        return _read_10x_mtx(_find_matrix(path))
    if not path.exists():
        raise SpotsError(f"{path} does not exist; check the path.")
    if path.suffix == ".h5ad":
        from ..readers.anndata_io import counts_from_anndata, read_h5ad_file
        from ..readers.library_choice import select_counted_library

        return counts_from_anndata(
            select_counted_library(read_h5ad_file(path), library, path), path
        )
    if path.name.endswith(_MTX_NAMES):
        return _read_10x_mtx(path)
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
    counts = counts_from_matrix(matrix, [str(s) for s in table.index], FeatureTable(genes), path)
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
            group = _find_10x_matrix(file)
            rows, columns = (int(n) for n in group["shape"][:2])
            matrix = sparse.csc_matrix(
                (group["data"][:], group["indices"][:], group["indptr"][:]), shape=(rows, columns)
            )
            matrix.check_format()
            spots = _decode_strings(group["barcodes"][:])
            table = _read_10x_features(group)
    except (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        # h5py raises any of these for a damaged file.
        raise SpotsError(
            f"{path} is not a readable 10x matrix; copy filtered_feature_bc_matrix.h5 again."
        ) from error
    return _count_features(matrix, spots, table, path)


def _find_10x_matrix(file: Any) -> Any:
    """Return the group of the matrix: ``matrix``, or the genome in files of Cell Ranger 2."""
    if "matrix" in file:
        return file["matrix"]
    (genome,) = file  # ValueError for several
    return file[genome]


def _read_10x_features(group: Any) -> FeatureTable:
    if "features" not in group:
        return FeatureTable(
            _decode_strings(group["gene_names"][:]), _decode_strings(group["genes"][:])
        )
    features = group["features"]
    kinds, genomes = (
        _decode_strings(features[name][:]) if name in features else []
        for name in ("feature_type", "genome")
    )
    names, ids = (_decode_strings(features[name][:]) for name in ("name", "id"))
    return FeatureTable(names, ids, kinds, genomes)


def _find_matrix(folder: Path) -> Path:
    """Find the only matrix.mtx of a folder, with or without a prefix, or one level down.

    Cell Ranger 2 wrote ``filtered_gene_bc_matrices/GRCh38/matrix.mtx``. Raises SpotsError if
    there is none or if there are several.
    """
    plain = [p for name in _MTX_NAMES if (p := folder / name).is_file()]
    if plain:
        return plain[0]
    found = [p for name in _MTX_NAMES for p in sorted(folder.glob(f"*[-_. ]{name}"))]
    names = [p.name for p in found]
    if not found:
        inside = (p for p in sorted(folder.iterdir()) if p.is_dir())
        by_folder = [[p for name in _MTX_NAMES if (p := f / name).is_file()] for f in inside]
        found = [paths[0] for paths in by_folder if paths]
        names = [p.parent.name for p in found]
    if len(found) > 1:
        raise SpotsError(
            f"{folder} holds {len(found)} matrices ({', '.join(names[:4])}); give one of them as "
            "the counts."
        )
    if not found:
        h5_names = ", ".join(p.name for p in sorted(folder.glob("*.h5"))[:3])
        advice = f"give {h5_names} as the counts" if h5_names else "copy the whole folder again"
        raise SpotsError(f"{folder} has no matrix.mtx.gz; {advice}.")
    return found[0]


def _read_10x_mtx(path: Path) -> CountMatrix:
    """Read a matrix.mtx with its lists features.tsv and barcodes.tsv, of the same prefix."""
    from scipy.io import mmread

    folder, prefix = path.parent, path.name.removesuffix(".gz").removesuffix("matrix.mtx")
    feature_path = _find_list(folder, prefix, _FEATURE_NAMES)
    barcode_path = _find_list(folder, prefix, ("barcodes.tsv",))
    try:
        if problem := validate_gzip_size(path) or validate_matrix_market_size(path):
            raise SpotsError(f"{path} is not read: {problem}; copy it again.")
        matrix = mmread(path)
    except (OSError, EOFError, ValueError, TypeError, IndexError) as error:
        raise SpotsError(f"{path} is not a readable matrix; copy it again.") from error
    features, feature_notes = _read_list(feature_path, matrix.shape[0], path)
    barcodes, barcode_notes = _read_list(barcode_path, matrix.shape[1], path)
    columns = [features[i].astype(str).tolist() for i in features.columns[:3]]
    ids, genes, kinds = (*columns, [], [])[:3] if len(columns) > 1 else (columns[0], columns[0], [])
    table = FeatureTable(genes, ids, kinds)
    counts = _count_features(matrix, barcodes[0].astype(str).tolist(), table, folder)
    return replace(counts, account=counts.account.add_note(*feature_notes, *barcode_notes))


def _find_list(folder: Path, prefix: str, names: tuple[str, ...]) -> Path:
    paths = (folder / f"{prefix}{name}{end}" for name in names for end in (".gz", ""))
    path = next((p for p in paths if p.is_file()), None)
    if path is None:
        raise SpotsError(f"{folder} has no {prefix}{names[0]}.gz; copy the whole folder again.")
    return path


def _read_list(path: Path, n_expected: int, matrix_path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read a list of features or barcodes without its header line, and say if it had one.

    Raises SpotsError if it has not as many rows as the matrix needs.
    """
    table = read_table(path, header=False, as_text=True)
    if len(table) == n_expected:
        return table, []
    first = str(table.iloc[0, 0])
    if len(table) == n_expected + 1 and _plain(first) in _HEADER_CELLS:
        return table.iloc[1:], [f"{path.name}: its first line ({first}) is a header"]
    raise SpotsError(
        f"{path} has {len(table):,} rows and {matrix_path.name} needs {n_expected:,}; its first "
        f"row is {first}: if that is a header, remove it, else copy both files again."
    )


def _plain(cell: str) -> str:
    return "".join(c for c in cell.lower() if c.isalnum())


def _count_features(
    matrix: Any, spots: list[str], features: FeatureTable, path: Path
) -> CountMatrix:
    """Return the counts of a matrix of features x spots."""
    lists = (features.ensembl_ids, features.kinds, features.genomes)
    n_features = len(features.names)
    if matrix.shape != (n_features, len(spots)) or any(n_features != len(x) for x in lists if x):
        raise SpotsError(f"{path}: its matrix does not fit its lists of features and barcodes.")
    return counts_from_matrix(matrix.T, spots, features, path)


def _decode_strings(values: NDArray[Any]) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]
