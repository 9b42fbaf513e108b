"""The patients of the sections of a folder, as its ``patients.csv`` states them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ...errors import SpotsError
from .table_files import read_table

_NAME = re.compile(r"patients\.(?:csv|tsv|txt|xlsx?|parquet)(?:\.gz)?", re.IGNORECASE)
_MAX_SHOWN = 5


def read_patients(root: Path, sections: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Read the patients of sections from the table of a folder.

    Parameters
    ----------
    root
        The folder; without a table no patient is stated.
    sections
        Names of its sections. Cells are text: section 001 is not section 1.

    Returns
    -------
    patients, notes
        The patient of each section that the table names, and sentences about rows that name no
        section and sections without a row.

    Raises
    ------
    SpotsError
        There are two tables, or one has no such columns or gives a section two patients, or some
        of its rows name no section while some sections have no row.
    """
    paths = sorted(p for p in root.glob("[pP]*") if _NAME.fullmatch(p.name) and p.is_file())
    if not paths:
        return {}, ()
    if len(paths) > 1:
        raise SpotsError(
            f"{root} has several tables of patients ({_list([p.name for p in paths])}); keep one."
        )
    path = paths[0]
    table = read_table(path, as_text=True)
    columns = {str(c).strip().lower(): c for c in reversed(list(table.columns))}
    if not {"section", "patient"} <= set(columns):
        raise SpotsError(f"{path} needs the columns section and patient.")
    rows = [
        (str(section).strip(), str(patient).strip())
        for section, patient in zip(
            table[columns["section"]], table[columns["patient"]], strict=True
        )
    ]
    patients: dict[str, str] = {}
    for section, patient in rows:
        if patients.setdefault(section, patient) != patient:
            raise SpotsError(
                f"{path} gives section {section} the patients {patients[section]} and {patient}; "
                "keep one."
            )
    unknown = [name for name in patients if name not in sections]
    without = [name for name in sections if name not in patients]
    if unknown and without:
        raise SpotsError(
            f"{path} names {_list(unknown)}, which is no section of {root}, and has no row for "
            f"{_list(without)}; write the names of the sections as they are."
        )
    notes = list(table.attrs.get("notes", ()))
    if unknown:
        notes.append(f"{path.name} names {_list(unknown)}, which is no section here")
    if without:
        notes.append(f"{path.name} has no row for {_list(without)}")
    return {name: patients[name] for name in sections if name in patients}, tuple(notes)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_SHOWN]) + (", ..." if len(names) > _MAX_SHOWN else "")
