"""A table of figures, one row per gene: sorted and searched with arrays, so it stays quick.

Qt's own sorting proxy asks Python for every comparison, half a second and more for 20,000
rows. Here the order of the rows is one index array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from textwrap import fill

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import (
    QAbstractTableModel,
    QItemSelectionModel,
    QModelIndex,
    QPersistentModelIndex,
    Qt,
    Signal,
)
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

WARN = QColor(255, 138, 101, 95)  # over light and dark themes alike
UNKNOWN = "\N{EN DASH}"
TOOLTIP = 60  # characters
Index = QModelIndex | QPersistentModelIndex
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


@dataclass(frozen=True)
class Column:
    """One column of figures.

    values : (R,) float64, NaN where unknown. text : of one row. warned : (R,) cells to tint, and
    why.
    """

    title: str
    explained: str
    values: NDArray[np.float64]
    text: Callable[[int], str]
    warned: NDArray[np.bool_] | None = None
    warning: str = ""


def figures(
    title: str,
    explained: str,
    values: Sequence[float | None] | NDArray[np.floating],
    form: str = ".2f",
    warned: NDArray[np.bool_] | None = None,
    warning: str = "",
) -> Column:
    """A column of plain numbers; None and NaN are shown as a dash."""
    array = np.array([np.nan if v is None else float(v) for v in values])
    return Column(title, explained, array, lambda row: number(array[row], form), warned, warning)


def number(value: float, form: str = ".2f") -> str:
    """A figure as it is read, with a dash where there is none."""
    return UNKNOWN if np.isnan(value) else format(value, form)


@dataclass(frozen=True)
class Rows:
    """What a table shows: genes and their columns."""

    symbols: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    notes: tuple[str, ...] = ()  # a tooltip for each symbol, or none at all
    warned: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))


class FiguresModel(QAbstractTableModel):
    """The genes in column 0, the figures behind it; sorting and searching keep an order of rows."""

    def __init__(self, first: str = "Gene") -> None:
        super().__init__()
        self._first = first
        self.shown = Rows()
        self._order = np.zeros(0, np.int64)
        self._search = ""
        self._sorted: tuple[int, Qt.SortOrder] = (-1, Qt.SortOrder.AscendingOrder)

    # ---- what Qt asks ----------------------------------------------------------------

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._order)

    def columnCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else 1 + len(self.shown.columns)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> str | None:
        if orientation is not Qt.Orientation.Horizontal:
            return None
        column = self.shown.columns[section - 1] if section else None
        if role == Qt.ItemDataRole.DisplayRole:
            return self._first if column is None else column.title
        if role == Qt.ItemDataRole.ToolTipRole:
            return None if column is None else wrapped(column.explained)
        return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        row = int(self._order[index.row()])
        if index.column() == 0:
            return self._gene(row, role)
        column = self.shown.columns[index.column() - 1]
        warned = column.warned is not None and bool(column.warned[row])
        if role == Qt.ItemDataRole.DisplayRole:
            return column.text(row)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return RIGHT
        if role == Qt.ItemDataRole.BackgroundRole:
            return WARN if warned else None
        if role == Qt.ItemDataRole.ToolTipRole:
            return wrapped(column.warning if warned else column.explained)
        return None

    def _gene(self, row: int, role: int) -> object:
        if role == Qt.ItemDataRole.DisplayRole:
            return self.shown.symbols[row]
        if role == Qt.ItemDataRole.ToolTipRole and self.shown.notes:
            return wrapped(self.shown.notes[row])
        if role == Qt.ItemDataRole.BackgroundRole and len(self.shown.warned):
            return WARN if self.shown.warned[row] else None
        return None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        self._sorted = column, order
        self._arrange()

    # ---- what the panel asks ---------------------------------------------------------

    def show(self, rows: Rows) -> None:
        """Other genes or other figures; the search and the order stay."""
        self.beginResetModel()
        self.shown = rows
        self._order = self._found()
        self.endResetModel()

    def search(self, text: str) -> None:
        """Keep only rows whose symbol or note holds the text, in any case."""
        self._search = text.strip().upper()
        self._arrange()

    def symbol(self, row: int) -> str:
        return self.shown.symbols[int(self._order[row])]

    def row_of(self, symbol: str | None) -> int | None:
        """Where a gene stands now; None where the search hides it or there is none."""
        if symbol not in self.shown.symbols:
            return None
        hits = np.flatnonzero(self._order == self.shown.symbols.index(symbol))
        return int(hits[0]) if len(hits) else None

    def _arrange(self) -> None:
        self.beginResetModel()
        self._order = self._found()
        self.endResetModel()

    def _found(self) -> NDArray[np.int64]:
        """Rows that are searched for, sorted; what has no figure comes last either way."""
        shown, (column, direction) = self.shown, self._sorted
        rows = np.arange(len(shown.symbols))
        if self._search:
            notes = shown.notes or ("",) * len(rows)
            texts = zip(shown.symbols, notes, strict=True)
            hit = [self._search in s.upper() or self._search in n.upper() for s, n in texts]
            rows = rows[np.array(hit, bool)]
        down = direction is Qt.SortOrder.DescendingOrder
        if column == 0:
            names = np.array(shown.symbols, dtype=str)[rows]
            order = np.argsort(names, kind="stable")
            return np.asarray(rows[order[::-1] if down else order])
        if not 0 < column <= len(shown.columns):
            return rows
        values = shown.columns[column - 1].values[rows]
        return np.asarray(rows[np.argsort(-values if down else values, kind="stable")])


class FiguresTable(QTableView):
    """The view: choosing a row tells its gene, choosing a gene elsewhere shows its row."""

    picked = Signal(str)

    def __init__(self, first: str = "Gene", long_names: bool = False) -> None:
        """first : heading of column 0. long_names : cut them off rather than hide the figures."""
        super().__init__()
        self._long_names = long_names
        self.figures = FiguresModel(first)
        self.setModel(self.figures)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setTabKeyNavigation(False)  # Tab leads on to the next control
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setCornerButtonEnabled(False)
        rows, head = self.verticalHeader(), self.horizontalHeader()
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(self.fontMetrics().height() + 6)
        head.setHighlightSections(False)
        head.setMinimumSectionSize(30)
        self._chosen: str | None = None
        self.figures.modelReset.connect(lambda: self._mark(False))
        self.selectionModel().currentRowChanged.connect(self._picked)

    def show_rows(self, rows: Rows, sort_by: int = 1) -> None:
        """Fill the table; the first time, the best of column ``sort_by`` comes first."""
        head = self.horizontalHeader()
        if not self.isSortingEnabled():
            head.blockSignals(True)  # Qt would sort by what it remembers before this
            self.setSortingEnabled(True)
            head.setSortIndicator(sort_by, Qt.SortOrder.DescendingOrder)
            head.blockSignals(False)
            self.figures.sort(sort_by, Qt.SortOrder.DescendingOrder)
        widen = self.figures.columnCount() != 1 + len(rows.columns)
        self.figures.show(rows)
        if widen:
            self._fit()

    def choose(self, symbol: str | None) -> None:
        """Select a gene's row and bring it into sight, without telling anybody."""
        self._chosen = symbol
        self._mark(True)

    def _mark(self, in_sight: bool) -> None:
        row, selection = self.figures.row_of(self._chosen), self.selectionModel()
        selection.blockSignals(True)
        if row is None:
            selection.clear()
        else:
            index = self.figures.index(row, 0)
            flag = QItemSelectionModel.SelectionFlag
            selection.setCurrentIndex(index, flag.ClearAndSelect | flag.Rows)
            if in_sight:
                self.scrollTo(index)
        selection.blockSignals(False)
        self.viewport().update()

    def _fit(self) -> None:
        """Columns as wide as their heading and some rows, the first and the last among them."""
        metrics, head = self.fontMetrics(), self.horizontalHeader()
        model = self.figures
        some = np.unique(np.linspace(0, max(0, model.rowCount() - 1), 60).astype(int)).tolist()
        for c in range(model.columnCount()):
            shown = [str(model.data(model.index(r, c))) for r in some if r < model.rowCount()]
            texts = [str(model.headerData(c, Qt.Orientation.Horizontal)) + "  ", *shown]
            head.resizeSection(c, max(metrics.horizontalAdvance(t) for t in texts) + 8)
        if self._long_names:
            head.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)

    def _picked(self, now: QModelIndex, before: QModelIndex) -> None:
        if now.isValid():
            self._chosen = self.figures.symbol(now.row())
            self.picked.emit(self._chosen)


def wrapped(text: str) -> str:
    """A tooltip in lines that can be read: Qt breaks no plain text."""
    return "\n".join(fill(line, TOOLTIP) for line in text.splitlines())


def as_csv(rows: Rows, first: str = "gene") -> str:
    """All rows as they stand in the panel's order, figures in full."""
    lines = [",".join([first, *(_quoted(c.title) for c in rows.columns)])]
    for i, symbol in enumerate(rows.symbols):
        values = ("" if np.isnan(c.values[i]) else f"{c.values[i]:.6g}" for c in rows.columns)
        lines.append(",".join([_quoted(symbol), *values]))
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return f'"{text}"' if "," in text or " " in text else text
