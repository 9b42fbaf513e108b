"""The widget "DKAN: regions"."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from napari.layers import Shapes
from napari.viewer import Viewer
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QLabel,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QSearchableComboBox
from superqt.utils import signals_blocked

from ....errors import DkanError
from ...jobs.target_from_layers import add_regions_layer
from ...layers.region_objects import find_free_class, prepare_drawing, region_layers
from ...session.shortcut_actions import (
    ACTION_BY_NAME,
    register_actions,
    run_action,
    set_tooltip,
)
from ...session.viewer_session import ViewerSession, get_session
from ...session.viewer_settings import TargetMode
from ...widgets.job_row import JobRow
from ...widgets.qt_utils import fill_column, make_row, make_shrinkable, make_text_label
from ...widgets.scroll_column import ScrollColumn
from ...widgets.signal_connections import SignalConnections, call_once
from ...widgets.theme_colors import ERROR_COLOR, set_text_color
from ..help_dialog import make_heading, show_help_if_visible
from ..open_predict_panel import open_predict_panel
from ..undo_buttons import UndoButtons
from .comparison_box import ComparisonBox
from .region_box import REGION_FILE_FILTER
from .region_import import get_region_importer
from .region_measurements import measure_regions
from .region_tree import RegionTree
from .regions_model import RegionsModel

EXPORTS = (  # title, suffix, all genes
    ("QuPath annotations (.geojson), shown and pinned genes ...", ".geojson", False),
    ("QuPath annotations (.geojson), all genes ...", ".geojson", True),
    ("Table (.csv), shown and pinned genes ...", ".csv", False),
    ("Table (.csv), all genes ...", ".csv", True),
)


class GeneCombo(QSearchableComboBox):
    """The shown gene of the session."""

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self._session = session
        make_shrinkable(self)
        self.setToolTip("The gene of the table and of the map")
        self.activated.connect(self._on_chosen)
        connections.connect(
            self.refresh,
            session.gene_changed,
            session.checkpoint_changed,
            session.zero_shot_changed,
            session.overlays_changed,
        )
        self.refresh()

    def refresh(self) -> None:
        panel = self._session.gene_panel
        symbols = [] if panel is None else list(panel.symbols)
        with signals_blocked(self):
            if [self.itemText(i) for i in range(self.count())] != symbols:
                self.clear()
                self.addItems(symbols)  # type: ignore[no-untyped-call]
            self.setCurrentText(self._session.gene or "")

    def _on_chosen(self, index: int) -> None:
        try:
            self._session.set_gene(self.itemText(index))
        except DkanError:
            self.refresh()


class RegionsWidget(QWidget):
    """DKAN: regions. Shares the viewer's session with the Predict panel."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.session: ViewerSession = get_session(napari_viewer)
        session, connections = self.session, SignalConnections()
        self.model = RegionsModel(session, connections)
        self.tree = RegionTree(self.model, connections)
        self.gene_combo: QComboBox = GeneCombo(session, connections)
        self.comparison_box = ComparisonBox(self.model, connections)
        self.new_button, self.add_button = QPushButton("New"), QPushButton("Add")
        self.file_button, self.export_button = QPushButton("From file..."), QPushButton("Export")
        self.new_button.setToolTip("Draw the first region of a new class")
        self.add_button.setToolTip("Draw another region of the chosen class")
        self.file_button.setToolTip("Regions of QuPath (GeoJSON) or a mask; or drop the file")
        menu = QMenu(self.export_button)
        for title, suffix, all_genes in EXPORTS:
            menu.addAction(title, partial(self._ask_export, suffix, all_genes))
        self.export_button.setMenu(menu)
        self.predict_button = QPushButton("Predict whole tissue")
        self.predict_button.setToolTip("Then every region has values, and there is a rest")
        self.note_label = make_text_label()
        self.job_row = JobRow("export regions", self.export_button)
        self.message_label = make_text_label(selectable=True)
        self._drawing_layer: Shapes | None = None
        self._build(connections)
        set_tooltip(
            self.comparison_box.compare_button,
            "Compare the genes of A and B ({key})",
            "compare_regions",
            connections,
        )
        self.new_button.clicked.connect(self.draw_new_class)
        self.add_button.clicked.connect(self.draw_in_class)
        self.file_button.clicked.connect(self._ask_file)
        self.predict_button.clicked.connect(self._predict_tissue)
        self.tree.itemSelectionChanged.connect(self._update_buttons)
        connections.connect(self._update_buttons, self.model.table_changed)
        connections.connect(self._on_regions_changed, self.model.changed)
        connections.connect(self._show_message, session.message.changed)
        self.shut_down = call_once(
            connections.disconnect_all,
            register_actions(
                session.viewer,
                compare_regions=self.comparison_box.compare_button.click,
                help=lambda: show_help_if_visible("regions", self),
            ),
            self.model.close,
            self.comparison_box.close_box,
            self.job_row.stop,
        )
        self.destroyed.connect(self.shut_down)  # a dock that is deleted gets no closeEvent
        self._show_message()
        self._update_buttons()
        open_predict_panel(self, napari_viewer)

    def _build(self, connections: SignalConnections) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setSpacing(6)
        column.addWidget(make_heading("Regions", "regions"))
        self.undo_buttons = UndoButtons(self.session, connections)
        column.addLayout(
            make_row(self.new_button, self.add_button, self.file_button, self.undo_buttons)
        )
        column.addWidget(self.tree)
        column.addLayout(make_row(QLabel("Gene"), (self.gene_combo, 1), self.export_button))
        column.addWidget(self.note_label)
        column.addWidget(self.predict_button)
        column.addWidget(self.job_row.status_label)
        column.addWidget(self.message_label)
        column.addWidget(make_heading("Compare", "compare"))
        column.addWidget(self.comparison_box)
        column.addStretch(1)
        self.scroll_column = ScrollColumn(content, "regions")
        fill_column(self, self.scroll_column)

    # ---- drawing -----------------------------------------------------------------------

    def draw_new_class(self) -> None:
        """Draw the first region of a class with a free name and colour."""
        self._draw(*find_free_class(self.model.objects))

    def draw_in_class(self) -> None:
        """Draw another region of the class of the selected row."""
        group = self.tree.selected_group()
        if group is not None:
            name = group.objects[0].region.classification
            self._draw(name, _hex(group.color))

    def _draw(self, class_name: str, color: str) -> None:
        session = self.session
        with session.message.report_errors():
            slide = session.require_slide()
            layers = region_layers(session, slide)
            layer = layers[-1] if layers else add_regions_layer(session)
            prepare_drawing(layer, class_name, color)
            session.viewer.layers.selection.active = layer
            layer.visible = True
            layer.mode = "add_polygon_lasso"
            self._drawing_layer = layer
            self._shape_count = len(layer.data)
            session.change_settings(target_mode=TargetMode.REGION)
            self.note_label.setText(f"Draw {class_name or 'a region'} on the slide.")
            self.note_label.show()

    def _on_regions_changed(self) -> None:
        """End drawing when the shape is complete, so that the next click is no new shape."""
        layer = self._drawing_layer
        if layer is None or layer not in self.session.viewer.layers:
            self._drawing_layer = None
            return
        if len(layer.data) > self._shape_count and not layer._is_creating:
            self._drawing_layer = None
            layer.mode = "pan_zoom"
            layer.selected_data = set()

    # ---- state -------------------------------------------------------------------------

    def _update_buttons(self) -> None:
        table, has_rows = self.model.table, bool(self.model.groups)
        self.add_button.setEnabled(self.tree.selected_group() is not None)
        predicted = table.predicted
        empty = 0 if predicted is None else int((predicted.n_tiles == 0).sum())
        self.export_button.setEnabled(has_rows and predicted is not None and not self.job_row.busy)
        note = ""
        if self.session.slide is None:
            note = "Open a slide first: drag one onto the window."
        elif not has_rows:
            note = "No regions yet: draw one, or take them from QuPath."
        elif predicted is None:
            note = f"Nothing of {self.session.gene or 'this gene'} is predicted here yet."
        elif empty:
            note = f"{empty} without a predicted tile."
        if self._drawing_layer is None:
            self.note_label.setText(note)
            self.note_label.setVisible(bool(note))
        self.predict_button.setVisible(has_rows and (predicted is None or empty > 0))

    def _show_message(self) -> None:
        message = self.session.message
        self.message_label.setText(message.text)
        self.message_label.setVisible(bool(message.text))
        set_text_color(self.message_label, ERROR_COLOR if message.is_warning else None)

    def _predict_tissue(self) -> None:
        session = self.session
        session.change_settings(target_mode=TargetMode.TISSUE)
        for _ in run_action(session.viewer, ACTION_BY_NAME["predict"]):
            pass

    # ---- files -------------------------------------------------------------------------

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Regions from a file", "", REGION_FILE_FILTER)
        if path:
            get_region_importer(self.session).import_file(Path(path))

    def _ask_export(self, suffix: str, all_genes: bool) -> None:
        slide = self.session.slide
        name = f"{'slide' if slide is None else slide.slide.name}-regions{suffix}"
        kind = "QuPath annotations" if suffix == ".geojson" else "Table"
        chosen, _ = QFileDialog.getSaveFileName(
            self, "Export the regions", name, f"{kind} (*{suffix})"
        )
        if chosen:
            path = chosen if chosen.lower().endswith(suffix) else f"{chosen}{suffix}"
            self.export(Path(path), all_genes)

    def export(self, path: Path, all_genes: bool = False) -> None:
        """Write the regions with their measurements, in the format of the suffix."""
        session, slide, tiles = self.session, self.session.slide, self.model.tiles()
        if slide is None or tiles is None:
            return
        chosen = [session.gene, *session.pinned]
        genes = tuple(dict.fromkeys(g for g in chosen if g is not None and g in tiles.panel))
        objects, measured = self.model.objects, self.model.measured()
        mpp, origin = slide.mpp, slide.slide.scan_area.scan[:2]

        def job() -> Iterator[Path]:
            from ....export.region_export import write_region_geojson, write_region_table

            content = measure_regions(
                [o.region for o in objects],
                tiles,
                measured,
                None if all_genes else genes,
                mpp,
                origin,
            )
            write = write_region_geojson if path.suffix == ".geojson" else write_region_table
            yield write(path, content)

        def done(written: Path) -> None:
            n = len(objects)
            self.job_row.status_label.setText(
                f"{n} region{'s' if n != 1 else ''} written to {written.name}."
            )

        self.job_row.start(job, done, f"Writing {path.name} ...", lambda _: self._update_buttons())

    def closeEvent(self, event: QCloseEvent) -> None:
        self.shut_down()
        super().closeEvent(event)


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
