"""Open the Predict panel as a tab next to another panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QMainWindow, QWidget

from ..widgets.qt_utils import find_dock
from .predict.predict_widget import PredictWidget

if TYPE_CHECKING:
    from napari.viewer import Viewer


PLUGIN_NAME, PREDICT_WIDGET_NAME = "napari-dkan", "DKAN: predict"


def open_predict_panel(panel: QWidget, viewer: Viewer) -> None:
    """Once ``panel`` is docked, open the Predict panel if nobody has, and stack them as tabs.

    Side by side or on top of each other, two panels would leave no room on a small screen.
    """
    window = getattr(viewer, "window", None)
    if window is None:
        return

    def open_it() -> None:
        dock = find_dock(panel)
        if dock is None:  # it was closed again, or is not docked at all
            return
        predict = next((w for w in window.dock_widgets.values() if _is_predict_widget(w)), None)
        if predict is None:
            _, predict = window.add_plugin_dock_widget(PLUGIN_NAME, PREDICT_WIDGET_NAME)
        other, main = find_dock(predict), dock.parent()
        if other is not None and isinstance(main, QMainWindow) and not other.isFloating():
            main.tabifyDockWidget(other, dock)
            dock.raise_()

    timer = QTimer(panel)  # goes with the panel; PyQt6's singleShot takes no object to go with
    timer.setSingleShot(True)
    timer.timeout.connect(open_it)
    timer.start(0)


def _is_predict_widget(widget: object) -> bool:
    return isinstance(widget, PredictWidget)
