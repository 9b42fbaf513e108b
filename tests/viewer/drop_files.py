"""Drop files on the window, with the events of a mouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.settings import get_settings
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication

if TYPE_CHECKING:
    from pathlib import Path

    from napari import Viewer

PLACE = QPointF(200, 200)
DRAG = (Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)


def drop(viewer: Viewer, *paths: Path, remembered: bool = True) -> None:
    """Drop files on the canvas.

    Of several readers napari takes this plugin's, as if the user had chosen and remembered it.
    """
    if remembered:
        suffixes = {f"*{path.suffix}": "napari-dkan" for path in paths if path.suffix}
        get_settings().plugins.extension2reader = suffixes
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    canvas, (action, button, modifier) = viewer.window._qt_viewer, DRAG
    QApplication.sendEvent(canvas, QDragEnterEvent(PLACE.toPoint(), action, mime, button, modifier))
    QApplication.sendEvent(canvas, QDropEvent(PLACE, action, mime, button, modifier))
