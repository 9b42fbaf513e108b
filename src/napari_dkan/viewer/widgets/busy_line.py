"""A line that says at once what a longer step in the window's thread does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QLabel, QWidget

MARGIN_PX = 12


@contextmanager
def busy_line(viewer: Any, text: str) -> Iterator[None]:
    """Show a line at the right of a viewer's window until the block is done and painted.

    The line is painted before the block begins: a step in the window's thread lets nothing else be.
    """
    napari_window = getattr(viewer, "window", None)
    window: QWidget | None = None if napari_window is None else napari_window.main_menu.window()
    if window is None or not window.isVisible():
        yield
        return
    label = QLabel(text, window)
    label.setAutoFillBackground(True)
    label.setContentsMargins(MARGIN_PX, MARGIN_PX, MARGIN_PX, MARGIN_PX)
    label.adjustSize()
    label.move(window.width() - label.width() - MARGIN_PX, window.height() // 3)
    label.show()
    label.raise_()
    label.repaint()
    QApplication.setOverrideCursor(Qt.CursorShape.WaitCursor)
    try:
        yield
    finally:
        QApplication.restoreOverrideCursor()

        def remove() -> None:
            with suppress(RuntimeError):  # deleted with its window
                label.hide()
                label.deleteLater()

        QTimer.singleShot(0, remove)
