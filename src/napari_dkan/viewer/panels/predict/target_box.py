"""The prediction target: its selection, its size and duration, Predict and Cancel."""

from __future__ import annotations

import numpy as np
from napari.layers import Labels, Layer, Points, Shapes
from numpy.typing import NDArray
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QRadioButton,
    QWidget,
)

from ....errors import DkanError
from ....inference.device import format_device_name
from ....inference.device_choice import resolve_device_name
from ....inference.target import Target
from ...jobs.job_progress import PredictionProgress
from ...jobs.prediction_jobs import PredictionJobs
from ...jobs.prefetcher import Prefetcher
from ...jobs.run_times import estimate_run_seconds, format_duration, format_range
from ...jobs.target_from_layers import target_from_layers
from ...layers.region_layers import LabelOutlines
from ...session.shortcut_actions import ACTION_BY_NAME, set_tooltip
from ...session.user_history import load_run_times
from ...session.viewer_session import ViewerSession
from ...session.viewer_settings import TargetMode
from ...tools.drawing_tool import DrawingTool, end_drawing
from ...widgets.qt_utils import fill_column, make_progress_bar, make_row, make_shrinkable
from ...widgets.scroll_column import pass_focus
from ...widgets.signal_connections import Debouncer, SignalConnections
from ..regions.region_box import RegionBox
from ..regions.spot_import import get_spot_importer

MODE_OF_ACTION = {  # by action name
    "where_click": TargetMode.CLICK,
    "where_spots": TargetMode.SPOTS,
    "where_region": TargetMode.REGION,
    "where_tissue": TargetMode.TISSUE,
}
PLAN_DELAY_MS = 120  # after the last change, before tiles are counted


class TargetBox(QWidget):
    """Target mode, plan and progress; see `TargetMode`.

    Attributes
    ----------
    target : Target or None
        What Predict would predict.
    """

    def __init__(
        self,
        session: ViewerSession,
        connections: SignalConnections,
        jobs: PredictionJobs,
        prefetcher: Prefetcher,
    ) -> None:
        super().__init__()
        self._session, self._connections = session, connections
        self._jobs, self._prefetcher = jobs, prefetcher
        self.target: Target | None = None
        self._last_plan: tuple[object, NDArray[np.float64] | None] = (None, None)
        self._label_regions = LabelOutlines()
        self._connected_layers: set[int] = set()
        self._drawing_tool = DrawingTool(session, connections)

        self.mode_buttons = {mode: QRadioButton(str(mode)) for mode in TargetMode}
        self.mode_group = QButtonGroup(self)
        for row, button in enumerate(self.mode_buttons.values()):
            self.mode_group.addButton(button, row)
        self.points_combo = QComboBox()
        make_shrinkable(self.points_combo)
        self.points_combo.setToolTip("The Points layer that holds the spots.")
        self.region_row = RegionBox(session, connections)
        connections.connect(self.region_row.finish_drawing, self._drawing_tool.finished)
        self.draw_button = self.region_row.draw_button
        self.edit_button = QPushButton("Edit outline")
        self.edit_button.setToolTip(
            "Show what was found to be tissue as shapes that can be edited."
        )
        self.plan_label = QLabel()
        self.plan_label.setWordWrap(True)
        self.predict_button = QPushButton("Predict")
        self.predict_button.setDefault(True)
        self.cancel_button = QPushButton("Cancel")
        set_tooltip(
            self.predict_button, "Predict what stands above ({key})", "predict", connections
        )
        set_tooltip(
            self.cancel_button, "Stop; what is finished stays ({key})", "cancel", connections
        )
        for name, mode in MODE_OF_ACTION.items():
            set_tooltip(
                self.mode_buttons[mode],
                f"{ACTION_BY_NAME[name].description} ({{key}})",
                name,
                connections,
            )
        self.retry_button = QPushButton()
        self.retry_button.setToolTip("Read the tiles again that could not be read.")
        self.progress_bar = make_progress_bar()
        self.progress_label = QLabel()

        modes = QGridLayout()
        for place, button in enumerate(self.mode_buttons.values()):
            modes.addWidget(button, place // 2, place % 2)
        self._extras: dict[TargetMode, QWidget] = {
            TargetMode.SPOTS: self.points_combo,
            TargetMode.REGION: self.region_row,
            TargetMode.TISSUE: self.edit_button,
        }
        self._run_row = QWidget()
        fill_column(self._run_row, make_row((self.predict_button, 2), (self.cancel_button, 1)))
        layout = fill_column(
            self,
            modes,
            *self._extras.values(),
            self.plan_label,
            self._run_row,
            self.retry_button,
            self.progress_bar,
            self.progress_label,
        )
        layout.setSpacing(4)

        self._plan_debouncer = Debouncer(PLAN_DELAY_MS, self.update_plan)
        self.mode_group.idClicked.connect(self._on_mode_clicked)
        self.points_combo.activated.connect(self.schedule_plan)
        self.edit_button.clicked.connect(self.region_row.add_tissue_outline)
        self.predict_button.clicked.connect(self.start_prediction)
        self.cancel_button.clicked.connect(jobs.cancel)
        self.retry_button.clicked.connect(jobs.retry_failed)
        connections.connect(
            self.schedule_plan,
            session.slide_changed,
            session.tissue_edited,
            session.checkpoint_changed,
            session.settings_changed,
            prefetcher.changed,
            self._label_regions.changed,
        )
        connections.connect(self._show_mode, session.settings_changed)
        connections.connect(self.refresh, jobs.changed, session.overlays_changed)
        layers = session.viewer.layers
        connections.connect(self._on_layers_changed, layers.events.inserted, layers.events.removed)
        connections.connect(self._on_active_layer_changed, layers.selection.events.active)
        connections.connect(self._on_spots_imported, get_spot_importer(session).imported)
        self._on_layers_changed()
        self._show_mode()
        self.refresh()
        self.update_plan()

    def _show_mode(self) -> None:
        """Check the button of the mode and show what belongs to it."""
        mode = self._session.settings.target_mode
        self.mode_buttons[mode].setChecked(True)
        for each, widget in self._extras.items():
            widget.setVisible(each is mode)

    def stop(self) -> None:
        """Stop the plan and the tracing of labels."""
        self._plan_debouncer.stop()
        self._label_regions.close()

    def _on_mode_clicked(self, row: int) -> None:
        mode = list(TargetMode)[row]
        self._session.change_settings(target_mode=mode)
        end_drawing(self._session)
        if mode is TargetMode.REGION and self.regions_layer() is None:
            self.region_row.start_drawing()

    def _on_active_layer_changed(self, event: object = None) -> None:
        """The active layer may be another region layer."""
        if self._session.settings.target_mode is TargetMode.REGION:
            self.schedule_plan()

    def regions_layer(self) -> Shapes | Labels | None:
        """Return the layer whose regions are predicted."""
        return self.region_row.get_region_layer()

    def _on_spots_imported(self, layer: Points) -> None:
        """Predict at the spots of a file that was dropped."""
        for row in range(self.points_combo.count()):
            if self.points_combo.itemData(row) is layer:
                self.points_combo.setCurrentIndex(row)
        self._session.change_settings(target_mode=TargetMode.SPOTS)

    def _points_layer(self) -> Points | None:
        return self.points_combo.currentData()

    def _on_layers_changed(self, event: object = None) -> None:
        chosen = self._points_layer()
        self.points_combo.clear()
        for layer in self._session.viewer.layers:
            is_listed = self._session.layers.is_listed(layer)
            if is_listed and isinstance(layer, Points | Shapes | Labels):
                self._connect_layer(layer)
        for layer in self._session.layers.list_user_points():
            self.points_combo.addItem(layer.name, layer)
            if layer is chosen:
                self.points_combo.setCurrentIndex(self.points_combo.count() - 1)
        self.schedule_plan()

    def _connect_layer(self, layer: Layer) -> None:
        if id(layer) not in self._connected_layers:
            self._connected_layers.add(id(layer))
            self._connections.connect(self.schedule_plan, layer.events.data)
            if isinstance(layer, Shapes):
                self._connections.connect(self.schedule_plan, layer.events.mode)
            self._connections.connect(self._on_layers_changed, layer.events.name)
            self._drawing_tool.follow(layer)

    def schedule_plan(self, event: object = None) -> None:
        """Update the plan after the last of several changes."""
        self._plan_debouncer.start()

    def update_plan(self) -> None:
        """Determine the target and show its number of tiles and the estimated time."""
        detail = ""
        try:
            layers = self._points_layer(), self.regions_layer()
            self.target = target_from_layers(self._session, *layers, self._label_regions)
            text, detail = self._describe_plan(self.target)
        except DkanError as error:
            self.target, text = None, str(error)
        drawn = self.region_row.drawn_class
        if drawn and self._session.settings.target_mode is TargetMode.REGION:
            text, detail = f"Draw {drawn} on the slide.", "Esc ends drawing."
        self.plan_label.setText(text)
        self.plan_label.setToolTip(detail)
        if not self._is_same_plan():
            self._jobs.clear_outcome()
        self.refresh()

    def _is_same_plan(self) -> bool:
        """Whether slide, model and target are those of the last call."""
        session, target, last = self._session, self.target, self._last_plan
        inputs = (id(session.slide), session.checkpoint, session.settings.target_mode)
        xy = None if target is None else target.spots.xy
        self._last_plan = inputs, xy
        if xy is None or last[1] is None:
            return last[0] == inputs and xy is last[1]
        return last[0] == inputs and np.array_equal(xy, last[1])

    def _describe_plan(self, target: Target | None) -> tuple[str, str]:
        """The plan in a line, and its details."""
        session = self._session
        if session.slide is None or session.checkpoint is None:
            return "", ""
        if session.slide.pixel_size is None:
            return "Waiting for the pixel size.", ""
        device = resolve_device_name(session.settings.device)
        on_device = f"on {format_device_name(device)}"
        if session.settings.target_mode is TargetMode.CLICK:
            waiting = " Getting ready ..." if self._prefetcher.busy else ""
            return f"Click on tissue.{waiting}", f"The spot there is predicted {on_device}."
        if target is None and session.predictors.feature_file(session.slide) is not None:
            return "Reading the features ...", ""
        if target is None and session.slide.tissue is not None:
            return "Following the labels ...", ""
        if target is None:
            return "Looking for the tissue ...", ""
        kept = session.predictors.count_cached(session.slide, session.checkpoint, target)
        seconds = estimate_run_seconds(
            len(target) - kept,
            load_run_times(session.checkpoint.sha256, device),
            session.predictors.tile_rates.get(session.rate_key()),
        )
        time = "" if seconds is None else f", {format_range(*seconds)}"
        kind = "spots" if target.grid is None else "tiles"
        known = f" ({kept:,} computed before)" if kept else ""
        pitch = f", every {target.grid.pitch_um:.0f} um" if target.grid is not None else ""
        detail = f"{kind} of {session.checkpoint.patch.um:.0f} um{pitch}".capitalize()
        return f"{len(target):,} {kind}{known}{time} {on_device}", f"{detail}."

    def start_prediction(self) -> None:
        """Predict the target of the current plan."""
        self._plan_debouncer.stop()
        self.update_plan()
        if self.target is None:
            self._session.message.show(self.plan_label.text(), warning=True)
            return
        with self._session.message.report_errors():
            self._jobs.predict(self.target)

    def _set_run_buttons(self, busy: bool, can_predict: bool) -> None:
        """Enable Predict or Cancel; the focus goes from one to the other."""
        predict, cancel = self.predict_button, self.cancel_button
        focused = self.window().focusWidget()  # also while another window is in front
        if busy and focused is predict:
            cancel.setEnabled(True)
            pass_focus(cancel)
        elif not busy and focused is cancel:
            predict.setEnabled(can_predict)
            mode_button = self.mode_buttons[self._session.settings.target_mode]
            pass_focus(predict if can_predict else mode_button)
        cancel.setEnabled(busy)
        predict.setEnabled(can_predict)

    def refresh(self) -> None:
        """Show the progress of the jobs."""
        progress, busy = self._jobs.progress, self._jobs.busy
        mode = self._session.settings.target_mode
        self._set_run_buttons(busy, not busy and self.target is not None)
        self._run_row.setVisible(busy or mode is not TargetMode.CLICK)
        self.progress_bar.setVisible(busy)
        self.progress_label.setVisible(busy)
        failed = 0 if busy else self._jobs.failed_count
        self.retry_button.setVisible(failed > 0)
        self.retry_button.setText(f"Try {failed:,} failed tiles again")
        if progress is not None:
            self._show_progress(progress)

    def _show_progress(self, progress: PredictionProgress) -> None:
        """Show a number and a bar, a few times a second."""
        if not self.progress_bar.show_progress(progress.done, progress.total, progress.stage):
            return
        stage = {
            "starting": "starting",
            "context": "reading the slide",
            "rough": "rough map",
        }.get(progress.stage, "")
        parts = [f"{100 * progress.done // max(progress.total, 1)} %"]
        if stage:
            parts = [stage, *parts]
        if progress.tiles_per_s is not None and progress.remaining_s is not None:
            parts += [
                f"{progress.tiles_per_s:.0f} tiles/s",
                f"{format_duration(progress.remaining_s)} left",
            ]
        self.progress_label.setText("   ".join(parts))
