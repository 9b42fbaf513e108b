"""Box to save, export, draw and open results."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from qtpy.QtWidgets import (
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ....export import figure_rendering as figure
from ....export.export_formats import EXPORT_FORMATS, ExportFormat
from ...session.shortcut_actions import register_actions, set_tooltip
from ...widgets.signal_connections import SignalConnections
from ...widgets.theme_colors import ERROR_COLOR, set_text_color
from .results_controller import NO_MAP_MESSAGE, ResultsController
from .save_result import find_overlay_slide, get_selected_map

H5AD_SUFFIX = ".h5ad"
FIGURE_FILE_FILTER = "Picture (*.png);;Drawing (*.svg);;PDF (*.pdf)"


class ResultsBox(QWidget):
    """Four buttons and a sentence about what became of them."""

    def __init__(self, results: ResultsController, connections: SignalConnections) -> None:
        super().__init__()
        self._results, self._session = results, results.session
        self._folder = Path()
        self.save_button, self.figure_button = QPushButton("Save..."), QPushButton("Figure...")
        self.export_button, self.open_button = QPushButton("Export"), QPushButton("Open result...")
        set_tooltip(
            self.save_button,
            "The selected map, else the newest, with all genes and this view, as an .h5ad that "
            "opens here again and in scanpy ({key})",
            "save",
            connections,
        )
        set_tooltip(
            self.figure_button,
            "What the canvas shows as PNG, SVG or PDF ({key})",
            "figure",
            connections,
        )
        self.export_button.setToolTip("The same map for QuPath, tables, SpatialData and OME-Zarr")
        self.open_button.setToolTip("A saved .h5ad: its slide, map and view come back")
        menu = QMenu(self.export_button)
        for kind in EXPORT_FORMATS:
            if kind.suffix not in (H5AD_SUFFIX, *figure.FIGURE_SUFFIXES):
                title = f"{kind.title[:1].upper()}{kind.title[1:]} ({kind.suffix}) ..."
                menu.addAction(title, partial(self._ask_path, kind))
        self.export_button.setMenu(menu)
        self.status_label = QLabel()
        self.status_label.setWordWrap(True)
        self.locate_button, self.cancel_button = (
            QPushButton("Locate slide..."),
            QPushButton("Cancel"),
        )
        self.locate_button.setToolTip("Where the slide of the reopened result is now")

        buttons = QGridLayout()
        for at, button in enumerate(
            (self.save_button, self.figure_button, self.export_button, self.open_button)
        ):
            buttons.addWidget(button, at // 2, at % 2)
        below = QHBoxLayout()
        below.addWidget(self.locate_button)
        below.addWidget(self.cancel_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        layout.addWidget(self.status_label)
        layout.addLayout(below)

        self.save_button.clicked.connect(lambda: self._ask_save())
        self.figure_button.clicked.connect(self._ask_figure)
        self.open_button.clicked.connect(self._ask_open)
        self.locate_button.clicked.connect(self._ask_slide)
        self.cancel_button.clicked.connect(results.cancel)
        session = self._session
        self.unregister_actions = register_actions(
            session.viewer, save=self._ask_save, figure=self._ask_figure
        )
        connections.connect(
            self.refresh, results.changed, session.overlays_changed, session.overlay_updated
        )
        self.refresh()

    def refresh(self, event: object = None) -> None:
        results = self._results
        there, busy = get_selected_map(self._session) is not None, results.busy
        for button in (self.save_button, self.export_button, self.figure_button):
            button.setEnabled(there and not busy)
        self.open_button.setEnabled(not busy)
        self.cancel_button.setVisible(busy)
        self.locate_button.setVisible(results.result_without_slide is not None and not busy)
        self.status_label.setText(results.message)
        self.status_label.setVisible(bool(results.message))
        set_text_color(self.status_label, ERROR_COLOR if results.message_is_warning else None)

    # ---- asking ----------------------------------------------------------------------

    def _default_name(self) -> str:
        """What to call the file: like the slide."""
        overlay = get_selected_map(self._session)
        slide = None if overlay is None else find_overlay_slide(self._session, overlay)
        name = "result" if slide is None else slide.slide.name
        return f"{name}-predicted"

    def _ask_save(self) -> None:
        self._ask_path(EXPORT_FORMATS[0])

    def _ask_path(self, kind: ExportFormat) -> None:
        if not self._can_save():
            return
        name = str(self._folder / f"{self._default_name()}{kind.suffix}")
        chosen, _ = QFileDialog.getSaveFileName(
            self, "Save the result", name, f"{kind.title} (*{kind.suffix})"
        )
        if chosen and (path := self._with_suffix(chosen, kind.suffix)):
            self._results.save_result(path)

    def _ask_figure(self) -> None:
        if not self._can_save():
            return
        name = str(self._folder / f"{self._default_name()}-{self._session.gene}.png")
        chosen, which = QFileDialog.getSaveFileName(
            self, "Save the figure", name, FIGURE_FILE_FILTER
        )
        wanted = which.rpartition("*")[2].rstrip(")") or figure.FIGURE_SUFFIXES[0]
        known = Path(chosen).suffix.lower() in figure.FIGURE_SUFFIXES
        if chosen and (path := self._with_suffix(chosen, "" if known else wanted)):
            self._results.save_figure(path)

    def _ask_open(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self, "Open a result", str(self._folder), f"Saved result (*{H5AD_SUFFIX})"
        )
        if chosen and (path := self._with_suffix(chosen, "")):
            self._results.open_result(path)

    def _ask_slide(self) -> None:
        waiting = self._results.result_without_slide
        if waiting is None:
            return
        name = waiting.saved.slide_record.name
        if waiting.saved.slide_record.path.rstrip("\\/").endswith(".zarr"):  # a folder
            chosen = QFileDialog.getExistingDirectory(self, f"Where is {name}?", str(self._folder))
        else:
            chosen, _ = QFileDialog.getOpenFileName(self, f"Where is {name}?", str(self._folder))
        if chosen:
            self._results.locate_slide(Path(chosen))

    def _can_save(self) -> bool:
        """A key may be pressed at any time; a button only says so by being grey."""
        if get_selected_map(self._session) is None:
            self._results.show_message(NO_MAP_MESSAGE, warning=True)
            return False
        return not self._results.busy

    def _with_suffix(self, chosen: str, suffix: str) -> Path | None:
        """With the ending that its kind needs; its folder is the next one to be offered.

        None for a file that is there already and that the dialog, which was given the name
        without its ending, has not asked about.
        """
        path = Path(chosen if chosen.lower().endswith(suffix) else f"{chosen}{suffix}")
        self._folder = path.parent
        if path != Path(chosen) and path.exists():
            said = f"{path.name} is there already; choose it with its ending to replace it."
            self._results.show_message(said, warning=True)
            return None
        return path
