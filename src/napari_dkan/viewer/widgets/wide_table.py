"""Parts of a table wider than its panel: names that stay, and a way to the other columns."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QAbstractItemView, QFrame, QPushButton, QTableView


class FrozenNames(QTableView):
    """Column 0 of a table, drawn over it while the table is scrolled to the right."""

    def __init__(self, table: QTableView) -> None:
        super().__init__(table)
        self._table = table
        self.setModel(table.model())
        self.setSelectionModel(table.selectionModel())
        self.setSelectionBehavior(table.selectionBehavior())
        self.setSelectionMode(table.selectionMode())
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setCornerButtonEnabled(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        rows = self.verticalHeader()
        rows.hide()
        rows.setDefaultSectionSize(table.verticalHeader().defaultSectionSize())
        self.horizontalHeader().setSectionsClickable(False)
        self.horizontalHeader().setMinimumSectionSize(30)
        table.verticalScrollBar().valueChanged.connect(self.verticalScrollBar().setValue)
        self.verticalScrollBar().valueChanged.connect(table.verticalScrollBar().setValue)
        table.horizontalScrollBar().valueChanged.connect(self._follow)
        table.horizontalHeader().sectionResized.connect(self._follow)
        table.installEventFilter(self)
        self.hide()

    def _follow(self) -> None:
        table = self._table
        self.setVisible(table.horizontalScrollBar().value() > 0)
        if self.isHidden():
            return
        for column in range(table.model().columnCount()):
            self.setColumnHidden(column, column > 0)
        width, head = table.columnWidth(0), table.horizontalHeader().height()
        self.setColumnWidth(0, width)
        self.horizontalHeader().setFixedHeight(head)
        edge = table.frameWidth()
        self.setGeometry(edge, edge, width, head + table.viewport().height())
        self.verticalScrollBar().setValue(table.verticalScrollBar().value())
        self.raise_()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        # Qt sends events to objects that the garbage collector has already cleared.
        if event.type() == QEvent.Type.Resize and vars(self):
            self._follow()
        return super().eventFilter(watched, event)


class ColumnPager(QPushButton):
    """Says how many columns are out of sight to the right, and scrolls to them, then back.

    Hidden while all columns fit.
    """

    def __init__(self, table: QTableView) -> None:
        super().__init__()
        self._table = table
        bar = table.horizontalScrollBar()
        bar.rangeChanged.connect(self.refresh)
        bar.valueChanged.connect(self.refresh)
        table.horizontalHeader().sectionResized.connect(self.refresh)
        self.clicked.connect(self._turn)
        self.refresh()

    def hidden_columns(self) -> list[int]:
        """Return the columns that are cut off or out of sight to the right."""
        head, right = self._table.horizontalHeader(), self._table.viewport().width()
        return [
            column
            for column in range(head.count())
            if head.sectionViewportPosition(column) + head.sectionSize(column) > right
        ]

    def refresh(self) -> None:
        bar, beyond = self._table.horizontalScrollBar(), self.hidden_columns()
        is_at_end = not beyond or bar.value() == bar.maximum()
        self.setVisible(bar.maximum() > 0)
        if is_at_end:
            self.setText("\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK} first columns")
        else:
            n, arrow = len(beyond), "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
            self.setText(f"{n} more column{'s' if n != 1 else ''} {arrow}")

    def _turn(self) -> None:
        """Bring the first column that is cut off beside the names; from the end, go back."""
        bar, beyond = self._table.horizontalScrollBar(), self.hidden_columns()
        head = self._table.horizontalHeader()
        if bar.value() == bar.maximum() or not beyond:
            bar.setValue(0)
            return
        names = self._table.columnWidth(0)
        bar.setValue(max(head.sectionPosition(beyond[0]) - names, bar.value() + 1))
