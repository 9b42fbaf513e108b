"""Table of metrics with a row per gene, sorted and filtered with NumPy.

Qt's sorting proxy calls Python for every comparison, which takes more than half a second for
20,000 rows. Here the order of rows is an index array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from textwrap import fill

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import (  # type: ignore[attr-defined]
    QAbstractTableModel,
    QItemSelectionModel,
    QModelIndex,
    QPersistentModelIndex,
    Qt,
    Signal,
)
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from .wide_table import FrozenNames

WARNING_COLOR = QColor(255, 138, 101, 95)  # transparent, for light and dark themes
NO_VALUE = "\N{EN DASH}"
TOOLTIP_WIDTH = 60  # characters
MAX_NAME_SHARE = 0.4  # of the width of a table
ModelIndex = QModelIndex | QPersistentModelIndex
ALIGN_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


@dataclass(frozen=True)
class MetricColumn:
    """One column of a table with R rows.

    Attributes
    ----------
    title, tooltip : str
    values : ndarray
        (R,), NaN where unknown.
    format_value : callable
        Formats the value of a row.
    warning_mask : ndarray or None
        Cells to tint, (R,).
    warning : str
        Tooltip of tinted cells.
    """

    title: str
    tooltip: str
    values: NDArray[np.float64]
    format_value: Callable[[int], str]
    warning_mask: NDArray[np.bool_] | None = None
    warning: str = ""


def make_metric_column(
    title: str,
    tooltip: str,
    values: Sequence[float | None] | NDArray[np.floating],
    number_format: str = ".2f",
    warning_mask: NDArray[np.bool_] | None = None,
    warning: str = "",
) -> MetricColumn:
    """Make a column of numbers; None and NaN are displayed as a dash."""
    array = np.array([np.nan if v is None else float(v) for v in values])
    return MetricColumn(
        title,
        tooltip,
        array,
        lambda row: format_metric(array[row], number_format),
        warning_mask,
        warning,
    )


def format_metric(value: float, number_format: str = ".2f") -> str:
    """Format a number; NaN is a dash."""
    return NO_VALUE if np.isnan(value) else format(value, number_format)


@dataclass(frozen=True)
class MetricsTableData:
    """Contents of a table with R rows.

    Attributes
    ----------
    symbols : tuple of str
        (R,) texts of column 0.
    columns : tuple of MetricColumn
    tooltips : tuple of str
        (R,) tooltips of the symbols, or none.
    warning_mask : ndarray
        Symbols to tint, (R,) or (0,).
    """

    symbols: tuple[str, ...] = ()
    columns: tuple[MetricColumn, ...] = ()
    tooltips: tuple[str, ...] = ()
    warning_mask: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))


class MetricsTableModel(QAbstractTableModel):
    """Qt model with the genes in column 0 and the metrics in the others."""

    def __init__(self, first_header: str = "Gene") -> None:
        super().__init__()
        self.first_header = first_header
        self.table_data = MetricsTableData()
        self._row_order = np.zeros(0, np.int64)
        self._filter_text = ""
        self._sort_state: tuple[int, Qt.SortOrder] = (-1, Qt.SortOrder.AscendingOrder)

    # ---- called by Qt ----------------------------------------------------------------

    def rowCount(self, parent: ModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._row_order)

    def columnCount(self, parent: ModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else 1 + len(self.table_data.columns)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> str | None:
        if orientation is not Qt.Orientation.Horizontal:
            return None
        column = self.table_data.columns[section - 1] if section else None
        if role == Qt.ItemDataRole.DisplayRole:
            return self.first_header if column is None else column.title
        if role == Qt.ItemDataRole.ToolTipRole:
            return None if column is None else wrap_tooltip(column.tooltip)
        return None

    def data(self, index: ModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        row = int(self._row_order[index.row()])
        if index.column() == 0:
            return self._symbol_data(row, role)
        column = self.table_data.columns[index.column() - 1]
        has_warning = column.warning_mask is not None and bool(column.warning_mask[row])
        if role == Qt.ItemDataRole.DisplayRole:
            return column.format_value(row)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return ALIGN_RIGHT
        if role == Qt.ItemDataRole.BackgroundRole:
            return WARNING_COLOR if has_warning else None
        if role == Qt.ItemDataRole.ToolTipRole:
            return wrap_tooltip(column.warning if has_warning else column.tooltip)
        return None

    def _symbol_data(self, row: int, role: int) -> object:
        if role == Qt.ItemDataRole.DisplayRole:
            return self.table_data.symbols[row]
        if role == Qt.ItemDataRole.ToolTipRole and self.table_data.tooltips:
            return wrap_tooltip(self.table_data.tooltips[row])
        if role == Qt.ItemDataRole.BackgroundRole and len(self.table_data.warning_mask):
            return WARNING_COLOR if self.table_data.warning_mask[row] else None
        return None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        self._sort_state = column, order
        self._update_order()

    # ---- called by the panel ---------------------------------------------------------

    def set_table_data(self, table_data: MetricsTableData) -> None:
        """Replace the contents; the filter and the sort order stay."""
        self.beginResetModel()
        self.table_data = table_data
        self._row_order = self._compute_order()
        self.endResetModel()

    def set_filter(self, text: str) -> None:
        """Show only rows whose symbol or tooltip contains the text, ignoring case."""
        self._filter_text = text.strip().upper()
        self._update_order()

    def symbol_at(self, row: int) -> str:
        return self.table_data.symbols[int(self._row_order[row])]

    def find_row(self, symbol: str | None) -> int | None:
        """Return the displayed row of a gene; None if it is filtered out or unknown."""
        if symbol not in self.table_data.symbols:
            return None
        rows = np.flatnonzero(self._row_order == self.table_data.symbols.index(symbol))
        return int(rows[0]) if len(rows) else None

    def _update_order(self) -> None:
        self.beginResetModel()
        self._row_order = self._compute_order()
        self.endResetModel()

    def _compute_order(self) -> NDArray[np.int64]:
        """Filtered and sorted rows; unknown values come last in either direction."""
        table, (column, direction) = self.table_data, self._sort_state
        rows = np.arange(len(table.symbols))
        if self._filter_text:
            tooltips = table.tooltips or ("",) * len(rows)
            texts = zip(table.symbols, tooltips, strict=True)
            is_match = [
                self._filter_text in s.upper() or self._filter_text in t.upper() for s, t in texts
            ]
            rows = rows[np.array(is_match, bool)]
        is_descending = direction is Qt.SortOrder.DescendingOrder
        if column == 0:
            symbols = np.array(table.symbols, dtype=str)[rows]
            order = np.argsort(symbols, kind="stable")
            return np.asarray(rows[order[::-1] if is_descending else order])
        if not 0 < column <= len(table.columns):
            return rows
        values = table.columns[column - 1].values[rows]
        return np.asarray(rows[np.argsort(-values if is_descending else values, kind="stable")])


class MetricsTable(QTableView):
    """Table view; selecting a row emits its gene.

    Parameters
    ----------
    first_header
        Heading of column 0.
    long_names
        Whether column 0 is truncated to the available width, so that the metrics stay visible.
    """

    symbol_selected = Signal(str)

    def __init__(self, first_header: str = "Gene", long_names: bool = False) -> None:
        super().__init__()
        self._long_names = long_names
        self.table_model = MetricsTableModel(first_header)
        self.setModel(self.table_model)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setTabKeyNavigation(False)  # Tab moves to the next control
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setCornerButtonEnabled(False)
        rows, head = self.verticalHeader(), self.horizontalHeader()
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(self.fontMetrics().height() + 6)
        head.setHighlightSections(False)
        # The arrow of the sorted column stands at the right end, over the end of a centred title.
        head.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        head.setMinimumSectionSize(30)
        self._selected_symbol: str | None = None
        self.frozen_names = FrozenNames(self)
        self.table_model.modelReset.connect(lambda: self._update_selection(False))
        self.selectionModel().currentRowChanged.connect(self._on_row_changed)

    def set_table_data(self, table_data: MetricsTableData, sort_by: int = 1) -> None:
        """Fill the table; the first time it is sorted by column ``sort_by``, descending."""
        head = self.horizontalHeader()
        if not self.isSortingEnabled():
            head.blockSignals(True)  # Qt would first sort by its previous indicator
            self.setSortingEnabled(True)
            head.setSortIndicator(sort_by, Qt.SortOrder.DescendingOrder)
            head.blockSignals(False)
            self.table_model.sort(sort_by, Qt.SortOrder.DescendingOrder)
        before = self.table_model.table_data
        has_new_columns = [c.title for c in before.columns] != [c.title for c in table_data.columns]
        has_new_columns |= before.symbols != table_data.symbols
        self.table_model.set_table_data(table_data)
        if has_new_columns:
            self._fit_columns()

    def select_symbol(self, symbol: str | None) -> None:
        """Select the row of a gene and scroll to it, without emitting `symbol_selected`."""
        self._selected_symbol = symbol
        self._update_selection(True)

    def scrollTo(
        self,
        index: ModelIndex,
        hint: QAbstractItemView.ScrollHint = QAbstractItemView.ScrollHint.EnsureVisible,
    ) -> None:
        """Scroll to a row; columns stay where they are, as the names are always in sight."""
        bar = self.horizontalScrollBar()
        before = bar.value()
        super().scrollTo(index, hint)
        if index.column() == 0:
            bar.setValue(before)

    def _update_selection(self, scroll: bool) -> None:
        row, selection = self.table_model.find_row(self._selected_symbol), self.selectionModel()
        selection.blockSignals(True)
        if row is None:
            selection.clear()
        else:
            index = self.table_model.index(row, 0)
            flag = QItemSelectionModel.SelectionFlag
            selection.setCurrentIndex(index, flag.ClearAndSelect | flag.Rows)
            if scroll:
                self.scrollTo(index)
        selection.blockSignals(False)
        self.viewport().update()

    def _fit_columns(self) -> None:
        """Fit the columns to their heading and a sample of the rows."""
        metrics, head = self.fontMetrics(), self.horizontalHeader()
        model = self.table_model
        sample = np.unique(np.linspace(0, max(0, model.rowCount() - 1), 60).astype(int)).tolist()
        for column in range(model.columnCount()):
            texts = [str(model.headerData(column, Qt.Orientation.Horizontal)) + "  "]
            texts += [
                str(model.data(model.index(r, column))) for r in sample if r < model.rowCount()
            ]
            width = max(metrics.horizontalAdvance(t) for t in texts) + 8
            if column == 0:  # long names leave room for figures
                room = (self.parentWidget() or self).width()  # before the table is shown, too
                width = min(width, max(int(MAX_NAME_SHARE * room), 60))
            head.resizeSection(column, width)
        if self._long_names:
            head.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)

    def _on_row_changed(self, current: QModelIndex, previous: QModelIndex) -> None:
        if current.isValid():
            self._selected_symbol = self.table_model.symbol_at(current.row())
            self.symbol_selected.emit(self._selected_symbol)


def wrap_tooltip(text: str) -> str:
    """Break a tooltip into lines, since Qt does not wrap plain text."""
    return "\n".join(fill(line, TOOLTIP_WIDTH) for line in text.splitlines())


def table_to_csv(table_data: MetricsTableData, first_header: str = "gene") -> str:
    """Format all rows, unsorted, with six significant digits."""
    lines = [",".join([first_header, *(_quote_csv(c.title) for c in table_data.columns)])]
    for i, symbol in enumerate(table_data.symbols):
        values = ("" if np.isnan(c.values[i]) else f"{c.values[i]:.6g}" for c in table_data.columns)
        lines.append(",".join([_quote_csv(symbol), *values]))
    return "\n".join(lines) + "\n"


def _quote_csv(text: str) -> str:
    return f'"{text}"' if "," in text or " " in text else text
