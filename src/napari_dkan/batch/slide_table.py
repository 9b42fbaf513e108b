"""Read a table that lists slides, with options for each, as jobs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SpotsError
from .slide_job import SlideJob

if TYPE_CHECKING:
    import pandas as pd


PATH_COLUMNS = ("checkpoint", "spots", "regions", "features")
TABLE_COLUMNS = ("slide", "mpp", *PATH_COLUMNS, "library", "out")
_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".xlsx", ".xls", ".parquet")


@dataclass(frozen=True)
class SlideTable:
    """The jobs of a table, and sentences about how it was read."""

    jobs: tuple[SlideJob, ...]
    notes: tuple[str, ...] = ()


def is_slide_table(text: str) -> bool:
    """Whether a text names a table, by its suffix, and not a slide."""
    return text.lower().endswith(_SUFFIXES)


def read_slide_table(path: Path, folder: Path, options: SlideJob) -> SlideTable:
    """Read jobs from a table with a column ``slide`` and optional other columns.

    The other columns are mpp, checkpoint, spots, regions, features, library (of spots) and out.
    Paths are relative to the table, ``out`` to ``folder``. An empty cell means the value of the
    options; spots or regions of a row replace both of the options.

    Parameters
    ----------
    path
        Text in any usual form, Excel or Parquet; see `read_table`.
    folder
        For results. It is the ``out`` of jobs that have no file of their own yet.
    options
        For all jobs.

    Raises
    ------
    SpotsError
        The table has an error, with its row.
    """
    from ..expression.tables.table_files import read_table

    table = read_table(path, as_text=True)
    notes = tuple(table.attrs.get("notes", ()))
    table = _drop_unnamed_columns(table.astype(object).fillna("").astype(str), path)
    table.columns = table.columns.str.strip().str.lower()
    unknown = [name for name in table.columns if name not in TABLE_COLUMNS]
    if "slide" not in table.columns or unknown:
        problem = f"an unknown column {unknown[0]!r}" if unknown else "no column 'slide'"
        raise SpotsError(f"{path} has {problem}; its columns may be {', '.join(TABLE_COLUMNS)}.")
    if table.empty:
        raise SpotsError(f"{path} lists no slide; give one a row.")
    rows = ({key: row[key].strip() for key in table.columns} for _, row in table.iterrows())
    jobs = (
        _create_job(cells, f"{path}, data row {i}", path.parent, folder, options)
        for i, cells in enumerate(rows, 1)
    )
    return SlideTable(tuple(jobs), notes)


def _drop_unnamed_columns(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Drop columns without a name: numbers of the rows, as pandas and R write them, or nothing."""
    from ..expression.tables.table_files import is_row_counter

    for i, name in enumerate(table.columns):
        cells = table.iloc[:, i]
        if not str(name).strip() and any(cells) and not (i == 0 and is_row_counter(cells)):
            raise SpotsError(
                f"{path} has more cells than names of columns ({next(filter(None, cells))}); "
                "quote names with a comma."
            )
    return table.loc[:, [bool(str(name).strip()) for name in table.columns]]


def _create_job(
    cells: Mapping[str, str], location: str, base: Path, folder: Path, options: SlideJob
) -> SlideJob:
    from ..slide.slide_location import is_remote

    slide = cells["slide"]
    if not slide:
        raise SpotsError(
            f"{location}: there is no slide in this row; fill the cell or delete the row."
        )
    overrides: dict[str, Any] = {
        name: _resolve_path(base, cells[name]) for name in PATH_COLUMNS if cells.get(name)
    }
    if overrides.keys() & {"spots", "regions"}:
        overrides = {"spots": None, "regions": None} | overrides
    if cells.get("mpp"):
        overrides["mpp"] = _parse_pixel_size(cells["mpp"], location)
    if cells.get("library"):
        if overrides.get("spots", options.spots) is None:
            raise SpotsError(
                f"{location}: {cells['library']} names a section of a file of spots; fill the cell "
                "spots too."
            )
        overrides["library"] = cells["library"]
    out = folder
    if cells.get("out"):
        out = Path(os.path.abspath(folder / cells["out"]))
        if out.suffix.lower() != ".h5ad":
            raise SpotsError(f"{location}: {cells['out']} is not an .h5ad file; name one.")
    if not is_remote(slide):
        slide = str(_resolve_path(base, slide))
    return replace(options, slide=slide, out=out, **overrides)


def _parse_pixel_size(cell: str, location: str) -> float:
    from ..expression.readers.metadata import to_positive_float
    from ..expression.tables.delimited_text import is_grouped_number

    mpp = to_positive_float(cell.replace(",", "."))
    if mpp is None or is_grouped_number(cell):
        raise SpotsError(f"{location}: {cell!r} is no pixel size; give um per px.")
    return mpp


def _resolve_path(base: Path, text: str) -> Path:
    return Path(os.path.abspath(base / os.path.expanduser(text)))
