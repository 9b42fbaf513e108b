"""Read delimited text as programs of many countries write it.

Encoding, separator, comment lines, trailing delimiters, names of rows and decimal commas are found
from the content. Every cell of a column of names stays text.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ...errors import SpotsError

if TYPE_CHECKING:
    import pandas as pd


_SEPARATORS = ("\t", ";", ",")  # a comma may be the decimal point of the others
_SAMPLE_RECORDS = 50
_EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_COMMA_NUMBER = re.compile(r"\s*[+-]?\d*,\d+(?:[eE][+-]?\d+)?\s*")
_GROUPED_NUMBER = re.compile(r"\s*[+-]?[1-9]\d{0,2}(?:,\d{3})+\s*")  # 1,234 may be 1234 or 1.234
_PLAIN_NUMBER = re.compile(r"\s*[+-]?\d+\s*")
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class TextSource:
    """The text of a file, or a text made of one.

    Attributes
    ----------
    path
        The file, for errors.
    text
        None for the content of the file.
    encoding
        Of the file.
    """

    path: Path
    text: str | None = None
    encoding: str = "utf-8"

    def open(self) -> TextIO:
        """Open the text, unpacked."""
        if self.text is not None:
            return io.StringIO(self.text, newline="")
        with self.path.open("rb") as file:
            is_packed = file.read(2) == _GZIP_MAGIC
        if is_packed:
            return gzip.open(self.path, "rt", encoding=self.encoding, newline="")
        return self.path.open(encoding=self.encoding, newline="")


@dataclass
class _Layout:
    """Where the header is, which records are no data, and how long the others are."""

    separator: str
    header: list[str] | None = None
    skipped: list[int] = field(default_factory=list)  # numbers of records
    n_rows: int = 0
    n_comments: int = 0
    shortest: int = 1 << 30  # cells of a row
    longest: int = 0
    longest_filled: int = 0  # without empty cells at the end
    longest_line: int = 0  # number of the line of that row, from 1


def read_delimited_text(
    source: TextSource,
    header: bool | None = True,
    text_columns: Collection[str] | None = (),
    index: bool = False,
) -> pd.DataFrame:
    """Read a table; its columns are named as in the file, and may have one name twice.

    Parameters
    ----------
    source
        The text.
    header
        The first row has the names of the columns; None finds out: it has no numbers then.
    text_columns
        Lower-case names of columns that stay text; None for all of them. The first column of a
        table without a header, and a column without a name, stay text too.
    index
        The first column stays text, and columns that `text_columns` names are numbers.

    Returns
    -------
    DataFrame
        ``attrs['notes']`` has sentences about comment lines and decimal commas.

    Raises
    ------
    SpotsError
        A row has more cells than the header.
    ValueError, OSError, EOFError, csv.Error
        The file is not a table.
    """
    import pandas as pd

    source = _detect_encoding(source)
    layout = _scan(source, header)
    names = _column_names(layout, source.path)
    is_text = [
        text_columns is None
        or not name
        or layout.header is None
        or (i == 0 if index else name.lower() in text_columns)
        for i, name in enumerate(names)
    ]
    converters = {i: str.strip for i, text in enumerate(is_text) if text}
    width = max(layout.longest, len(names))
    if not layout.n_rows:
        return pd.DataFrame(columns=pd.Index(names))
    with source.open() as file:
        table = pd.read_csv(
            file,
            sep=layout.separator,
            header=None,
            names=list(range(width)),
            index_col=False,
            usecols=list(range(len(names))),
            skiprows=layout.skipped,
            converters=converters,
            low_memory=False,
        )
    if len(table) != layout.n_rows:
        raise ValueError(f"{len(table)} of {layout.n_rows} rows were read")
    notes = []
    if layout.n_comments:
        were = "line was" if layout.n_comments == 1 else "lines were"
        notes.append(f"{source.path.name}: {layout.n_comments} comment {were} skipped")
    columns = [i for i, text in enumerate(is_text) if not text]
    if layout.header is None and text_columns is not None:
        columns = list(range(1, len(names)))
        for i in columns:
            with suppress(ValueError, TypeError):
                table[i] = pd.to_numeric(table[i])
    if _convert_decimal_commas(table, columns):
        notes.append(f"{source.path.name}: decimal commas were read as points")
    table.columns = pd.Index(names if layout.header else range(len(names)))
    table.attrs["notes"] = notes
    return table


def _detect_encoding(source: TextSource) -> TextSource:
    """Return the source with the encoding of its byte order mark, or that of its bytes."""
    if source.text is not None:
        return source
    opened = gzip.open if _is_gzip(source.path) else open
    with opened(source.path, "rb") as file:
        start = file.read(256)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return TextSource(source.path, encoding="utf-16")
    pairs = start[: len(start) // 2 * 2]
    if len(pairs) >= 4 and not any(pairs[1::2]) and all(pairs[::2]):
        return TextSource(source.path, encoding="utf-16-le")
    if len(pairs) >= 4 and not any(pairs[::2]) and all(pairs[1::2]):
        return TextSource(source.path, encoding="utf-16-be")
    unicode = TextSource(source.path, encoding="utf-8-sig")
    try:
        with unicode.open() as file:
            while file.read(1 << 20):
                pass
    except UnicodeDecodeError:
        # Western Windows, if the bytes are text in it: "Centroid X µm" saved again by Excel.
        windows = TextSource(source.path, encoding="cp1252")
        with windows.open() as file:
            while piece := file.read(1 << 20):
                if any(c < " " and c not in "\t\r\n" for c in set(piece)):
                    raise
        return windows
    return unicode


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP_MAGIC


class _RecordLines:
    """A first line and those after it; keeps the lines that were taken."""

    def __init__(self, first: str, rest: Iterator[str]) -> None:
        self.seen: list[str] = []
        self._lines = itertools.chain([first], rest)

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.seen.append(line)
            yield line


def _iterate_records(file: TextIO, separator: str) -> Iterator[tuple[int, str, int]]:
    """Yield (line number, text, number of cells) of each record; quotes may hold line ends."""
    lines = iter(file)
    number = 0
    for line in lines:
        number += 1
        if line.count('"') % 2:
            record = _RecordLines(line, lines)
            n_cells = len(next(csv.reader(record, delimiter=separator)))
            yield number, "".join(record.seen), n_cells
            number += len(record.seen) - 1
        elif '"' in line:
            yield number, line, 1 + sum(part.count(separator) for part in line.split('"')[::2])
        else:
            yield number, line, 1 + line.count(separator)


def _is_comment(text: str) -> bool:
    return text.lstrip(' "').startswith("#")


def _detect_separator(source: TextSource) -> str:
    with source.open() as file:
        records = [
            text
            for _, text, _ in itertools.islice(_iterate_records(file, "\t"), _SAMPLE_RECORDS)
            if text.strip() and not _is_comment(text)
        ]
    if records and (told := _EXCEL_SEPARATOR.fullmatch(records[0])):
        return told[1]
    for separator in _SEPARATORS:
        counts = [sum(part.count(separator) for part in text.split('"')[::2]) for text in records]
        if counts and counts[0] and all(abs(n - counts[0]) <= 1 and n for n in counts[1:]):
            return separator
    first = records[0] if records else ""
    return next((s for s in ("\t", ",", ";") if s in first), ",")


def _scan(source: TextSource, header: bool | None) -> _Layout:
    """Find the header, the records without data, and the lengths of the rows."""
    layout = _Layout(_detect_separator(source))
    blank = layout.separator + ' "\t\r\n'
    comment: tuple[list[str], int] | None = None
    is_first = True
    with source.open() as file:
        records = _iterate_records(file, layout.separator)
        for record, (line, text, n_cells) in enumerate(records):
            if not text.strip(blank) or (is_first and _EXCEL_SEPARATOR.fullmatch(text)):
                layout.skipped.append(record)
                continue
            if _is_comment(text) and (
                is_first or (layout.header is not None and n_cells != len(layout.header))
            ):
                layout.skipped.append(record)
                layout.n_comments += 1
                comment = _split(text, layout.separator), n_cells
                continue
            if is_first:
                is_first = False
                cells = _split(text, layout.separator)
                has_numbers = any(map(_is_number, cells))
                if header is not False and has_numbers and comment and 1 < comment[1] == n_cells:
                    layout.header = [
                        c.lstrip("# ").strip('"') for c in comment[0]
                    ]  # "#x  y" names columns
                    layout.n_comments -= 1
                elif header or (header is None and not has_numbers):
                    layout.header = cells
                    layout.skipped.append(record)
                    continue
            layout.n_rows += 1
            layout.shortest = min(layout.shortest, n_cells)
            layout.longest = max(layout.longest, n_cells)
            if n_cells > layout.longest_filled:
                filled = n_cells - _count_empty_at_end(text, layout.separator)
                if filled > layout.longest_filled:
                    layout.longest_filled, layout.longest_line = filled, line
    if is_first:
        raise ValueError("there is no row")
    return layout


def _column_names(layout: _Layout, path: Path) -> list[str]:
    """Return the names of the columns that the table has, "" for those without a name."""
    if layout.header is None:
        return [""] * layout.longest_filled
    names = list(layout.header)
    n_names = len(names)
    while layout.n_rows and len(names) > layout.longest_filled and not names[-1]:
        names.pop()  # of a delimiter at the end of the header
    if layout.longest_filled <= n_names:
        return names
    # R leaves out the name of the column with the names of the rows.
    if layout.longest_filled == n_names + 1 and layout.shortest > n_names:
        return ["", *layout.header]
    raise SpotsError(
        f"{path} has {layout.longest_filled} cells in line {layout.longest_line} and {n_names} "
        "names of columns; give each row as many cells as the header."
    )


def _split(text: str, separator: str) -> list[str]:
    cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    return [" ".join(cell.split()) for cell in cells]


def _count_empty_at_end(text: str, separator: str) -> int:
    text = text.rstrip("\r\n ")
    if '"' not in text:
        return len(text) - len(text.rstrip(separator))
    cells = _split(text, separator)
    return sum(1 for _ in itertools.takewhile(lambda cell: not cell, reversed(cells)))


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ".", 1))
    except ValueError:
        return False
    return cell.lower() != "nan"


def is_grouped_number(cell: str) -> bool:
    """Whether a text is a number like 1,234, which may be 1234 or 1.234."""
    return _GROUPED_NUMBER.fullmatch(cell) is not None


def _convert_decimal_commas(table: pd.DataFrame, columns: list[int]) -> bool:
    """Convert columns of numbers with decimal commas; return whether there are any.

    Cells like 1,234 are converted if another cell of the table shows that the comma is the
    decimal point; else they stay text.
    """
    import pandas as pd

    found, is_decimal, is_grouped = [], False, False
    dtypes = list(table.dtypes)  # taken at once, since a table of counts has thousands of columns
    for i in columns:
        if pd.api.types.is_numeric_dtype(dtypes[i]) or not len(table):
            continue
        cells = table[i].dropna().astype(str)
        with_comma = [c for c in cells if "," in c]
        if not with_comma or not all(
            _COMMA_NUMBER.fullmatch(c) or is_grouped_number(c) or _PLAIN_NUMBER.fullmatch(c)
            for c in cells
        ):
            continue
        found.append(i)
        is_decimal = is_decimal or any(not is_grouped_number(c) for c in with_comma)
        is_grouped = is_grouped or any(c.count(",") > 1 for c in with_comma)
    if not is_decimal or is_grouped:
        return False
    for i in found:
        cells = table[i].astype("string").str.replace(",", ".", regex=False)
        table[i] = pd.to_numeric(cells).astype("float64")
    return True
