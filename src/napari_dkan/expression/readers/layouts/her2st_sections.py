"""Read sections in the folder layout of the her2st study (Andersson et al. 2021).

Counts are TSV as in the study, or Parquet as published with DKAN and TRIPLEX, with encoder
features: ``ST-cnts/ID_sub.parquet``, ``ST-spotfiles/ID_selection.tsv``, ``ST-imgs`` (her2st's
folders, or ``*ID.tif|jpg``), ``gt_features_224/ID.pt`` (N, 1024), ``n_features_5_224/ID.pt``
(N, 25, 1024), ``ST-text/DATASET_ncbi_biobert.pt``, ``genes_DATASET.npy``.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ....errors import SpotsError
from ....spatial.spots import Spots
from ...array_geometry import ST_DIAMETER_UM, ST_PITCH_UM, fit_mpp
from ...counts import round_grid_names
from ...tables.count_files import read_counts
from ...tables.spot_files import read_spots
from ...tables.table_files import (
    names_from_array_coords,
    numeric_columns,
    read_table,
    round_array_coords,
)
from ..image_files import image_stem, list_images
from ..section_anndata import SectionEntry, SectionMetadata, build_section

if TYPE_CHECKING:
    from anndata import AnnData


_TSV_SUFFIXES = (".tsv.gz", ".tsv")
_PARQUET_SUFFIXES = ("_sub.parquet", ".parquet")
TILE_FEATURES_FOLDER, NEIGHBOR_FEATURES_FOLDER = "gt_features_224", "n_features_5_224"


def find_her2st_root(root: str | Path) -> Path:
    """Return the folder with ``ST-cnts``: the root or its ``her2st``."""
    root = Path(root)
    inner = root / "her2st"
    return inner if not (root / "ST-cnts").is_dir() and (inner / "ST-cnts").is_dir() else root


def patient_from_section_name(section: str) -> str:
    """Return the patient of a section: ``C`` of ``C3``, ``P2`` of ``P2_ST_rep1``, else ""."""
    match = re.fullmatch(r"([A-Za-z])\d+|([^_]+)_.*", section)
    return next((group for group in match.groups() if group), "") if match else ""


def find_her2st_sections(root: Path) -> tuple[SectionEntry, ...]:
    """Find the sections with TSV counts in ``ST-cnts``."""
    files = [
        p for end in _TSV_SUFFIXES for p in (find_her2st_root(root) / "ST-cnts").glob(f"*{end}")
    ]
    names = sorted({p.name.removesuffix(".gz").removesuffix(".tsv") for p in files})
    return tuple(
        SectionEntry(
            name,
            patient_from_section_name(name),
            "her2st",
            partial(read_her2st_section, root, name),
        )
        for name in names
        if not name.startswith(".")
    )


def find_her2st_files(root: str | Path, section: str) -> tuple[Path, Path, Path]:
    """Find image, counts and spot file of a section.

    Parameters
    ----------
    root
        A folder with ``ST-imgs``, ``ST-cnts`` and ``ST-spotfiles``, or its parent if the folder
        is called ``her2st``.
    section
        Its name.

    Raises
    ------
    SpotsError
        A file is missing.
    """
    root = find_her2st_root(root)
    counts = next(
        (p for end in _TSV_SUFFIXES if (p := root / "ST-cnts" / f"{section}{end}").is_file()),
        None,
    )
    if counts is None:
        raise SpotsError(
            f"{root} has no counts of section {section}; expected ST-cnts/{section}.tsv.gz in it."
        )
    spots = root / "ST-spotfiles" / f"{section}_selection.tsv"
    if not spots.is_file():
        raise SpotsError(f"{spots} does not exist; it holds the spot positions of {section}.")
    folder = root / "ST-imgs" / section[:1] / section
    images = sorted(p for p in folder.glob("*") if p.is_file() and not p.name.startswith("."))
    if len(images) != 1:
        content = "no image" if not images else f"{len(images)} images"
        raise SpotsError(f"{folder} holds {content}; exactly one is expected.")
    return images[0], counts, spots


def read_her2st_section(root: str | Path, section: str) -> AnnData:
    """Read a section; see `build_section` for the result. The pixel size is fitted to the array.

    Raises
    ------
    SpotsError
        A file is missing or not as expected.
    """
    image, counts_path, spots_path = find_her2st_files(root, section)
    spots = read_spots(spots_path)
    mpp = mpp_from_selection_file(spots_path)
    if mpp is None:
        raise SpotsError(
            f"{spots_path} is not a her2st spot file; it needs x, y, pixel_x, pixel_y."
        )
    counts = read_counts(counts_path)
    if round_grid_names(counts.spot_names) is None:
        raise SpotsError(f"{counts_path}: the first column must hold spot names like 10x12.")
    metadata = SectionMetadata(
        section, patient_from_section_name(section), str(image), mpp, "spot array"
    )
    return build_section(counts, spots, metadata, spots_path)


def mpp_from_selection_file(path: Path) -> float | None:
    """Fit the pixel size to a her2st spot file, None for other kinds of files.

    The study's fit of the array (``new_x, new_y``) follows the printed spots more closely than
    the integer coordinates, so it is preferred.

    Raises SpotsError if the spots do not span a plane.
    """
    table = read_table(path)
    if not {"x", "y", "pixel_x", "pixel_y"} <= set(table.columns):
        return None
    columns = ["new_x", "new_y"] if {"new_x", "new_y"} <= set(table.columns) else ["x", "y"]
    try:
        return fit_mpp(
            numeric_columns(table, columns, path),
            numeric_columns(table, ["pixel_x", "pixel_y"], path),
            ST_PITCH_UM,
        )
    except SpotsError as error:
        if str(path) in str(error):
            raise
        raise SpotsError(f"{path}: {error}") from error


def find_dkan_sections(root: Path) -> tuple[SectionEntry, ...]:
    """Find the sections with Parquet counts in ``ST-cnts``."""
    files = (find_her2st_root(root) / "ST-cnts").glob("*.parquet")
    names = sorted({p.name.removesuffix(".parquet").removesuffix("_sub") for p in files})
    return tuple(
        SectionEntry(
            name, patient_from_section_name(name), "DKAN", partial(read_dkan_section, root, name)
        )
        for name in names
        if not name.startswith(".")
    )


def read_dkan_section(root: str | Path, section: str) -> AnnData:
    """Read a section as published with DKAN; see `build_section` for the result.

    Spots are in the published order (by y, then x), since row i of the feature files is the i-th
    spot of that order. ``uns['features']`` and ``uns['neighbor_features']`` are the paths of
    those files, "" where there is none. The array is assumed to be the 200 um one.

    Raises
    ------
    SpotsError
        A file is missing or not as expected.
    """
    root = find_her2st_root(root)
    counts = next(
        (p for end in _PARQUET_SUFFIXES if (p := root / "ST-cnts" / f"{section}{end}").is_file()),
        None,
    )
    if counts is None:
        raise SpotsError(f"{root} has no ST-cnts/{section}_sub.parquet; copy it there.")
    path = root / "ST-spotfiles" / f"{section}_selection.tsv"
    spots = _read_all_spots(path)
    image = _find_dkan_image(root, section)
    notes = {
        "features": _path_if_exists(root / TILE_FEATURES_FOLDER / f"{section}.pt"),
        "neighbor_features": _path_if_exists(root / NEIGHBOR_FEATURES_FOLDER / f"{section}.pt"),
    }
    if not image:
        notes["image_note"] = f"ST-imgs has no image of {section}"
    metadata = SectionMetadata(
        section,
        patient_from_section_name(section),
        image,
        _fit_mpp_or_none(path),
        "spot array",
        notes,
    )
    return build_section(read_counts(counts), spots, metadata, path)


def find_dkan_panel(root: str | Path) -> Path | None:
    """Find the ``genes_*.npy`` of a dataset. Raises SpotsError if there are several."""
    return _find_single_file(find_her2st_root(root), "genes_*.npy")


def find_dkan_gene_text(root: str | Path) -> Path | None:
    """Find gene text features, ``ST-text/*.pt``. Raises SpotsError if there are several."""
    return _find_single_file(find_her2st_root(root) / "ST-text", "*.pt")


def _read_all_spots(path: Path) -> Spots:
    """Read all spots of the file, selected or not, as the published code does."""
    table = read_table(path)
    needed = ["x", "y", "pixel_x", "pixel_y"]
    if not set(needed) <= set(table.columns):
        raise SpotsError(f"{path} is not a spot file of this layout; it needs {', '.join(needed)}.")
    values = numeric_columns(table, needed, path)
    values = values[np.lexsort((values[:, 0], values[:, 1]))]
    array_coords = round_array_coords(values[:, :2])
    names = names_from_array_coords(array_coords)
    notes = tuple(table.attrs.get("notes", ()))
    return Spots(values[:, 2:], array_coords, names, ST_DIAMETER_UM, ST_PITCH_UM, notes=notes)


def _fit_mpp_or_none(path: Path) -> float | None:
    try:
        return mpp_from_selection_file(path)
    except SpotsError:  # too few spots to fit; the image may state its pixel size
        return None


def _find_dkan_image(root: Path, section: str) -> str:
    images = list_images(root / "ST-imgs" / section[:1] / section)
    images = images or [p for p in list_images(root / "ST-imgs") if image_stem(p).endswith(section)]
    if len(images) > 1:
        names = ", ".join(p.name for p in images[:3])
        raise SpotsError(f"{root / 'ST-imgs'} holds several images of {section} ({names}).")
    return str(images[0]) if images else ""


def _path_if_exists(path: Path) -> str:
    return str(path) if path.is_file() else ""


def _find_single_file(folder: Path, pattern: str) -> Path | None:
    files = sorted(folder.glob(pattern))
    if len(files) > 1:
        names = ", ".join(p.name for p in files[:3])
        raise SpotsError(f"{folder} holds several {pattern} ({names}); keep the one to use.")
    return files[0] if files else None
