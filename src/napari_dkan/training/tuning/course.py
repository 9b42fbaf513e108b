"""The run: all pupils learn side by side, and the best moment is kept.

The members that are kept learn from all spots that teach. How long, the other pupils say: each is
one member that does without one part and is judged on it after every epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..metrics import gene_pcc
from .control import Control
from .events import EpochDone, Event
from .pupil import Pupil
from .settings import TuneSettings
from .split import Part

WORSE = 3.0  # times the first loss is no learning any more
PATIENCE = 15
CLEAR = 0.005  # of PCC-ALL


@dataclass
class Course:
    """pupils : the members that are kept. judged : others, each with the spots it is judged on.

    epochs : at most; None for no such limit. levels : whether they were adapted. best : the epoch
    that was kept, 0 for none. gain : in PCC-ALL on what chooses, as far as it is sure.
    """

    pupils: Sequence[Pupil]
    judged: Sequence[tuple[Pupil, Part]]
    epochs: int | None
    settings: TuneSettings
    curve: list[tuple[float, float]] = field(default_factory=list)  # loss, PCC
    best: int = 0
    first_pcc: float = math.nan
    gain: float = 0.0
    levels: bool = False
    end: str = "all epochs were done"

    def run(
        self,
        on_event: Callable[[Event], None],
        control: Control,
        after_epoch: Callable[[], None] = lambda: None,
    ) -> None:
        """Until the epochs or the time are over, it stops getting better, diverges or is stopped.

        Then the pupils are as they were after the best epoch.
        """
        start, paused = time.monotonic(), 0.0
        self._adapt_levels()
        first = self._qualities()
        self.first_pcc = _mean(first)
        kept = self._states()
        while self._goes_on(control, time.monotonic() - start - paused):
            loss = self._epoch(partial(self._enough, control, start + paused))
            each = self._qualities()
            pcc = _mean(each)
            gain = sure_gain(each - first)
            self.curve.append((loss, pcc))
            if self._diverged(loss, pcc):
                self.end = f"it diverged in epoch {len(self.curve)}"
            elif gain > self.gain:
                self.gain, self.best, kept = gain, len(self.curve), self._states()
            spent = time.monotonic() - start - paused
            on_event(EpochDone(len(self.curve), loss, pcc, spent, self._left(spent), self.best))
            if self.end.startswith("it diverged"):
                break
            after_epoch()
            waiting = time.monotonic()
            control.hold(on_event)
            paused += time.monotonic() - waiting
        for pupil, state in zip(self.pupils, kept, strict=True):
            pupil.network.load_state_dict(state)

    def quality(self) -> float:
        """PCC-ALL on the spots that choose, mean over the judged."""
        return _mean(self._qualities())

    def _qualities(self) -> NDArray[np.float64]:
        """That of each of the judged, NaN where it has none."""
        return np.array([_judge(pupil, part) for pupil, part in self.judged])

    def _adapt_levels(self) -> None:
        """Of all pupils, where that surely makes the squared error of the judged smaller."""
        every = [*self.pupils, *(pupil for pupil, _ in self.judged)]
        start, before = [p.state() for p in every], self._errors()
        for pupil in every:
            pupil.adapt_levels()
        self.levels = sure_gain(1 - self._errors() / before, times=2) > 0
        if not self.levels:
            for pupil, state in zip(every, start, strict=True):
                pupil.network.load_state_dict(state)

    def _errors(self) -> NDArray[np.float64]:
        return np.array([_squared_error(pupil, part) for pupil, part in self.judged])

    def _epoch(self, enough: Callable[[], bool]) -> float:
        losses = [p.epoch(enough) for p in self.pupils]
        for pupil, _ in self.judged:
            pupil.epoch(enough)
        return float(np.mean(losses))

    def _diverged(self, loss: float, pcc: float) -> bool:
        first = self.curve[0][0]
        if not math.isfinite(loss) or (self.first_pcc == self.first_pcc and pcc != pcc):
            return True
        recent = [value for value, _ in self.curve[-3:]]
        return len(self.curve) > 3 and min(recent) > WORSE * first

    def _goes_on(self, control: Control, spent: float) -> bool:
        done, patience = len(self.curve), self.settings.patience or PATIENCE
        if control.stopped:
            self.end = "it was stopped"
        elif self.epochs is not None and done >= self.epochs:
            self.end = "all epochs were done"
        elif self._late(spent):
            self.end = "the time was over"
        elif done - self.best >= patience:
            self.end = f"it had not got better for {patience} epochs"
        else:
            return True
        return False

    def _enough(self, control: Control, began: float) -> bool:
        return control.stopped or self._late(time.monotonic() - began)

    def _late(self, spent: float) -> bool:
        return self.settings.seconds is not None and spent >= self.settings.seconds

    def _left(self, spent: float) -> float | None:
        each = spent / len(self.curve)
        left = [] if self.epochs is None else [each * (self.epochs - len(self.curve))]
        if self.settings.seconds is not None:
            left.append(self.settings.seconds - spent)
        return max(0.0, min(left)) if left else None

    def _states(self) -> list[dict[str, Tensor]]:
        return [p.state() for p in self.pupils]


def sure_gain(gains: NDArray[np.float64], times: float = 1) -> float:
    """What is gained over the parts less its standard error; of a single part less `CLEAR`.

    times : so many standard errors.

    Parts of a section differ, and the best of many epochs looks good by chance: only what most
    parts agree in is a reason to leave the checkpoint as it was.
    """
    known = gains[~np.isnan(gains)]
    if len(known) < 2:
        return float(known[0] - CLEAR) if len(known) else 0.0
    return float(known.mean() - times * known.std(ddof=1) / np.sqrt(len(known)))


def _judge(pupil: Pupil, part: Part) -> float:
    pairs = enumerate(zip(part.rows, part.labels, strict=True))
    each = [mean_pcc(pupil.predict(i, rows), y) for i, (rows, y) in pairs if len(rows) > 2]
    return _mean(np.array(each))


def _squared_error(pupil: Pupil, part: Part) -> float:
    pairs = enumerate(zip(part.rows, part.labels, strict=True))
    apart = [np.square(pupil.predict(i, rows) - y).ravel() for i, (rows, y) in pairs if len(rows)]
    return _mean(np.concatenate(apart).astype(np.float64))


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def mean_pcc(predicted: np.ndarray, measured: np.ndarray) -> float:
    """PCC-ALL over the genes that are measured and vary; NaN when none is."""
    known = ~np.isnan(measured).all(axis=0)
    pcc = gene_pcc(predicted[:, known], measured[:, known])
    pcc = pcc[~np.isnan(pcc)]
    return float(pcc.mean()) if len(pcc) else math.nan
