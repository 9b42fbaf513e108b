"""Discover and read the sections of a folder in any supported layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SpotsError
from . import h5ad_sections as h5ad
from . import h5ad_sections as hest
from . import her2st_sections as her2st
from . import her2st_sections as published
from . import space_ranger_sections as space_ranger
from . import spatialdata_sections as spatialdata
from .section_anndata import SectionEntry
from .table_files import read_table

if TYPE_CHECKING:
    from anndata import AnnData


# The first that finds something is the folder's layout.
_SECTION_FINDERS: tuple[Callable[[Path], tuple[SectionEntry, ...]], ...] = (
    spatialdata.find_spatialdata_sections,
    published.find_dkan_sections,
    her2st.find_her2st_sections,
    hest.find_hest_sections,
    space_ranger.find_space_ranger_sections,
    h5ad.find_h5ad_sections,
)
_PATIENTS_NAME = "patients.csv"


def find_sections(root: str | Path) -> tuple[SectionEntry, ...]:
    """The sections of a folder (or of one h5ad or SpatialData .zarr), sorted by name.

    Layouts: her2st; the one published with DKAN; Space Ranger outputs, one or one per subfolder;
    HEST-1k; SpatialData; h5ad files. A ``patients.csv`` with the columns ``section`` and
    ``patient`` in the folder tells which sections belong together; it wins over what the layout
    says.

    Raises SpotsError when there is nothing, or nothing known.
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise SpotsError(f"{root} does not exist; check the path.")
    if root.is_file() and root.suffix != ".h5ad":
        raise SpotsError(f"{root} is not a folder with sections, nor an h5ad.")
    try:
        layouts = (h5ad.find_h5ad_sections,) if root.is_file() else _SECTION_FINDERS
        found = next((sections for find in layouts if (sections := find(root))), ())
    except OSError as error:  # a folder that may not be looked into
        raise SpotsError(f"{root} cannot be read ({error.strerror or error}).") from error
    if not found:
        raise SpotsError(
            f"{root} holds no sections; give a folder with ST-cnts and ST-spotfiles, Space Ranger "
            "outputs, a HEST-1k folder, SpatialData .zarr or h5ad files."
        )
    patients = _read_patients(root / _PATIENTS_NAME)
    return tuple(
        sorted(
            (_with_patient(f, patients[f.name]) if f.name in patients else f for f in found),
            key=lambda f: f.name,
        )
    )


def read_sections(root: str | Path, names: Sequence[str] | None = None) -> list[AnnData]:
    """Sections by name, in that order; all of them when `names` is None.

    Each is as `section.build_section` describes it.

    Raises SpotsError naming what is there when a section is unknown, and whatever reading raises.
    """
    found = {f.name: f for f in find_sections(root)}
    names = list(found) if names is None else list(names)
    for i, name in enumerate(names):
        if name not in found:
            there = ", ".join(list(found)[:4]) + (" ..." if len(found) > 4 else "")
            raise SpotsError(f"{root} has no section {name}; it holds {there}.")
        if name in names[:i]:
            raise SpotsError(f"Section {name} is named twice; name each once.")
    return [found[name].read() for name in names]


def _read_patients(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    table = read_table(path)
    if not {"section", "patient"} <= set(table.columns):
        raise SpotsError(f"{path} needs the columns section and patient.")
    return dict(zip(table["section"].astype(str), table["patient"].astype(str), strict=True))


def _with_patient(found: SectionEntry, patient: str) -> SectionEntry:
    def read() -> AnnData:
        data = found.read()
        data.uns["patient"] = patient
        return data

    return replace(found, patient=patient, read=read)
