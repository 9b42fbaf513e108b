"""Read the cells of Excel sheets (.xlsx) as text."""

from __future__ import annotations

import csv
import datetime
import io
import re
import zipfile
from pathlib import Path
from typing import Any

from ...errors import SpotsError
from ...size_limits import ALWAYS_ALLOWED_BYTES, MAX_TEXT_RATIO, describe_excess_size

_ZERO_PADDED = re.compile("0{2,}")


def read_excel_text(path: Path) -> str:
    """Return the only sheet with cells as comma-separated text.

    Raises
    ------
    SpotsError
        The file is too large, is no Excel file, or several sheets or none have cells.
    """
    import openpyxl

    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > max(ALWAYS_ALLOWED_BYTES, MAX_TEXT_RATIO * path.stat().st_size):
            raise SpotsError(f"{path} is not read: {describe_excess_size(size)}; save it as CSV.")
        with path.open("rb") as file:  # of a path, openpyxl asks for the suffix .xlsx
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheets = {sheet.title: _sheet_text(sheet) for sheet in book.worksheets}
    except SpotsError:
        raise
    except Exception as error:  # openpyxl raises a dozen types for a damaged file
        raise SpotsError(f"{path} is not a readable Excel file; save it as CSV.") from error
    filled = {title: text for title, text in sheets.items() if text.strip(",\r\n ")}
    if len(filled) != 1:
        what = f"{len(filled)} sheets with cells ({', '.join(filled)})" if filled else "no cells"
        raise SpotsError(f"{path} has {what}; save the sheet to read as CSV or in its own file.")
    return next(iter(filled.values()))


def _sheet_text(sheet: Any) -> str:
    sheet.reset_dimensions()  # they may be wrong
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    for row in sheet.iter_rows():
        writer.writerow([_cell_text(cell) for cell in row])
    return text.getvalue()


def _cell_text(cell: Any) -> str:
    """Return a cell as Excel shows it: 1 is 001 where its format is 000."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and _ZERO_PADDED.fullmatch(str(cell.number_format)):
        return str(value).zfill(len(cell.number_format))
    return str(value)
