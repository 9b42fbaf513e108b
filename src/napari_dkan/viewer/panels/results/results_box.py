"""Box to save, export, draw and open results."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QGridLayout, QMenu, QPushButton, QWidget

from ....export.export_formats import EXPORT_FORMATS, ExportFormat
from ....export.figure_rendering import FIGURE_SUFFIXES
from ...layers.overlay_lookup import find_overlay_slide, get_selected_map, list_saved_maps
from ...session.prediction_overlay import PredictionOverlay
from ...session.shortcut_actions import register_actions, set_tooltip
from ...widgets.qt_utils import fill_column, make_row, make_text_label
from ...widgets.signal_connections import SignalConnections
from ...widgets.theme_colors import ERROR_COLOR, set_text_color
from .results_controller import NO_MAP_MESSAGE, ResultsController

H5AD_SUFFIX = ".h5ad"
FIGURE_FILE_FILTER = "Picture (*.png);;Drawing (*.svg);;PDF (*.pdf)"


class ResultsBox(QWidget):
    """Buttons to save, draw, export and open results, and their outcome."""

    def __init__(self, results: ResultsController, connections: SignalConnections) -> None:
        super().__init__()
        self._results, self._session = results, results.session
        self._folder = Path()
        self.save_button, self.figure_button = QPushButton("Save..."), QPushButton("Figure...")
        self.export_button, self.open_button = QPushButton("Export"), QPushButton("Open result...")
        set_tooltip(
            self.save_button,
            "The slide's map with all genes and this view, as an .h5ad that opens here again and "
            "in scanpy; you are asked which where there are several ({key})",
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
        for export_format in EXPORT_FORMATS:
            if export_format.suffix not in (H5AD_SUFFIX, *FIGURE_SUFFIXES):
                title = f"{export_format.title[:1].upper()}{export_format.title[1:]}"
                title += f" ({export_format.suffix}) ..."
                menu.addAction(title, partial(self._ask_path, export_format))
        self.export_button.setMenu(menu)
        self.status_label = make_text_label()
        self.locate_button = QPushButton("Locate slide...")
        self.cancel_button = QPushButton("Cancel")
        self.locate_button.setToolTip("Where the slide of the reopened result is now")

        buttons = QGridLayout()
        buttons.addWidget(self.save_button, 0, 0)
        buttons.addWidget(self.figure_button, 0, 1)
        buttons.addWidget(self.export_button, 1, 0)
        buttons.addWidget(self.open_button, 1, 1)
        fill_column(
            self, buttons, self.status_label, make_row(self.locate_button, self.cancel_button)
        )

        self.maps_menu = QMenu(self)
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
        has_map, busy = get_selected_map(self._session) is not None, results.busy
        for button in (self.save_button, self.export_button, self.figure_button):
            button.setEnabled(has_map and not busy)
        self.open_button.setEnabled(not busy)
        self.cancel_button.setVisible(busy)
        self.locate_button.setVisible(results.result_without_slide is not None and not busy)
        self.status_label.setText(results.message)
        self.status_label.setVisible(bool(results.message))
        set_text_color(self.status_label, ERROR_COLOR if results.message_is_warning else None)

    # ---- file dialogs ----------------------------------------------------------------

    def _default_name(self) -> str:
        """File name without suffix, after the slide."""
        overlay = get_selected_map(self._session)
        slide = None if overlay is None else find_overlay_slide(self._session, overlay)
        name = "result" if slide is None else slide.slide.name
        return f"{name}-predicted"

    def _ask_save(self) -> None:
        self._ask_path(EXPORT_FORMATS[0])

    def _ask_path(self, export_format: ExportFormat) -> None:
        """Ask which maps of the slide to save, where there are several, and where."""
        if not self._can_save():
            return
        maps = list_saved_maps(self._session)
        if len(maps) == 1:
            self._ask_file(export_format, maps)
            return
        self.maps_menu.clear()
        everything = f"All {len(maps)} maps, a file each"
        for title, chosen in [(everything, maps), *((describe_map(o), [o]) for o in maps)]:
            self.maps_menu.addAction(title, partial(self._ask_file, export_format, chosen))
        self.maps_menu.popup(self.save_button.mapToGlobal(self.save_button.rect().bottomLeft()))

    def _ask_file(self, export_format: ExportFormat, maps: Sequence[PredictionOverlay]) -> None:
        suffix = export_format.suffix
        name = str(self._folder / f"{self._default_name()}{suffix}")
        chosen, _ = QFileDialog.getSaveFileName(
            self, "Save the result", name, f"{export_format.title} (*{suffix})"
        )
        if chosen and (path := self._with_suffix(chosen, suffix)):
            self._results.save_result(path, maps)

    def _ask_figure(self) -> None:
        if not self._can_save():
            return
        name = str(self._folder / f"{self._default_name()}-{self._session.gene}.png")
        chosen, selected_filter = QFileDialog.getSaveFileName(
            self, "Save the figure", name, FIGURE_FILE_FILTER
        )
        suffix = selected_filter.rpartition("*")[2].rstrip(")") or FIGURE_SUFFIXES[0]
        if Path(chosen).suffix.lower() in FIGURE_SUFFIXES:
            suffix = ""
        if chosen and (path := self._with_suffix(chosen, suffix)):
            self._results.save_figure(path)

    def _ask_open(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self, "Open a result", str(self._folder), f"Saved result (*{H5AD_SUFFIX})"
        )
        if chosen and (path := self._with_suffix(chosen, "")):
            self._results.open_result(path)

    def _ask_slide(self) -> None:
        restored = self._results.result_without_slide
        if restored is None:
            return
        record = restored.saved.slide_record
        name = record.name
        if record.path.rstrip("\\/").endswith(".zarr"):  # a folder
            chosen = QFileDialog.getExistingDirectory(self, f"Where is {name}?", str(self._folder))
        else:
            chosen, _ = QFileDialog.getOpenFileName(self, f"Where is {name}?", str(self._folder))
        if chosen:
            self._results.locate_slide(Path(chosen))

    def _can_save(self) -> bool:
        """Check again, since a keyboard shortcut works while the button is disabled."""
        if get_selected_map(self._session) is None:
            self._results.show_message(NO_MAP_MESSAGE, warning=True)
            return False
        return not self._results.busy

    def _with_suffix(self, chosen: str, suffix: str) -> Path | None:
        """Append a missing suffix and remember the folder for the next dialog.

        Returns None for an existing file: the dialog has asked only about the name without
        suffix.
        """
        path = Path(chosen if chosen.lower().endswith(suffix) else f"{chosen}{suffix}")
        self._folder = path.parent
        if path != Path(chosen) and path.exists():
            message = f"{path.name} is there already; choose it with its ending to replace it."
            self._results.show_message(message, warning=True)
            return None
        return path


def describe_map(overlay: PredictionOverlay) -> str:
    """Say what tells a map from others of its slide."""
    prediction = overlay.prediction
    n, grid = int(prediction.predicted_mask.sum()), prediction.target.grid
    what = f"{n:,} spots" if grid is None else f"{n:,} tiles, {grid.pitch_um:.0f} um apart"
    return f"{what} ({overlay.layer.name})"
