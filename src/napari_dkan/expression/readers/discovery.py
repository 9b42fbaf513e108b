"""Discover and read the sections of a folder in any supported layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SpotsError
from ..tables.patients_table import read_patients
from .layouts.h5ad_sections import find_h5ad_sections, find_hest_sections
from .layouts.her2st_sections import find_dkan_sections, find_her2st_sections
from .layouts.space_ranger_sections import (
    find_space_ranger_sections,
    refuse_other_space_ranger_outputs,
)
from .layouts.spatialdata_sections import find_spatialdata_sections
from .read_account import add_notes
from .section_anndata import SectionEntry
from .skipped_files import describe_skipped

if TYPE_CHECKING:
    from anndata import AnnData


# The first that finds sections determines the layout of the folder.
_SECTION_FINDERS: tuple[Callable[[Path], tuple[SectionEntry, ...]], ...] = (
    find_spatialdata_sections,
    find_dkan_sections,
    find_her2st_sections,
    find_hest_sections,
    find_space_ranger_sections,
    find_h5ad_sections,
)


def find_sections(root: str | Path) -> tuple[SectionEntry, ...]:
    """Find the sections of a folder (or of one h5ad or SpatialData .zarr), sorted by name.

    Layouts: her2st; the one published with DKAN; Space Ranger outputs, one or one per subfolder;
    HEST-1k; SpatialData; h5ad files. A ``patients.csv`` in the folder with the columns
    ``section`` and ``patient`` overrides the patients of the layout.

    Raises
    ------
    SpotsError
        The folder does not exist or has no sections in a known layout.
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise SpotsError(f"{root} does not exist; check the path.")
    if root.is_file() and root.suffix != ".h5ad":
        raise SpotsError(f"{root} is not a folder with sections, nor an h5ad.")
    try:
        layouts = (find_h5ad_sections,) if root.is_file() else _SECTION_FINDERS
        found = [entries for find in layouts if (entries := find(root))]
        entries = found[0] if found else ()
        others = [entry for more in found[1:] for entry in more]
        skipped = describe_skipped(root, entries, others)
    except OSError as error:  # no permission for a folder
        raise SpotsError(f"{root} cannot be read ({error.strerror or error}).") from error
    if not entries:
        refuse_other_space_ranger_outputs(root)
        raise SpotsError(
            f"{root} holds no sections; give a folder with ST-cnts and ST-spotfiles, Space Ranger "
            "outputs, a HEST-1k folder, SpatialData .zarr or h5ad files."
            + (f" ({'; '.join(skipped)})" if skipped else "")
        )
    patients, patient_notes = read_patients(root, [entry.name for entry in entries])
    entries = tuple(
        _with_patient(entry, patients[entry.name]) if entry.name in patients else entry
        for entry in entries
    )
    if notes := (*skipped, *patient_notes):
        entries = tuple(_with_notes(entry, notes) for entry in entries)
    return tuple(sorted(entries, key=lambda entry: entry.name))


def read_sections(root: str | Path, names: Sequence[str] | None = None) -> list[AnnData]:
    """Read sections in the order of their names, or all of them; see `build_section`.

    Raises
    ------
    SpotsError
        A section is unknown, named twice or cannot be read.
    """
    entries = {entry.name: entry for entry in find_sections(root)}
    names = list(entries) if names is None else list(names)
    for i, name in enumerate(names):
        if name not in entries:
            available = ", ".join(list(entries)[:4]) + (" ..." if len(entries) > 4 else "")
            raise SpotsError(f"{root} has no section {name}; it holds {available}.")
        if name in names[:i]:
            raise SpotsError(f"Section {name} is named twice; name each once.")
    return [entries[name].read() for name in names]


def _with_notes(entry: SectionEntry, notes: Sequence[str]) -> SectionEntry:
    def read() -> AnnData:
        data = entry.read()
        add_notes(data, *notes)
        return data

    return replace(entry, read=read)


def _with_patient(entry: SectionEntry, patient: str) -> SectionEntry:
    def read() -> AnnData:
        data = entry.read()
        data.uns["patient"] = patient
        return data

    return replace(entry, patient=patient, read=read)
