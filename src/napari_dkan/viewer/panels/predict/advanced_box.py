"""The collapsed Advanced section: device, grid, background, weights, tile cache and timing."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, Container, FileEdit, Label, LineEdit
from qtpy.QtCore import QTimer
from qtpy.QtGui import QFontDatabase, QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from .... import __version__
from ....inference.cache.cache_directory import (
    clear_cache,
    compute_cache_size,
    format_size,
    get_cache_folder,
    get_cache_limit,
)
from ....inference.device import format_device_name, list_available_devices
from ....inference.device_choice import explain_device_choice, resolve_device_name
from ...session.viewer_session import ViewerSession
from ...widgets.fold_section import FoldSection
from ...widgets.signal_connections import SignalConnections
from ...worker import JobFailure, JobRunner


def make_advanced_box(session: ViewerSession, connections: SignalConnections) -> Container[Any]:
    """Return the controls of settings whose defaults rarely change."""
    device = ComboBox(name="device", label="Device", choices=[("best", "auto")], value="auto")
    device_note = Label(name="device_note", label=" ", visible=False)
    device_note.native.setWordWrap(True)
    pitch = ComboBox(
        name="pitch",
        label="Grid",
        choices=[("as trained", False), ("dense, tiles touch", True)],
        value=session.settings.dense_grid,
        tooltip="Dense maps show more detail; the network was trained at the spots' distance.",
    )
    tissue = CheckBox(name="tissue_only", text="Tissue only", value=session.settings.tissue_only)
    warm_up = CheckBox(
        name="warm_up",
        text="Prepare what lies around the view",
        value=session.settings.prefetch,
        tooltip="Clicks are quick then. Never done on battery.",
    )
    unproven = CheckBox(
        name="unproven",
        text="Unproven genes by description",
        value=session.settings.allow_unproven_genes,
        tooltip="Also where the card does not show that a gene's own text beats another's.",
    )
    weights = FileEdit(
        name="encoder_weights",
        label="Encoder",
        mode=FileDialogMode.EXISTING_FILE,
        nullable=True,
        value=None,
        tooltip="Weights of the tile encoder, where the checkpoint does not bring them along.",
    )
    features = FileEdit(
        name="features",
        label="Features",
        mode=FileDialogMode.EXISTING_FILE,
        nullable=True,
        value=None,
        filter="*.h5",
        tooltip="Tile features that TRIDENT or CLAM made of this slide, used instead of encoding.",
    )
    made_by = LineEdit(
        name="features_encoder",
        label="made by",
        tooltip="The encoder of the features, where the file does not say: uni, conch ...",
    )

    def choose_features() -> None:
        path = features.value if isinstance(features.value, Path) else None
        if path is None and session.predictors.feature_file(session.slide) is None:
            return
        with session.message.report_errors():
            session.use_feature_file(path, made_by.value.strip())

    features.changed.connect(choose_features)
    made_by.native.editingFinished.connect(choose_features)
    weights.changed.connect(lambda path: session.change_settings(encoder_weights=path))
    device.changed.connect(lambda value: session.change_settings(device=value))
    pitch.changed.connect(lambda value: session.change_settings(dense_grid=value))
    tissue.changed.connect(lambda value: session.change_settings(tissue_only=value))
    warm_up.changed.connect(lambda value: session.change_settings(prefetch=value))
    unproven.changed.connect(lambda value: session.change_settings(allow_unproven_genes=value))

    def list_devices() -> None:
        """List the devices; the job that loads the checkpoint has tried the best one."""
        devices = list_available_devices()
        default = (f"best ({format_device_name(resolve_device_name('auto'))})", "auto")
        device_note.value = explain_device_choice()
        device_note.visible = bool(device_note.value)
        with device.changed.blocked():
            device.choices = [default, *((format_device_name(d), d) for d in devices)]
        show_settings()

    def show_settings() -> None:
        """Show the settings, which napari's preferences also change."""
        settings = session.settings
        warm_up.value = settings.prefetch
        file = session.predictors.feature_file(session.slide)
        with features.changed.blocked():
            features.value = None if file is None else file.path
        if file is not None and file.encoder:
            made_by.value = file.encoder
        name = {"cuda": "cuda:0"}.get(settings.device, settings.device)
        if name not in device.choices and session.checkpoint is not None:
            session.message.show(f"The device {name} is not on this machine; the best one is used.")
            session.change_settings(device="auto")  # calls this function again
        elif name in device.choices:
            device.value = name

    connections.connect(list_devices, session.checkpoint_changed)
    connections.connect(show_settings, session.settings_changed, session.slide_changed)
    return Container(
        widgets=[
            *(device, device_note, pitch, tissue, warm_up, unproven),
            *(weights, features, made_by),
        ]
    )


CACHE_REFRESH_MS = 5_000  # while the box is visible


class CacheBox(QWidget):
    """Size of the cache, a button that clears it, and whether tiles are stored.

    The size is read in a thread, while the box is visible.
    """

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        super().__init__()
        self.session = session
        self._runner = JobRunner("cache")
        self.size_label = QLabel("Cache")
        self.size_label.setWordWrap(True)
        self.clear_button = QPushButton("Clear")
        self.clear_button.setToolTip(
            "Delete what is kept of all slides; it is computed anew when needed."
        )
        self.store_checkbox = QCheckBox("Store tiles on disk")
        self.store_checkbox.setToolTip("Makes the second visit to a slide much faster.")
        self.refresh_timer = QTimer(self)
        self.refresh_timer.setInterval(CACHE_REFRESH_MS)

        line = QHBoxLayout()
        line.addWidget(self.size_label, 1)
        line.addWidget(self.clear_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self.store_checkbox)

        self.clear_button.clicked.connect(self._start_clearing)
        self.store_checkbox.toggled.connect(self._set_store_tiles)
        self.refresh_timer.timeout.connect(self.refresh_size)
        connections.connect(self._refresh_store_tiles, session.settings_changed)
        self._refresh_store_tiles()

    @property
    def busy(self) -> bool:
        """Whether the cache is being measured or cleared."""
        return self._runner.busy

    def stop_jobs(self) -> None:
        """Stop the timer and the running job."""
        self.refresh_timer.stop()
        self._runner.cancel()

    def refresh_size(self) -> None:
        """Measure the size of the cache and show it."""
        if not self._runner.busy:
            self._runner.start(_measure_cache_size, self.size_label.setText, self._on_job_end)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.size_label.setToolTip(str(get_cache_folder()))
        self.refresh_size()
        self.refresh_timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self.refresh_timer.stop()

    def _start_clearing(self) -> None:
        self.clear_button.setEnabled(False)
        self._runner.start(_clear_and_measure, self.size_label.setText, self._on_job_end)

    def _on_job_end(self, failure: JobFailure | None) -> None:
        self.clear_button.setEnabled(True)
        if failure is not None:
            self.size_label.setText(failure.message)

    def _set_store_tiles(self, enabled: bool) -> None:
        if enabled != self.session.settings.store_tiles:
            self.session.change_settings(store_tiles=enabled)

    def _refresh_store_tiles(self) -> None:
        self.store_checkbox.setChecked(self.session.settings.store_tiles)


def _measure_cache_size() -> Iterator[str]:
    yield f"Cache: {format_size(compute_cache_size())} of {format_size(get_cache_limit())}"


def _clear_and_measure() -> Iterator[str]:
    clear_cache()
    yield from _measure_cache_size()


TIMING_REFRESH_MS = 500


class TimingBox(QWidget):
    """Seconds of every stage since the predictor was built or Reset was pressed."""

    def __init__(self, session: ViewerSession) -> None:
        super().__init__()
        self._session = session
        self.table_label = QLabel()
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        font.setPointSize(8)
        self.table_label.setFont(font)
        self.copy_button, self.reset_button = QPushButton("Copy"), QPushButton("Reset")
        self.copy_button.setToolTip("Copy the table with version and machine, for a bug report.")
        self._timer = QTimer(self)
        self._timer.setInterval(TIMING_REFRESH_MS)
        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table_label)
        buttons = QHBoxLayout()
        buttons.addWidget(self.copy_button)
        buttons.addWidget(self.reset_button)
        layout.addLayout(buttons)
        section = FoldSection("Where the time goes", inside)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(section)
        self.copy_button.clicked.connect(self._copy_report)
        self.reset_button.clicked.connect(self._reset_stages)
        self._timer.timeout.connect(self.refresh)
        section.toggled.connect(self._on_toggled)

    def report_text(self) -> str:
        """Return the tables with version, machine and device, for Copy."""
        predictor = self._session.predictors.current
        device = "no predictor yet" if predictor is None else str(predictor.device)
        about = f"napari-dkan {__version__}, {platform.platform()}, {device}"
        note = "" if predictor is None else predictor.token_cache.note
        return "\n".join(t for t in (about, self.stage_tables(), note) if t)

    def stage_tables(self) -> str:
        """Return the tables of prediction and drawing."""
        predictor = self._session.predictors.current
        timers = [] if predictor is None else [predictor.stage_timer]
        timers.append(self._session.draw_stages)
        return "\n".join(timer.format_report() for timer in timers)

    def refresh(self) -> None:
        """Update the visible tables."""
        if self.table_label.isVisible():
            self.table_label.setText(self.stage_tables())

    def stop(self) -> None:
        """Stop the timer."""
        self._timer.stop()

    def showEvent(self, event: QShowEvent) -> None:
        self._timer.start()
        super().showEvent(event)

    def hideEvent(self, event: QHideEvent) -> None:
        self._timer.stop()
        super().hideEvent(event)

    def _on_toggled(self, opened: bool) -> None:
        if opened:
            self.table_label.setText(self.stage_tables())

    def _copy_report(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self.report_text())

    def _reset_stages(self) -> None:
        predictor = self._session.predictors.current
        if predictor is not None:
            predictor.stage_timer.reset()
        self._session.draw_stages.reset()
        self.table_label.setText(self.stage_tables())
