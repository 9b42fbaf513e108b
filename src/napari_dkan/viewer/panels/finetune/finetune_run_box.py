"""Box to start, pause and stop a fine-tuning run, with its progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtWidgets import QPushButton, QWidget

from ....training.finetuning.tuning_protocol import EpochFinished
from ...jobs.run_times import format_duration
from ...widgets.learning_curve import LearningCurve
from ...widgets.qt_utils import fill_column, make_progress_bar, make_row, make_text_label
from ...widgets.signal_connections import SignalConnections
from .finetune_controller import FinetuneController, FinetuneState


class FinetuneRunBox(QWidget):
    """Buttons, progress and learning curve of a run."""

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
        self.progress_bar, self.status_label = make_progress_bar(), make_text_label()
        self.learning_curve = LearningCurve()
        buttons = make_row((self.start_button, 2), (self.pause_button, 1), (self.stop_button, 1))
        fill_column(self, buttons, self.progress_bar, self.status_label, self.learning_curve)
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
            self.pause_button.setEnabled(False)  # until the process has finished its epoch
            self.pause_button.setText("Pausing ...")

    def refresh(self) -> None:
        controller, state, busy = self._controller, self._controller.state, self._controller.busy
        self.start_button.setEnabled(not busy)
        self.stop_button.setEnabled(busy and state is not FinetuneState.STOPPING)
        is_pausing = self.pause_button.text() == "Pausing ..." and state is FinetuneState.RUNNING
        if not is_pausing:
            self.pause_button.setText("Resume" if state is FinetuneState.PAUSED else "Pause")
            self.pause_button.setEnabled(state in (FinetuneState.RUNNING, FinetuneState.PAUSED))
        self.progress_bar.setVisible(busy)
        self.learning_curve.setVisible(bool(controller.epochs) or state is FinetuneState.RUNNING)
        self.status_label.setText(self._status_text())
        self.status_label.setVisible(bool(self.status_label.text()))
        fraction = self._progress_fraction()
        total = 0 if busy and fraction is None else 1000
        self.progress_bar.show_progress(round(1000 * (fraction or 0)), total)
        initial_pcc = None if controller.start_event is None else controller.start_event.pcc
        self.learning_curve.set_epochs(controller.epochs, initial_pcc)

    def _progress_fraction(self) -> float | None:
        """Elapsed fraction of the time; None while it is unknown."""
        epochs = self._controller.epochs
        if not epochs or self._controller.state is FinetuneState.STOPPING:
            return None
        last = epochs[-1]
        if last.left is None:
            return None
        return last.seconds / max(last.seconds + last.left, 1e-6)

    def _status_text(self) -> str:
        controller = self._controller
        start, epochs = controller.start_event, controller.epochs
        lines: list[str] = []
        if start is not None:
            lines += start.shallow
        if start is not None and controller.busy:
            where = f" on {start.device}" if start.device else ""
            lines.append(
                f"{start.spots} spots train the {start.adapt}{where}, {start.held_out} are held out"
            )
            lines.append(start.plain)
        parts = [controller.stage] if controller.stage else []
        if epochs:
            total = f" of {start.epochs}" if start and start.epochs else ""
            best = f"best {epochs[-1].best}" if epochs[-1].best else "none better yet"
            if not controller.busy:
                best = describe_best_epoch(epochs)
            parts.append(f"epoch {epochs[-1].number}{total}, {best}")
        if controller.state is FinetuneState.PAUSED:
            parts.append("paused")
        elif controller.state is FinetuneState.RUNNING:
            if not epochs:
                parts.append("first epoch")
            elif epochs[-1].left is not None:
                parts.append(f"{format_duration(epochs[-1].left)} left")
        if controller.busy or epochs:
            lines.append("   ".join(parts))
        return "\n".join(line for line in lines if line)


def describe_best_epoch(epochs: Sequence[EpochFinished]) -> str:
    """Describe which epoch was kept at the end."""
    best = epochs[-1].best
    return f"epoch {best} was kept" if best else "no epoch was better on validation"
