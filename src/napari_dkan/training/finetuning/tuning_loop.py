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

from ..metrics import mean_gene_pcc, nanmean
from .finetune_settings import FinetuneSettings
from .hold_out_split import Subset
from .tuned_model import TunedModel
from .tuning_protocol import EpochFinished, FinetuneControl, FinetuneEvent

DIVERGENCE_FACTOR = 3.0  # a loss above so many times the first one is a divergence
DEFAULT_PATIENCE = 15
SINGLE_FOLD_MARGIN = 0.005  # of PCC-ALL


@dataclass
class TuningLoop:
    """Training of the members and the validation models.

    Attributes
    ----------
    members
        Models of the final network.
    validation_models
        Models that choose the epoch, each with its validation spots.
    max_epochs
        Largest number of epochs; None for no limit.
    curve
        Loss and validation PCC of each epoch.
    best_epoch
        Epoch that is restored, 0 for the checkpoint before fine-tuning.
    initial_pcc
        Validation PCC before the first epoch.
    gain
        Gain in validation PCC of the best epoch, less its standard error.
    is_recalibrated
        Whether mean and standard deviation of the genes were recalibrated.
    end_reason
        Reason of the end, in words.
    """

    members: Sequence[TunedModel]
    validation_models: Sequence[tuple[TunedModel, Subset]]
    max_epochs: int | None
    settings: FinetuneSettings
    curve: list[tuple[float, float]] = field(default_factory=list)
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
        """Train until a limit is reached, validation stops improving, it diverges or is stopped.

        Then the members have the weights of the best epoch.
        """
        start, paused = time.monotonic(), 0.0
        self._recalibrate_if_better()
        initial_pccs = self._validation_pccs()
        self.initial_pcc = nanmean(initial_pccs)
        best_states = self._copy_member_states()
        while self._should_continue(control, time.monotonic() - start - paused):
            loss = self._train_epoch(partial(self._should_interrupt, control, start + paused))
            pccs = self._validation_pccs()
            pcc = nanmean(pccs)
            gain = gain_minus_stderr(pccs - initial_pccs)
            self.curve.append((loss, pcc))
            is_diverged = self._is_diverged(loss, pcc)
            if is_diverged:
                self.end_reason = f"it diverged in epoch {len(self.curve)}"
            elif gain > self.gain:
                self.gain, self.best_epoch = gain, len(self.curve)
                best_states = self._copy_member_states()
            elapsed = time.monotonic() - start - paused
            on_event(
                EpochFinished(
                    len(self.curve),
                    loss,
                    pcc,
                    elapsed,
                    self._estimate_seconds_left(elapsed),
                    self.best_epoch,
                )
            )
            if is_diverged:
                break
            after_epoch()
            pause_start = time.monotonic()
            control.wait_while_paused(on_event)
            paused += time.monotonic() - pause_start
        for member, state in zip(self.members, best_states, strict=True):
            member.network.load_state_dict(state)

    def validation_pcc(self) -> float:
        """Compute PCC-ALL on the validation spots, averaged over the validation models."""
        return nanmean(self._validation_pccs())

    def _validation_pccs(self) -> NDArray[np.float64]:
        """PCC-ALL of each validation model, NaN where it is not defined."""
        return np.array([_subset_pcc(model, subset) for model, subset in self.validation_models])

    def _recalibrate_if_better(self) -> None:
        """Recalibrate all models if that clearly reduces the validation error."""
        models = [*self.members, *(model for model, _ in self.validation_models)]
        states, before = [m.copy_state() for m in models], self._validation_errors()
        for model in models:
            model.recalibrate_mean_std()
        relative_gain = 1 - self._validation_errors() / before
        self.is_recalibrated = gain_minus_stderr(relative_gain, n_stderr=2) > 0
        if not self.is_recalibrated:
            for model, state in zip(models, states, strict=True):
                model.network.load_state_dict(state)

    def _validation_errors(self) -> NDArray[np.float64]:
        return np.array(
            [_subset_squared_error(model, subset) for model, subset in self.validation_models]
        )

    def _train_epoch(self, should_stop: Callable[[], bool]) -> float:
        losses = [m.train_epoch(should_stop) for m in self.members]
        for model, _ in self.validation_models:
            model.train_epoch(should_stop)
        return float(np.mean(losses))

    def _is_diverged(self, loss: float, pcc: float) -> bool:
        first = self.curve[0][0]
        if not math.isfinite(loss) or (self.initial_pcc == self.initial_pcc and pcc != pcc):
            return True
        recent = [value for value, _ in self.curve[-3:]]
        return len(self.curve) > 3 and min(recent) > DIVERGENCE_FACTOR * first

    def _should_continue(self, control: FinetuneControl, elapsed: float) -> bool:
        n_done, patience = len(self.curve), self.settings.patience or DEFAULT_PATIENCE
        if control.is_stopped:
            self.end_reason = "it was stopped"
        elif self.max_epochs is not None and n_done >= self.max_epochs:
            self.end_reason = "all epochs were done"
        elif self._is_out_of_time(elapsed):
            self.end_reason = "the time was over"
        elif n_done - self.best_epoch >= patience:
            self.end_reason = f"it had not got better for {patience} epochs"
        else:
            return True
        return False

    def _should_interrupt(self, control: FinetuneControl, start: float) -> bool:
        return control.is_stopped or self._is_out_of_time(time.monotonic() - start)

    def _is_out_of_time(self, elapsed: float) -> bool:
        return self.settings.seconds is not None and elapsed >= self.settings.seconds

    def _estimate_seconds_left(self, elapsed: float) -> float | None:
        per_epoch = elapsed / len(self.curve)
        left = [] if self.max_epochs is None else [per_epoch * (self.max_epochs - len(self.curve))]
        if self.settings.seconds is not None:
            left.append(self.settings.seconds - elapsed)
        return max(0.0, min(left)) if left else None

    def _copy_member_states(self) -> list[dict[str, Tensor]]:
        return [m.copy_state() for m in self.members]


def gain_minus_stderr(gains: NDArray[np.float64], n_stderr: float = 1) -> float:
    """Subtract `n_stderr` standard errors from the mean gain over folds.

    Of a single fold subtract `SINGLE_FOLD_MARGIN`. Parts of a section differ, and the best of
    many epochs looks good by chance: only a gain in most folds justifies a change of the
    checkpoint.
    """
    defined = gains[~np.isnan(gains)]
    if len(defined) < 2:
        return float(defined[0] - SINGLE_FOLD_MARGIN) if len(defined) else 0.0
    return float(defined.mean() - n_stderr * defined.std(ddof=1) / np.sqrt(len(defined)))


def _subset_pcc(model: TunedModel, subset: Subset) -> float:
    pairs = enumerate(zip(subset.rows, subset.labels, strict=True))
    return nanmean(
        [mean_gene_pcc(model.predict(i, rows), y) for i, (rows, y) in pairs if len(rows) > 2]
    )


def _subset_squared_error(model: TunedModel, subset: Subset) -> float:
    pairs = enumerate(zip(subset.rows, subset.labels, strict=True))
    errors = [np.square(model.predict(i, rows) - y).ravel() for i, (rows, y) in pairs if len(rows)]
    return nanmean(np.concatenate(errors))
