"""The list of domains: name and colour, number of tiles, and the genes that are highest in each."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import QPoint, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHeaderView,
    QMenu,
    QTreeWidget,
    QTreeWidgetItem,
)

from ....layers.spot_layers import domain_color
from ....widgets.metrics_table import wrap_tooltip
from ....widgets.qt_utils import make_swatch
from .domains_job import DomainResult

N_LISTED, N_SHOWN = 8, 3  # genes below a domain, and beside its name
VISIBLE_ROWS = 8
MAX_NAME_LENGTH = 80
GENES_TOOLTIP = (
    "Genes that are highest here against the other tiles of this slide, in standard deviations of "
    "a tile (Cohen's d). Open a row for more of them; click a gene to see its map."
)


class DomainTable(QTreeWidget):
    """A row per domain with its genes below. A double click renames, a right click has colours.

    Attributes
    ----------
    names, colors : list of str
        Of the domains, the first one is number 1.
    """

    style_changed = Signal()  # names or colours
    gene_selected = Signal(str)
    domain_selected = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.colors: list[str] = []
        self.setIndentation(14)
        self.setUniformRowHeights(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.itemDoubleClicked.connect(self._on_double_click)
        self.setExpandsOnDoubleClick(False)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setFixedHeight((VISIBLE_ROWS + 1) * (self.fontMetrics().height() + 8))
        self.setToolTip("Double click: rename. Right click: colour.")
        self.itemChanged.connect(self._on_edited)
        self.itemClicked.connect(self._on_clicked)
        self.customContextMenuRequested.connect(self._show_menu)

    def set_result(self, result: DomainResult, is_same: bool) -> None:
        """List the domains of a result; names and colours stay where the domains are the same."""
        count = int(result.predicted.max())
        if result.measured is not None:
            count = max(count, int(result.measured.max()))
        if not is_same:
            self.names = [f"Domain {n}" for n in range(1, count + 1)]
            self.colors = [domain_color(n) for n in range(1, count + 1)]
        self.blockSignals(True)
        self.clear()
        self.setHeaderLabels(["Domain", result.unit, "highest genes"])
        self.headerItem().setToolTip(1, f"Predicted {result.unit} in the domain")
        self.headerItem().setToolTip(2, wrap_tooltip(GENES_TOOLTIP))
        n_tiles = [*result.genes.n_tiles.tolist(), *[0] * count][:count]
        for number, tiles in enumerate(n_tiles, 1):
            top = result.genes.top_genes(number, N_LISTED) if tiles else []
            shown = ", ".join(symbol for symbol, _ in top[:N_SHOWN])
            item = QTreeWidgetItem([self.names[number - 1], f"{tiles:,}", shown or "measured only"])
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
            item.setIcon(0, make_swatch(QColor(self.colors[number - 1])))
            item.setTextAlignment(1, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            for symbol, effect in top:
                item.addChild(QTreeWidgetItem([symbol, "", f"{effect:+.1f} SD"]))
            self.addTopLevelItem(item)
        head = self.header()
        head.setStretchLastSection(True)
        head.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        head.resizeSection(0, max(self.sizeHintForColumn(0) + 8, 130))
        self.blockSignals(False)

    def _number_of(self, item: QTreeWidgetItem | None) -> int | None:
        index = -1 if item is None else self.indexOfTopLevelItem(item)
        return None if index < 0 else index + 1

    def _on_edited(self, item: QTreeWidgetItem, column: int) -> None:
        number = self._number_of(item)
        if number is None:
            return
        name = " ".join(item.text(0).split())[:MAX_NAME_LENGTH]
        if column == 0 and name and name != self.names[number - 1]:
            self.names[number - 1] = name
            self.style_changed.emit()
        self.blockSignals(True)
        item.setText(0, self.names[number - 1])
        self.blockSignals(False)

    def _on_double_click(self, item: QTreeWidgetItem, column: int) -> None:
        if item.parent() is None:
            self.editItem(item, 0)

    def _on_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        if item.parent() is None:
            self.domain_selected.emit()
        else:
            self.gene_selected.emit(item.text(0))

    def _show_menu(self, position: QPoint) -> None:
        item = self.itemAt(position)
        number = self._number_of(item)
        if item is None or number is None:
            return
        menu = QMenu(self)
        menu.addAction("Rename", partial(self.editItem, item, 0))
        menu.addAction("Colour...", partial(self._ask_color, number))
        menu.exec(self.viewport().mapToGlobal(position))

    def _ask_color(self, number: int) -> None:
        name = self.names[number - 1]
        color = QColorDialog.getColor(QColor(self.colors[number - 1]), self, f"Colour of {name}")
        if color.isValid():
            self.set_color(number, color.name())

    def set_color(self, number: int, color: str) -> None:
        """Give a domain, from 1, another colour."""
        self.colors[number - 1] = color
        item = self.topLevelItem(number - 1)
        self.blockSignals(True)
        if item is not None:
            item.setIcon(0, make_swatch(QColor(color)))
        self.blockSignals(False)
        self.style_changed.emit()
