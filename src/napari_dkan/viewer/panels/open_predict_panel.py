"""Open the Predict panel as a tab next to another panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QMainWindow, QWidget

from ..session.shortcut_actions import PREDICT_PANEL
from ..session.viewer_settings import PLUGIN_NAME
from ..widgets.qt_utils import find_dock
from .predict.predict_widget import PredictWidget

if TYPE_CHECKING:
    from napari.viewer import Viewer


def open_predict_panel(panel: QWidget, viewer: Viewer) -> None:
    """Open the Predict panel, if necessary, as a tab next to a panel that is about to be docked.

    Two panels beside or above each other would not fit on a small screen.
    """
    window = getattr(viewer, "window", None)
    if window is None:
        return

    def open_tab() -> None:
        dock = find_dock(panel)
        if dock is None:  # closed again, or not docked
            return
        predict = next(
            (w for w in window.dock_widgets.values() if isinstance(w, PredictWidget)), None
        )
        if predict is None:
            _, predict = window.add_plugin_dock_widget(PLUGIN_NAME, PREDICT_PANEL)
        other, main = find_dock(predict), dock.parent()
        if other is not None and isinstance(main, QMainWindow) and not other.isFloating():
            main.tabifyDockWidget(other, dock)
            dock.raise_()

    timer = QTimer(panel)  # deleted with the panel, unlike QTimer.singleShot of PyQt6
    timer.setSingleShot(True)
    timer.timeout.connect(open_tab)
    timer.start(0)
