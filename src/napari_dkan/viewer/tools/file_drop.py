"""Files that are dropped on the canvas: the plugin opens its own without napari's question.

napari asks which reader to use where its own reader claims a suffix too, as it does for nearly all
images, unless the user has chosen a reader for it (Preferences > Plugins). While the Predict panel
is open, the answer is known. A checkpoint makes no layer, so no reader has it: it is loaded.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from napari.plugins.utils import get_preferred_reader
from npe2 import PluginManager
from qtpy.QtCore import (  # type: ignore[attr-defined]
    QCoreApplication,
    QEvent,
    QMimeData,
    QObject,
    Qt,
    QUrl,
    Signal,
)
from qtpy.QtGui import QDragEnterEvent, QDragLeaveEvent, QDropEvent, QGuiApplication
from qtpy.QtWidgets import QMainWindow, QWidget

from ...errors import DkanError
from ..session.viewer_session import ViewerSession
from ..session.viewer_settings import PLUGIN_NAME

KNOWN_READERS = {PLUGIN_NAME, "napari"}
# With these napari asks for the reader, or opens the files as one stack.
KEYS_OF_NAPARI = Qt.KeyboardModifier.AltModifier | Qt.KeyboardModifier.ShiftModifier


class FileDrop(QObject):
    """Opens dropped files where napari would ask for the reader, if the plugin reads all of them.

    What the plugin cannot open is left to napari, and so are files for which the user has chosen a
    reader or which a further plugin reads.
    """

    checkpoint_dropped = Signal(object)  # Path

    def __init__(self, session: ViewerSession) -> None:
        super().__init__()
        self._session = session
        self._targets: list[QWidget] = []
        self._is_forwarding = False

    def attach(self, window: QWidget) -> None:
        """Watch what accepts files in the middle of a window, once."""
        centre = window.centralWidget() if isinstance(window, QMainWindow) else None
        if self._targets or centre is None:
            return
        self._targets = [w for w in (centre, *centre.findChildren(QWidget)) if w.acceptDrops()]
        for target in self._targets:
            target.installEventFilter(self)

    def close(self) -> None:
        """Leave all files to napari again."""
        targets, self._targets = self._targets, []
        for target in targets:
            with suppress(RuntimeError):  # deleted with its window
                target.removeEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if (
            isinstance(event, QDropEvent)
            and event.type() == QEvent.Type.Drop
            and not self._is_forwarding
        ):
            urls = event.mimeData().urls()
            checkpoints = [url for url in urls if _is_checkpoint(url)]
            urls = [url for url in urls if url not in checkpoints]
            is_ours = self._is_ours(urls)
            if checkpoints or is_ours:
                event.acceptProposedAction()
                # The highlight of napari's welcome screen ends when a drag leaves it.
                QCoreApplication.sendEvent(watched, QDragLeaveEvent())
                self._take_checkpoints([Path(url.toLocalFile()) for url in checkpoints])
                left = [u for u in urls if not (is_ours and self._open(Path(u.toLocalFile())))]
                self._forward(watched, event, left)
                return True
        return super().eventFilter(watched, event)

    def _take_checkpoints(self, paths: list[Path]) -> None:
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            self._session.message.show(
                f"Drop one checkpoint at a time; none of {names} is loaded.", warning=True
            )
        elif paths:
            self.checkpoint_dropped.emit(paths[0])

    def _is_ours(self, urls: list[QUrl]) -> bool:
        if not urls:
            return False
        if QGuiApplication.keyboardModifiers() & KEYS_OF_NAPARI:
            return False
        if not all(url.isLocalFile() for url in urls):
            return False
        readers = [_find_readers(url.toLocalFile()) for url in urls]
        would_ask = any(len(names) > 1 for names in readers)
        return would_ask and all({PLUGIN_NAME} <= names <= KNOWN_READERS for names in readers)

    def _open(self, path: Path) -> bool:
        """Open a file; return False if no reader of the plugin can."""
        try:
            self._session.viewer.open(path, plugin=PLUGIN_NAME)
        except (DkanError, ValueError):  # which npe2 raises where readers decline
            return False
        return True

    def _forward(self, target: QObject, event: QDropEvent, urls: list[QUrl]) -> None:
        """Drop what is left on napari."""
        if not urls:
            return
        mime = QMimeData()
        mime.setUrls(urls)
        place, how = event.position(), (event.possibleActions(), mime)
        held = event.buttons(), event.modifiers()
        self._is_forwarding = True
        try:  # Qt delivers a drop to the widget that the drag has entered
            QCoreApplication.sendEvent(target, QDragEnterEvent(place.toPoint(), *how, *held))
            QCoreApplication.sendEvent(target, QDropEvent(place, *how, *held))
        finally:
            self._is_forwarding = False


def _is_checkpoint(url: QUrl) -> bool:
    return url.isLocalFile() and url.fileName().lower().endswith(".safetensors")


def _find_readers(path: str) -> set[str]:
    """Return the plugins that read such files, or the one that the user has chosen for them."""
    chosen = get_preferred_reader(path)
    if chosen is not None:
        return {chosen}
    return {r.plugin_name for r in PluginManager.instance().iter_compatible_readers(path)}
