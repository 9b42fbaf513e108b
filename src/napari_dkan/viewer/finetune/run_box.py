"""Start, Pause, Stop, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from ...training.tuning.events import EpochDone
from ..links import Links
from ..where_box import duration
from .curve import Curve
from .tuning import State, Tuning


class RunBox(QWidget):
    """The buttons, the bar and the curve of a run."""

    def __init__(self, tuning: Tuning, start: Callable[[], None], links: Links) -> None:
        super().__init__()
        self._tuning = tuning
        self.start, self.pause = QPushButton("Start"), QPushButton("Pause")
        self.stop = QPushButton("Stop")
        self.start.setDefault(True)
        self.pause.setToolTip("It waits after the epoch it is in.")
        self.stop.setToolTip("Ends it and keeps the best so far.")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.curve = Curve()
        buttons = QHBoxLayout()
        buttons.addWidget(self.start, 2)
        buttons.addWidget(self.pause, 1)
        buttons.addWidget(self.stop, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        for widget in (self.bar, self.state, self.curve):
            layout.addWidget(widget)
        self.start.clicked.connect(start)
        self.pause.clicked.connect(self._pause)
        self.stop.clicked.connect(tuning.stop)
        links.join(self.refresh, tuning.changed, tuning.epoch_came)
        self.refresh()

    def _pause(self) -> None:
        if self._tuning.state is State.PAUSED:
            self._tuning.resume()
        else:
            self._tuning.pause()
            self.pause.setEnabled(False)  # until it has come to the end of its epoch
            self.pause.setText("Pausing ...")

    def refresh(self) -> None:
        tuning, state = self._tuning, self._tuning.state
        busy = tuning.busy
        self.start.setEnabled(not busy)
        self.stop.setEnabled(busy and state is not State.STOPPING)
        waiting = self.pause.text() == "Pausing ..." and state is State.RUNNING
        if not waiting:
            self.pause.setText("Resume" if state is State.PAUSED else "Pause")
            self.pause.setEnabled(state in (State.RUNNING, State.PAUSED))
        self.bar.setVisible(busy)
        self.curve.setVisible(bool(tuning.curve) or state is State.RUNNING)
        self.state.setText(self._words())
        self.state.setVisible(bool(self.state.text()))
        share = self._share()
        self.bar.setRange(0, 0 if busy and share is None else 1000)
        if share is not None:
            self.bar.setValue(round(1000 * share))
        before = None if tuning.started is None else tuning.started.pcc
        self.curve.show_epochs(tuning.curve, before)

    def _share(self) -> float | None:
        """How much of the time is over; None while that is not known."""
        curve = self._tuning.curve
        if not curve or curve[-1].left is None or self._tuning.state is State.STOPPING:
            return None
        last = curve[-1]
        return last.seconds / max(last.seconds + (last.left or 0), 1e-6)

    def _words(self) -> str:
        tuning = self._tuning
        started, curve = tuning.started, tuning.curve
        lines = []
        if started is not None and tuning.busy:
            lines.append(
                f"{started.spots} spots teach the {started.adapt}, {started.held_out} are held out"
            )
        parts = [tuning.stage] if tuning.stage else []
        if curve:
            of = f" of {started.epochs}" if started and started.epochs else ""
            best = f"best {curve[-1].best}" if curve[-1].best else "none better yet"
            parts.append(f"epoch {curve[-1].number}{of}, {best if tuning.busy else kept(curve)}")
        if tuning.state is State.PAUSED:
            parts.append("paused")
        elif tuning.state is State.RUNNING:
            if not curve:
                parts.append("first epoch")
            elif curve[-1].left is not None:
                parts.append(f"{duration(curve[-1].left)} left")
        if tuning.busy or curve:
            lines.append("   ".join(parts))
        return "\n".join(line for line in lines if line)


def kept(curve: Sequence[EpochDone]) -> str:
    """Which epoch was kept in the end."""
    best = curve[-1].best
    return f"epoch {best} was kept" if best else "no epoch was better on validation"
