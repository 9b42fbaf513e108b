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
from torch import Tensor

from ...inference.device_errors import is_out_of_memory
from .candidates import FoldScores, gain_minus_stderr, score_subset, stack_scores
from .finetune_settings import AdaptScope, FinetuneSettings
from .hold_out_split import Subset
from .tuned_model import TunedModel
from .tuning_protocol import EpochFinished, FinetuneControl, FinetuneEvent

DIVERGENCE_FACTOR = 3.0  # a loss above so many times the first one is a divergence
DEFAULT_PATIENCE = 15
_DIVERGED, _OUT_OF_MEMORY = "it diverged", "the memory was full"


@dataclass
class TuningLoop:
    """Training of the members and the validation models.

    Attributes
    ----------
    scope
        What is trained.
    members
        Models of the final network.
    validation_models
        Models that choose the epoch, each with its validation spots.
    max_epochs
        Largest number of epochs; None for no limit.
    curve
        Loss and depth-partial PCC on the validation spots of each epoch.
    best_epoch
        Epoch that is restored, 0 for the start.
    initial
        Scores on the validation spots before the first epoch.
    epoch_scores
        Scores after each epoch.
    gain
        Gain in depth-partial PCC of the best epoch, less its standard error.
    end_reason
        Reason of the end, in words.
    n_epochs_before, kept_before
        Epochs of the trainings before this one, and the best of them, 0 for none.
    """

    scope: AdaptScope
    members: Sequence[TunedModel]
    validation_models: Sequence[tuple[TunedModel, Subset]]
    max_epochs: int | None
    settings: FinetuneSettings
    curve: list[tuple[float, float]] = field(default_factory=list)
    epoch_scores: list[FoldScores] = field(default_factory=list)
    best_epoch: int = 0
    gain: float = 0.0
    end_reason: str = "all epochs were done"
    n_epochs_before: int = 0
    kept_before: int = 0

    def __post_init__(self) -> None:
        self.initial = self.validation_scores()

    def run(
        self,
        on_event: Callable[[FinetuneEvent], None],
        control: FinetuneControl,
        after_epoch: Callable[[], None] = lambda: None,
    ) -> None:
        """Train until a limit is reached, validation stops improving, or it is stopped.

        It also ends when it diverges or memory runs out.
        Then the members have the weights of the best epoch.
        """
        start, paused = time.monotonic(), 0.0
        best_states = self._copy_member_states()
        while self._should_continue(control, time.monotonic() - start - paused):
            try:
                loss = self._train_epoch(partial(self._should_interrupt, control, start + paused))
                scores = self.validation_scores()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.end_reason = f"{_OUT_OF_MEMORY} in epoch {len(self.curve) + 1}"
                break
            pcc = scores.mean_partial
            gain = gain_minus_stderr(scores.partial - self.initial.partial)
            self.curve.append((loss, pcc))
            self.epoch_scores.append(scores)
            is_diverged = self._is_diverged(loss, pcc)
            if is_diverged:
                self.end_reason = f"{_DIVERGED} in epoch {len(self.curve)}"
            elif gain > self.gain:
                self.gain, self.best_epoch = gain, len(self.curve)
                best_states = self._copy_member_states()
            elapsed = time.monotonic() - start - paused
            on_event(
                EpochFinished(
                    self.n_epochs_before + len(self.curve),
                    loss,
                    pcc,
                    elapsed,
                    self._estimate_seconds_left(elapsed),
                    self.kept_epoch,
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

    def validation_scores(self) -> FoldScores:
        """Score the current validation models on their spots."""
        return stack_scores([score_subset(m.predict, v) for m, v in self.validation_models])

    @property
    def kept_epoch(self) -> int:
        """Number of the best epoch, counted over all trainings; 0 where none is better."""
        return self.n_epochs_before + self.best_epoch if self.best_epoch else self.kept_before

    def scores_from(self, start: FoldScores) -> FoldScores:
        """Add the gains of the training to the scores of the whole checkpoint at the start.

        A validation model is one member of an ensemble, so its own scores are lower than those
        of the ensemble; its gain is comparable.
        """
        trained = pick_epoch_by_other_folds([self.initial, *self.epoch_scores])
        return FoldScores(
            start.partial + trained.partial - self.initial.partial,
            start.mse * trained.mse / self.initial.mse,
        )

    def _train_epoch(self, should_stop: Callable[[], bool]) -> float:
        losses = [m.train_epoch(should_stop) for m in self.members]
        for model, _ in self.validation_models:
            model.train_epoch(should_stop)
        return float(np.mean(losses))

    def _is_diverged(self, loss: float, pcc: float) -> bool:
        first = self.curve[0][0]
        started = math.isfinite(self.initial.mean_partial)
        if not math.isfinite(loss) or (started and not math.isfinite(pcc)):
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


def is_premature_end(reason: str) -> bool:
    """Whether the reason of an end is that training could not go on."""
    return reason.startswith((_DIVERGED, _OUT_OF_MEMORY))


def pick_epoch_by_other_folds(epochs: Sequence[FoldScores]) -> FoldScores:
    """Score each fold at the epoch that the other folds choose.

    The best of many epochs looks good by chance on the folds that chose it. A single fold chooses
    for itself.

    Parameters
    ----------
    epochs
        Scores before the first epoch and after each one.
    """
    partial, mse = (np.stack([getattr(e, name) for e in epochs]) for name in ("partial", "mse"))
    gains, n_folds = partial - partial[0], partial.shape[1]
    chosen = []
    for fold in range(n_folds):
        seen = np.delete(gains, fold, axis=1) if n_folds > 1 else gains
        chosen.append(
            int(np.argmax([gain_minus_stderr(g) if i else 0 for i, g in enumerate(seen)]))
        )
    folds = np.arange(n_folds)
    return FoldScores(partial[chosen, folds], mse[chosen, folds])


def describe_scopes(loops: Sequence[TuningLoop]) -> str:
    """Say what is trained, such as "heads and decoder"."""
    return " and ".join(loop.scope.value for loop in loops) or AdaptScope.plain.value
