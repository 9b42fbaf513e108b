"""Box to start, pause and stop a fine-tuning run, with its progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from ....training.finetuning.tuning_protocol import EpochFinished
from ...widgets.learning_curve import LearningCurve
from ...widgets.signal_connections import SignalConnections
from ..predict.target_box import format_duration
from .finetune_controller import FinetuneController, FinetuneState


class FinetuneRunBox(QWidget):
    """The buttons, the bar and the curve of a run."""

    def __init__(
        self,
        controller: FinetuneController,
        on_start: Callable[[], None],
        connections: SignalConnections,
    ) -> None:
        super().__init__()
        self._controller = controller
        self.start_button, self.pause_button = QPushButton("Start"), QPushButton("Pause")
        self.stop_button = QPushButton("Stop")
        self.start_button.setDefault(True)
        self.pause_button.setToolTip("It waits after the epoch it is in.")
        self.stop_button.setToolTip("Ends it and keeps the best so far.")
        self.progress_bar = QProgressBar()
        self.progress_bar.setTextVisible(False)
        self.progress_bar.setMaximumHeight(8)
        self.status_label = QLabel()
        self.status_label.setWordWrap(True)
        self.learning_curve = LearningCurve()
        buttons = QHBoxLayout()
        buttons.addWidget(self.start_button, 2)
        buttons.addWidget(self.pause_button, 1)
        buttons.addWidget(self.stop_button, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        for widget in (self.progress_bar, self.status_label, self.learning_curve):
            layout.addWidget(widget)
        self.start_button.clicked.connect(on_start)
        self.pause_button.clicked.connect(self._toggle_pause)
        self.stop_button.clicked.connect(controller.stop)
        connections.connect(self.refresh, controller.changed, controller.epoch_finished)
        self.refresh()

    def _toggle_pause(self) -> None:
        if self._controller.state is FinetuneState.PAUSED:
            self._controller.resume()
        else:
            self._controller.pause()
            self.pause_button.setEnabled(False)  # until it has come to the end of its epoch
            self.pause_button.setText("Pausing ...")

    def refresh(self) -> None:
        tuning, state = self._controller, self._controller.state
        busy = tuning.busy
        self.start_button.setEnabled(not busy)
        self.stop_button.setEnabled(busy and state is not FinetuneState.STOPPING)
        waiting = self.pause_button.text() == "Pausing ..." and state is FinetuneState.RUNNING
        if not waiting:
            self.pause_button.setText("Resume" if state is FinetuneState.PAUSED else "Pause")
            self.pause_button.setEnabled(state in (FinetuneState.RUNNING, FinetuneState.PAUSED))
        self.progress_bar.setVisible(busy)
        self.learning_curve.setVisible(bool(tuning.epochs) or state is FinetuneState.RUNNING)
        self.status_label.setText(self._status_text())
        self.status_label.setVisible(bool(self.status_label.text()))
        share = self._progress_fraction()
        self.progress_bar.setRange(0, 0 if busy and share is None else 1000)
        if share is not None:
            self.progress_bar.setValue(round(1000 * share))
        before = None if tuning.start_event is None else tuning.start_event.pcc
        self.learning_curve.set_epochs(tuning.epochs, before)

    def _progress_fraction(self) -> float | None:
        """How much of the time is over; None while that is not known."""
        curve = self._controller.epochs
        if not curve or curve[-1].left is None or self._controller.state is FinetuneState.STOPPING:
            return None
        last = curve[-1]
        return last.seconds / max(last.seconds + (last.left or 0), 1e-6)

    def _status_text(self) -> str:
        tuning = self._controller
        started, curve = tuning.start_event, tuning.epochs
        lines = []
        if started is not None and tuning.busy:
            lines.append(
                f"{started.spots} spots teach the {started.adapt}, {started.held_out} are held out"
            )
        parts = [tuning.stage] if tuning.stage else []
        if curve:
            of = f" of {started.epochs}" if started and started.epochs else ""
            best = f"best {curve[-1].best}" if curve[-1].best else "none better yet"
            parts.append(
                f"epoch {curve[-1].number}{of}, {best if tuning.busy else describe_best_epoch(curve)}"
            )
        if tuning.state is FinetuneState.PAUSED:
            parts.append("paused")
        elif tuning.state is FinetuneState.RUNNING:
            if not curve:
                parts.append("first epoch")
            elif curve[-1].left is not None:
                parts.append(f"{format_duration(curve[-1].left)} left")
        if tuning.busy or curve:
            lines.append("   ".join(parts))
        return "\n".join(line for line in lines if line)


def describe_best_epoch(epochs: Sequence[EpochFinished]) -> str:
    """Which epoch was kept in the end."""
    best = epochs[-1].best
    return f"epoch {best} was kept" if best else "no epoch was better on validation"
