"""A table of slides: a row each, with what is particular about it."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import SpotsError
from .job import SlideJob

PATH_COLUMNS = ("checkpoint", "spots", "regions", "features")
TABLE_COLUMNS = ("slide", "mpp", *PATH_COLUMNS, "out")


def is_slide_table(text: str) -> bool:
    """Whether a word names a table."""
    return Path(text).suffix.lower() in (".csv", ".tsv")


def read_slide_table(path: Path, folder: Path, options: SlideJob) -> list[SlideJob]:
    """Jobs of a .csv or .tsv with a column ``slide`` and any of mpp, checkpoint, spots, regions,
    features and out.

    Paths are relative to the table, ``out`` to ``folder``. An empty cell is what the options say;
    a row that gives spots or regions takes them in place of the options'. Jobs without an ``out``
    of their own have the folder there.

    Raises SpotsError naming the table and the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            header = [name.strip().lower() for name in table.fieldnames or ()]
            table.fieldnames = header
            rows = [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no table in UTF-8"
        raise SpotsError(f"{path} could not be read ({said}); save it as CSV once more.") from None
    unknown = [name for name in header if name not in TABLE_COLUMNS]
    if "slide" not in header or unknown:
        wrong = f"an unknown column {unknown[0]!r}" if unknown else "no column 'slide'"
        raise SpotsError(f"{path} has {wrong}; its columns may be {', '.join(TABLE_COLUMNS)}.")
    if not rows:
        raise SpotsError(f"{path} lists no slide; give one a row.")
    return [_create_job_from_row(row, f"{path}, line {line}", path.parent, folder, options) for line, row in rows]


def _create_job_from_row(row: dict[Any, Any], at: str, base: Path, folder: Path, options: SlideJob) -> SlideJob:
    from ..slide.address import is_remote

    if None in row:
        raise SpotsError(f"{at}: there are more cells than columns; quote names with a comma.")
    cells = {k: (v or "").strip() for k, v in row.items()}
    slide = cells["slide"]
    if not slide:
        raise SpotsError(f"{at}: there is no slide in this row; fill the cell or delete the row.")
    own: dict[str, Any] = {name: _resolve_path(base, cells[name]) for name in PATH_COLUMNS if cells.get(name)}
    if own.keys() & {"spots", "regions"}:
        own = {"spots": None, "regions": None} | own
    if cells.get("mpp"):
        try:
            own["mpp"] = float(cells["mpp"])
        except ValueError:
            raise SpotsError(f"{at}: {cells['mpp']!r} is no pixel size; give um per px.") from None
    out = folder
    if cells.get("out"):
        out = Path(os.path.abspath(folder / cells["out"]))
        if out.suffix.lower() != ".h5ad":
            raise SpotsError(f"{at}: {cells['out']} is not an .h5ad file; name one.")
    location = slide if is_remote(slide) else str(_resolve_path(base, slide))
    return replace(options, slide=location, out=out, **own)


def _resolve_path(base: Path, text: str) -> Path:
    return Path(os.path.abspath(base / os.path.expanduser(text)))
