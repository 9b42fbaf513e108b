"""Find the sections that one AnnData holds, and take one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import SeveralSectionsError, SpotsError
from ...hdf5_validation import validate_hdf5

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


# Columns of ``obs`` that name sections, compared in lower case without punctuation. The first kind
# decides alone; of the others the first with several values does.
_LIBRARY_COLUMNS = ("libraryid", "library", "libraries", "libraryids")
_SAMPLE_COLUMNS: tuple[str, ...] = (
    "section",
    "sectionid",
    "sectionname",
    "sample",
    "sampleid",
    "samplename",
)
_SAMPLE_COLUMNS += ("slide", "slideid", "slidename", "capturearea", "origident", "batch")
_SAMPLE_COLUMNS += ("slice", "sliceid", "slicename", "tissuesection", "librarykey", "puck")
_SAMPLE_COLUMNS += ("image", "imageid", "imagename")
# What programs that join samples add to a barcode of 10x: ``A1_AAAC...-1``, ``AAAC...-2``.
_JOINED_BARCODE = re.compile(r"(?P<before>.*?)[ACGT]{14,18}(?P<after>-\d+.*)")
_SPATIAL_KEYS = {"images", "scalefactors", "metadata"}  # of an entry of uns['spatial']
_MAX_SHOWN = 6


def list_libraries(obs: pd.DataFrame, uns: Mapping[str, Any]) -> tuple[str, ...]:
    """List the names of the sections of an AnnData; () where it does not name any.

    They are the values of a column of ``obs``, such as ``library_id``, ``sample`` or ``batch``,
    the keys of ``uns['spatial']``, or what is added to the barcodes of 10x.
    """
    return tuple(_label_spots(obs, uns)[0])


def list_file_libraries(path: Path) -> tuple[str, ...]:
    """List the sections of an h5ad without reading its matrices; () if it cannot be read."""
    import h5py
    from anndata.io import read_elem

    try:
        if validate_hdf5(path):
            return ()
        with h5py.File(path, "r") as file:
            spatial = file.get("uns/spatial", {})
            keys = {k: dict.fromkeys(v, 0) for k, v in spatial.items() if hasattr(v, "keys")}
            return list_libraries(read_elem(file["obs"]), {"spatial": keys})
    except Exception:  # a damaged file; reading it reports what is wrong
        return ()


def select_library(data: AnnData, library: str | None, path: Path) -> tuple[AnnData, str]:
    """Select the spots of one section.

    Parameters
    ----------
    data
        With one section or several; it is returned unchanged if it holds one.
    library
        Name of the section; None if there is only one.
    path
        The file, for errors.

    Returns
    -------
    data, library
        Its ``uns['spatial']`` has this section only. The name is "" where `data` holds one.

    Raises
    ------
    SpotsError
        There are several sections and none is named, or it has none of this name.
    """
    labels, name = _find_rows(data.obs, data.uns, library, path)
    if labels is None:
        return data, ""
    if hasattr(data.X, "check_format"):
        _check_sparse(data, path)
    selected = data[labels == name].copy()
    selected.uns = _uns_of_library(data.uns, name)
    return selected, name


def select_table_library(table: pd.DataFrame, library: str | None, path: Path) -> pd.DataFrame:
    """Select the rows of one section of a table of spots; see `select_library`.

    Parameters
    ----------
    table
        Its index has the names of the spots.
    """
    labels, name = _find_rows(table, {}, library, path)
    return table if labels is None else table[labels == name]


def _find_rows(
    obs: pd.DataFrame, uns: Mapping[str, Any], library: str | None, path: Path
) -> tuple[NDArray[np.str_] | None, str]:
    """Return the section of each spot and the one to take; (None, "") where there is only one."""
    names, labels = _label_spots(obs, uns)
    if library is None and len(names) < 2:
        return None, ""
    shown = ", ".join(names[:_MAX_SHOWN]) + (", ..." if len(names) > _MAX_SHOWN else "")
    if library is None:
        if labels is None:
            raise SpotsError(
                f"{path} holds several sections ({shown}) in uns['spatial'], and no column of obs "
                "says which spot belongs to which; add obs['library_id']."
            )
        raise SeveralSectionsError(f"{path} holds {len(names)} sections ({shown}).")
    if library not in names or (labels is None and len(names) > 1):
        held = f"it holds {shown}" if names else "it names no sections"
        raise SpotsError(f"{path} has no section {library}; {held}.")
    return (None, "") if len(names) < 2 else (labels, library)


def select_counted_library(data: AnnData, library: str | None, path: Path) -> AnnData:
    """Select the section of counts whose positions are in another file.

    Without a name the spots of all sections are taken, which their names tell apart.

    Raises
    ------
    SpotsError
        There is no such section, or two sections have a spot of one name.
    """
    if library is None and data.obs_names.is_unique:
        return data
    if library is None and len(list_libraries(data.obs, data.uns)) < 2:
        return data
    return select_library(data, library, path)[0]


def _label_spots(
    obs: pd.DataFrame, uns: Mapping[str, Any]
) -> tuple[list[str], NDArray[np.str_] | None]:
    """Return the names of the sections, and that of each spot, None where it is not known."""
    keys = _spatial_keys(uns)
    columns = {re.sub("[^a-z0-9]", "", str(c).lower()): c for c in reversed(list(obs.columns))}
    for name in _LIBRARY_COLUMNS:
        if name in columns and (labels := _labels(obs[columns[name]])) is not None:
            return _distinct(labels), labels
    candidates = [
        labels
        for name in _SAMPLE_COLUMNS
        if name in columns and (labels := _labels(obs[columns[name]])) is not None
    ]
    if len(keys) > 1:
        every = [labels for c in obs.columns if (labels := _labels(obs[c])) is not None]
        for labels in [*candidates, *every]:
            if set(labels) <= set(keys):
                return _distinct(labels), labels
        by_name = _labels_of_names(obs, keys)
        if by_name is not None:
            return _distinct(by_name), by_name
        return keys, None
    several = [labels for labels in candidates if len(set(labels)) > 1]
    if several:
        labels = max(several, key=lambda values: len(set(values)))
        return _distinct(labels), labels
    if (joined := _labels_of_barcodes(obs)) is not None:
        return _distinct(joined), joined
    return keys, None


def _spatial_keys(uns: Mapping[str, Any]) -> list[str]:
    spatial = uns.get("spatial")
    if not isinstance(spatial, Mapping):
        return []
    return [
        str(key)
        for key, value in spatial.items()
        if isinstance(value, Mapping) and _SPATIAL_KEYS & set(value)
    ]


def _labels(column: pd.Series) -> NDArray[np.str_] | None:
    """Return the values as text; None for a column of measurements or of names of spots."""
    import pandas as pd

    if pd.api.types.is_float_dtype(column.dtype) or not len(column) or column.isna().all():
        return None
    n_values = column.nunique(dropna=False)
    if n_values > 1 and n_values > len(column) / 2:
        return None
    texts = column.astype(object).where(column.notna(), "").astype(str)
    return np.asarray(texts, dtype=np.str_)


def _labels_of_names(obs: pd.DataFrame, keys: list[str]) -> NDArray[np.str_] | None:
    """Return the key with which the name of each spot begins or ends, None if some have none."""
    labels = []
    for name in map(str, obs.index):
        found = [
            key
            for key in keys
            if re.search(rf"[-_:.]{re.escape(key)}$|^{re.escape(key)}[-_:.]", name)
        ]
        if not found:
            return None
        labels.append(max(found, key=len))
    return np.array(labels)


def _labels_of_barcodes(obs: pd.DataFrame) -> NDArray[np.str_] | None:
    """Return what was added to the barcode of each spot, None if it is the same for all."""
    matches = [_JOINED_BARCODE.fullmatch(str(name)) for name in obs.index]
    labels = [(m["before"] + m["after"]).strip("-_ ") for m in matches if m is not None]
    if len(labels) < len(matches) or not 1 < len(set(labels)) <= len(labels) / 2:
        return None
    return np.array(labels)


def _distinct(labels: NDArray[np.str_]) -> list[str]:
    return [str(name) for name in dict.fromkeys(labels.tolist()) if name]


def _uns_of_library(uns: Mapping[str, Any], library: str) -> dict[str, Any]:
    """Return ``uns`` without the images and scale factors of other sections."""
    selected = {key: value for key, value in uns.items() if key not in ("spatial", "image")}
    spatial = uns.get("spatial")
    if isinstance(spatial, Mapping) and library in spatial:
        selected["spatial"] = {library: spatial[library]}
    return selected


def _check_sparse(data: AnnData, path: Path) -> None:
    from .anndata_io import check_sparse_indices

    try:
        check_sparse_indices(data)
    except ValueError as error:
        raise SpotsError(f"{path} holds something other than counts; write it again.") from error
