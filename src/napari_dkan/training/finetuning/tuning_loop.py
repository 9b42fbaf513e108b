"""The fine-tuning loop: all models train side by side, and the best epoch is restored.

The final members train on all training spots. Validation models, one per fold, train without the
validation spots of their fold and choose the epoch.
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
from .finetune_settings import FinetuneSettings
from .hold_out_split import Subset
from .tuned_model import TunedModel
from .tuning_protocol import EpochFinished, FinetuneControl, FinetuneEvent

DIVERGENCE_FACTOR = 3.0  # times the first loss is no learning any more
DEFAULT_PATIENCE = 15
SINGLE_FOLD_MARGIN = 0.005  # of PCC-ALL


@dataclass
class TuningLoop:
    """pupils : the members that are kept. judged : others, each with the spots it is judged on.

    epochs : at most; None for no such limit. levels : whether they were adapted. best : the epoch
    that was kept, 0 for none. gain : in PCC-ALL on what chooses, as far as it is sure.
    """

    members: Sequence[TunedModel]
    validation_models: Sequence[tuple[TunedModel, Subset]]
    max_epochs: int | None
    settings: FinetuneSettings
    curve: list[tuple[float, float]] = field(default_factory=list)  # loss, PCC
    best_epoch: int = 0
    initial_pcc: float = math.nan
    gain: float = 0.0
    is_recalibrated: bool = False
    end_reason: str = "all epochs were done"

    def run(
        self,
        on_event: Callable[[FinetuneEvent], None],
        control: FinetuneControl,
        after_epoch: Callable[[], None] = lambda: None,
    ) -> None:
        """Until the epochs or the time are over, it stops getting better, diverges or is stopped.

        Then the pupils are as they were after the best epoch.
        """
        start, paused = time.monotonic(), 0.0
        self._recalibrate_if_better()
        first = self._validation_pccs()
        self.initial_pcc = _nanmean(first)
        kept = self._copy_member_states()
        while self._should_continue(control, time.monotonic() - start - paused):
            loss = self._train_epoch(partial(self._should_interrupt, control, start + paused))
            each = self._validation_pccs()
            pcc = _nanmean(each)
            gain = gain_minus_stderr(each - first)
            self.curve.append((loss, pcc))
            if self._is_diverged(loss, pcc):
                self.end_reason = f"it diverged in epoch {len(self.curve)}"
            elif gain > self.gain:
                self.gain, self.best_epoch, kept = gain, len(self.curve), self._copy_member_states()
            spent = time.monotonic() - start - paused
            on_event(
                EpochFinished(
                    len(self.curve),
                    loss,
                    pcc,
                    spent,
                    self._estimate_seconds_left(spent),
                    self.best_epoch,
                )
            )
            if self.end_reason.startswith("it diverged"):
                break
            after_epoch()
            waiting = time.monotonic()
            control.wait_while_paused(on_event)
            paused += time.monotonic() - waiting
        for pupil, state in zip(self.members, kept, strict=True):
            pupil.network.load_state_dict(state)

    def validation_pcc(self) -> float:
        """PCC-ALL on the spots that choose, mean over the judged."""
        return _nanmean(self._validation_pccs())

    def _validation_pccs(self) -> NDArray[np.float64]:
        """That of each of the judged, NaN where it has none."""
        return np.array([_subset_pcc(pupil, part) for pupil, part in self.validation_models])

    def _recalibrate_if_better(self) -> None:
        """Of all pupils, where that surely makes the squared error of the judged smaller."""
        every = [*self.members, *(pupil for pupil, _ in self.validation_models)]
        start, before = [p.copy_state() for p in every], self._validation_errors()
        for pupil in every:
            pupil.recalibrate_mean_std()
        self.is_recalibrated = (
            gain_minus_stderr(1 - self._validation_errors() / before, times=2) > 0
        )
        if not self.is_recalibrated:
            for pupil, state in zip(every, start, strict=True):
                pupil.network.load_state_dict(state)

    def _validation_errors(self) -> NDArray[np.float64]:
        return np.array(
            [_subset_squared_error(pupil, part) for pupil, part in self.validation_models]
        )

    def _train_epoch(self, enough: Callable[[], bool]) -> float:
        losses = [p.train_epoch(enough) for p in self.members]
        for pupil, _ in self.validation_models:
            pupil.train_epoch(enough)
        return float(np.mean(losses))

    def _is_diverged(self, loss: float, pcc: float) -> bool:
        first = self.curve[0][0]
        if not math.isfinite(loss) or (self.initial_pcc == self.initial_pcc and pcc != pcc):
            return True
        recent = [value for value, _ in self.curve[-3:]]
        return len(self.curve) > 3 and min(recent) > DIVERGENCE_FACTOR * first

    def _should_continue(self, control: FinetuneControl, spent: float) -> bool:
        done, patience = len(self.curve), self.settings.patience or DEFAULT_PATIENCE
        if control.is_stopped:
            self.end_reason = "it was stopped"
        elif self.max_epochs is not None and done >= self.max_epochs:
            self.end_reason = "all epochs were done"
        elif self._is_out_of_time(spent):
            self.end_reason = "the time was over"
        elif done - self.best_epoch >= patience:
            self.end_reason = f"it had not got better for {patience} epochs"
        else:
            return True
        return False

    def _should_interrupt(self, control: FinetuneControl, began: float) -> bool:
        return control.is_stopped or self._is_out_of_time(time.monotonic() - began)

    def _is_out_of_time(self, spent: float) -> bool:
        return self.settings.seconds is not None and spent >= self.settings.seconds

    def _estimate_seconds_left(self, spent: float) -> float | None:
        each = spent / len(self.curve)
        left = [] if self.max_epochs is None else [each * (self.max_epochs - len(self.curve))]
        if self.settings.seconds is not None:
            left.append(self.settings.seconds - spent)
        return max(0.0, min(left)) if left else None

    def _copy_member_states(self) -> list[dict[str, Tensor]]:
        return [p.copy_state() for p in self.members]


def gain_minus_stderr(gains: NDArray[np.float64], times: float = 1) -> float:
    """What is gained over the parts less its standard error; of a single part less `CLEAR`.

    times : so many standard errors.

    Parts of a section differ, and the best of many epochs looks good by chance: only what most
    parts agree in is a reason to leave the checkpoint as it was.
    """
    known = gains[~np.isnan(gains)]
    if len(known) < 2:
        return float(known[0] - SINGLE_FOLD_MARGIN) if len(known) else 0.0
    return float(known.mean() - times * known.std(ddof=1) / np.sqrt(len(known)))


def _subset_pcc(pupil: TunedModel, part: Subset) -> float:
    pairs = enumerate(zip(part.rows, part.labels, strict=True))
    each = [mean_gene_pcc(pupil.predict(i, rows), y) for i, (rows, y) in pairs if len(rows) > 2]
    return _nanmean(np.array(each))


def _subset_squared_error(pupil: TunedModel, part: Subset) -> float:
    pairs = enumerate(zip(part.rows, part.labels, strict=True))
    apart = [np.square(pupil.predict(i, rows) - y).ravel() for i, (rows, y) in pairs if len(rows)]
    return _nanmean(np.concatenate(apart).astype(np.float64))


def _nanmean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def mean_gene_pcc(predicted: np.ndarray, measured: np.ndarray) -> float:
    """PCC-ALL over the genes that are measured and vary; NaN when none is."""
    known = ~np.isnan(measured).all(axis=0)
    pcc = gene_pcc(predicted[:, known], measured[:, known])
    pcc = pcc[~np.isnan(pcc)]
    return float(pcc.mean()) if len(pcc) else math.nan
