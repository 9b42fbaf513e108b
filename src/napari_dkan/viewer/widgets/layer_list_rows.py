"""Rows of napari's list of layers that are not shown.

napari cannot leave a layer out of its list; Qt can hide rows of the view. Without a window, or
where the view is not found, all rows stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.layers import Layer
from qtpy.QtCore import QAbstractItemModel, QSortFilterProxyModel, Qt
from qtpy.QtWidgets import QApplication, QListView

LAYER_ROLE = Qt.ItemDataRole.UserRole  # of a row: its layer


class LayerListRows:
    """Hides the rows of some layers, also after rows are added and moved.

    Parameters
    ----------
    is_hidden : callable
        Whether the row of a layer is hidden.
    """

    def __init__(self, is_hidden: Callable[[Layer], bool]) -> None:
        self._is_hidden = is_hidden
        self._view: QListView | None = None

    def hide(self, layers: Any) -> None:
        """Hide the rows in the view of this list of layers, from now on."""
        if self._view is None:
            self._view = _find_view(layers)
            if self._view is None:
                return
            model = self._view.model()
            self._view.destroyed.connect(self._on_view_destroyed)
            for signal in (model.rowsInserted, model.layoutChanged, model.modelReset):
                signal.connect(self._update_rows)
        self._update_rows()

    def _on_view_destroyed(self) -> None:
        self._view = None

    def _update_rows(self, *args: object) -> None:
        if self._view is None:
            return
        for row, layer in enumerate(_list_layers(self._view.model())):
            if layer is not None and self._view.isRowHidden(row) != self._is_hidden(layer):
                self._view.setRowHidden(row, self._is_hidden(layer))


def _find_view(layers: Any) -> QListView | None:
    """Return the view whose rows are these layers."""
    wanted = {id(layer) for layer in layers}
    for window in [] if QApplication.instance() is None else QApplication.topLevelWidgets():
        for view in window.findChildren(QListView):
            model = view.model()
            if not isinstance(model, QSortFilterProxyModel):
                continue  # such as that of a combo box with layers
            if wanted and wanted == {id(layer) for layer in _list_layers(model)}:
                return view
    return None


def _list_layers(model: QAbstractItemModel) -> list[Layer | None]:
    rows = [model.index(row, 0).data(LAYER_ROLE) for row in range(model.rowCount())]
    return [layer if isinstance(layer, Layer) else None for layer in rows]
