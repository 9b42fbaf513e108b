"""What of a folder is not read as a section, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .anndata_io import PREDICTION_REASON, is_prediction_file
from .layouts.h5ad_sections import is_prediction_in_hest
from .layouts.space_ranger_sections import find_output_folder
from .prefixed_files import find_prefixed_samples
from .section_anndata import SectionEntry

MAX_SHOWN = 5
_FOREIGN_SUFFIXES = {  # single-cell formats that other programs write
    ".rds": "an R object",
    ".rdata": "an R object",
    ".h5seurat": "a Seurat file",
    ".loom": "a loom file",
    ".gef": "a GEF file",
    ".h5mu": "a MuData file",
}
_DATA_SUFFIXES = (".h5ad", ".zarr", ".h5", ".tsv", ".tsv.gz", ".parquet", *_FOREIGN_SUFFIXES)
_FOLDER_LAYOUTS = ("Space Ranger",)  # one section per subfolder


def describe_skipped(
    root: Path, used: Sequence[SectionEntry], others: Sequence[SectionEntry] = ()
) -> tuple[str, ...]:
    """Return a sentence for each file or folder in `root` that is not read as a section.

    Parameters
    ----------
    root
        A folder, a file or a .zarr store.
    used
        Its sections, of one layout.
    others
        Sections of other layouts in it, which are not read.
    """
    layout = used[0].layout if used else ""
    notes = [
        f"{entry.name} ({entry.layout}) was skipped: the folder is read as {layout}"
        for entry in others
    ]
    paths = [root]
    if root.is_dir() and root.suffix != ".zarr":
        paths = sorted([*root.iterdir(), *(root / "st").glob("*.h5ad")])
    own_folder = layout in _FOLDER_LAYOUTS and find_output_folder(root) is not None
    for path in paths:
        name = path.name.lower()
        if name.startswith("."):
            if name.endswith(_DATA_SUFFIXES):
                notes.append(f"{path.name} was skipped: its name begins with a dot")
        elif _is_prediction(path):
            notes.append(f"{path.name} was skipped: {PREDICTION_REASON}")
        elif path.suffix.lower() in _FOREIGN_SUFFIXES:
            kind = _FOREIGN_SUFFIXES[path.suffix.lower()]
            notes.append(f"{path.name} was skipped: it is {kind}; write it as h5ad")
        elif layout in _FOLDER_LAYOUTS and not own_folder and path.is_dir():
            is_read = name.endswith("spatial") or path.suffix == ".zarr"
            is_read = is_read or find_output_folder(path) is not None
            if not is_read and not find_prefixed_samples(path):
                notes.append(
                    f"{path.name} was skipped: it has no filtered_feature_bc_matrix of Space Ranger"
                )
        elif not used and name.endswith(_DATA_SUFFIXES):
            notes.append(f"{path.name} was skipped: it is no section by itself")
    return _shorten(notes)


def _is_prediction(path: Path) -> bool:
    if path.suffix == ".h5ad":
        is_hest = path.parent.name == "st"
        return is_prediction_in_hest(path) if is_hest else is_prediction_file(path)
    tables = path.glob("tables/*") if path.suffix == ".zarr" else ()
    return any(map(is_prediction_file, tables))


def _shorten(notes: Sequence[str]) -> tuple[str, ...]:
    if len(notes) <= MAX_SHOWN:
        return tuple(notes)
    return (*notes[:MAX_SHOWN], f"{len(notes) - MAX_SHOWN} more were skipped")
