"""The list of classes and regions with the statistics of the shown gene."""

from __future__ import annotations

from functools import partial

import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor, QKeyEvent, QResizeEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHeaderView,
    QMenu,
    QTreeWidget,
    QTreeWidgetItem,
)

from ...layers.region_objects import UNCLASSIFIED, classify, delete, recolor, rename
from ...widgets.metrics_table import NO_VALUE, format_metric, wrap_tooltip
from ...widgets.qt_utils import make_swatch
from ...widgets.signal_connections import SignalConnections
from .regions_model import RegionGroup, RegionsModel

PREDICTED_COLUMNS = (
    ("tiles", "Predicted tiles whose centre lies in the region"),
    ("mm\N{SUPERSCRIPT TWO}", "Area of the outline, without holes"),
    ("mean", "Mean of the predicted values of the shown gene over the tiles"),
    ("median", "Median of the predicted values"),
    ("unrel.", "Share of tiles whose prediction is unreliable"),
)
MEASURED_COLUMNS = (
    ("spots", "Measured spots in the region"),
    ("meas. mean", "Mean of the measured values of the shown gene over the spots"),
    ("meas. med.", "Median of the measured values"),
)
VISIBLE_ROWS = 6


class RegionTree(QTreeWidget):
    """Classes with their regions. A double click renames, a right click has the rest."""

    def __init__(self, model: RegionsModel, connections: SignalConnections) -> None:
        super().__init__()
        self._model = model
        self._shown: list[tuple[str, bool]] = []
        self.setUniformRowHeights(True)
        self.setIndentation(14)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setExpandsOnDoubleClick(False)
        self.itemDoubleClicked.connect(lambda item, column: self.editItem(item, 0))
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.header().setStretchLastSection(False)
        self.header().setMinimumSectionSize(30)
        self.setFixedHeight((VISIBLE_ROWS + 1) * (self.fontMetrics().height() + 8))
        self.setToolTip("Double click: rename. Right click: colour, class, delete (Del).")
        self.itemChanged.connect(self._on_edited)
        self.customContextMenuRequested.connect(self._show_menu)
        connections.connect(self.refresh, model.table_changed)
        self.refresh()

    def selected_group(self) -> RegionGroup | None:
        """Return the group of the selected row."""
        items = self.selectedItems()
        return None if not items else self._group_of(items[0])

    def refresh(self) -> None:
        """Follow the regions and their statistics."""
        table = self._model.table
        titles = [("Region", "")]
        titles += PREDICTED_COLUMNS
        if table.measured is not None:
            titles += MEASURED_COLUMNS
        selected = self.selected_group()
        self.blockSignals(True)
        self.clear()
        self.setColumnCount(len(titles))
        self.setHeaderLabels([title for title, _ in titles])
        for column, (_, tooltip) in enumerate(titles):
            self.headerItem().setToolTip(column, wrap_tooltip(tooltip))
        parent: QTreeWidgetItem | None = None
        for row, group in enumerate(table.groups):
            item = QTreeWidgetItem([group.name, *self._cells(row)])
            item.setData(0, Qt.ItemDataRole.UserRole, row)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
            item.setIcon(0, make_swatch(QColor(*group.color)))
            for column in range(1, len(titles)):
                item.setTextAlignment(
                    column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                )
            if group.is_class:
                parent = item
                self.addTopLevelItem(item)
                item.setExpanded(True)
            elif parent is not None:
                parent.addChild(item)
            if selected is not None and group.name == selected.name:
                item.setSelected(True)
        self.expandAll()
        self._fit_columns(len(titles))
        self.blockSignals(False)

    def _cells(self, row: int) -> list[str]:
        table = self._model.table
        group, predicted, measured = table.groups[row], table.predicted, table.measured
        slide = self._model.slide
        mpp = 0.0 if slide is None else slide.mpp
        area = f"{sum(g.area for g in group.geometries) * (mpp / 1000) ** 2:.2f}"
        if predicted is None:
            cells = [NO_VALUE, area, NO_VALUE, NO_VALUE, NO_VALUE]
        else:
            cells = [
                f"{predicted.n_tiles[row]:,}",
                f"{predicted.area_mm2[row]:.2f}",
                format_metric(float(predicted.mean[row, 0])),
                format_metric(float(predicted.median[row, 0])),
                format_metric(float(predicted.unreliable[row]), ".0%"),
            ]
        if measured is not None:
            cells += [
                f"{measured.n_tiles[row]:,}",
                format_metric(float(measured.mean[row, 0])),
                format_metric(float(measured.median[row, 0])),
            ]
        return cells

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_columns(self.columnCount())

    def _fit_columns(self, count: int) -> None:
        head = self.header()
        for column in range(1, count):
            self.resizeColumnToContents(column)
        head.setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
        others = sum(head.sectionSize(c) for c in range(1, count))
        wanted = max(self.sizeHintForColumn(0), 60)
        head.resizeSection(0, max(wanted, self.viewport().width() - others))

    def _group_of(self, item: QTreeWidgetItem) -> RegionGroup | None:
        row = item.data(0, Qt.ItemDataRole.UserRole)
        groups = self._model.table.groups
        return groups[row] if isinstance(row, int) and row < len(groups) else None

    # ---- changes by the user -----------------------------------------------------------

    def _on_edited(self, item: QTreeWidgetItem, column: int) -> None:
        group, text = self._group_of(item), " ".join(item.text(0).split())[:80]
        if group is None or column != 0 or text == group.name:
            return
        if not text:
            self.refresh()
        elif group.is_class:
            self._move(group, text)
        else:
            rename(group.objects[0], text)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        group = self.selected_group()
        if group is not None and event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            delete(group.objects)
        else:
            super().keyPressEvent(event)

    def _move(self, group: RegionGroup, class_name: str) -> None:
        """Put regions into a class; they take its colour if there is one."""
        existing = next(
            (g for g in self._model.groups if g.is_class and g.name == class_name), None
        )
        color = None if existing is None else np.array(existing.color) / 255
        classify(group.objects, "" if class_name == UNCLASSIFIED else class_name, color)

    def _show_menu(self, position: QPoint) -> None:
        item = self.itemAt(position)
        group = None if item is None else self._group_of(item)
        if item is None or group is None:
            return
        menu = QMenu(self)
        menu.addAction("Rename", partial(self.editItem, item, 0))
        menu.addAction("Colour...", partial(self._ask_color, group))
        classes = [g.name for g in self._model.groups if g.is_class and g is not group]
        if classes:
            moves = menu.addMenu("Move to class")
            for name in classes:
                moves.addAction(name.replace("&", "&&"), partial(self._move, group, name))
        menu.addAction("Delete", partial(delete, group.objects))
        menu.exec(self.viewport().mapToGlobal(position))

    def _ask_color(self, group: RegionGroup) -> None:
        color = QColorDialog.getColor(QColor(*group.color), self, f"Colour of {group.name}")
        if color.isValid():
            recolor(group.objects, color.getRgbF())
