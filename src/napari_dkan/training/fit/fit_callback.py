"""Lightning callback that records the training curve, stops early and saves checkpoints."""

from __future__ import annotations

import csv
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from ...atomic_write import atomic_write
from ...errors import DkanError
from .lightning_module import ExpressionLightningModule
from .run_folder import CURVE_FILE, LAST_CHECKPOINT

CHECKPOINT_KEY = "napari_dkan"  # of our entry in a Lightning checkpoint


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes
    ----------
    number
        From 1.
    loss
        Mean training loss.
    val_pcc
        Validation PCC-ALL; NaN without validation.
    val_partial
        Validation depth-partial PCC, which chooses the epoch; NaN without validation.
    """

    number: int
    loss: float
    val_pcc: float
    val_partial: float = math.nan


EpochCallback = Callable[[EpochRecord], None]


def is_patience_exhausted(curve: Sequence[EpochRecord], patience: int) -> bool:
    """Return whether validation has not improved for ``patience`` epochs."""
    best = find_best_epoch(curve)
    return bool(best) and curve[-1].number - best >= patience


def find_best_epoch(curve: Sequence[EpochRecord]) -> int:
    """Return the epoch of the highest depth-partial PCC, from 1; 0 without validation.

    A curve with epochs of a version that did not compute it is compared by PCC-ALL.
    """
    scores = [e.val_partial for e in curve]
    if any(math.isnan(s) for s in scores):
        scores = [e.val_pcc for e in curve]
    validated = [(s, -e.number) for s, e in zip(scores, curve, strict=True) if not math.isnan(s)]
    return -max(validated)[1] if validated else 0


def read_curve(checkpoint: Mapping[str, Any]) -> list[EpochRecord]:
    """Read the curve in our entry of a Lightning checkpoint."""
    rows = checkpoint.get(CHECKPOINT_KEY, {}).get("curve", [])
    return [EpochRecord(int(number), *map(float, values)) for number, *values in rows]


class FitCallback(Callback):
    """Record and report the curve, stop early, and save each epoch where a folder is given.

    A checkpoint holds the state of every random generator, so a resumed run gives the same result
    as an uninterrupted one. A checkpoint that cannot be written ends the fit with an OutputError;
    the previous one stays.

    Attributes
    ----------
    curve
        Records of the finished epochs.
    """

    def __init__(
        self,
        patience: int,
        seed: int,
        folder: Path | None = None,
        on_epoch: EpochCallback | None = None,
    ) -> None:
        self.curve: list[EpochRecord] = []
        self.patience, self.seed = patience, seed
        self.folder, self.on_epoch = folder, on_epoch
        self._restored: dict[str, Any] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size > 1:  # a spawned process does not inherit these settings
            warnings.simplefilter("ignore")
            logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.curve = read_curve(checkpoint)
        self._restored = checkpoint[CHECKPOINT_KEY]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._restored is not None:
            _module_generator(pl_module).set_state(self._restored["draws"].cpu())
            _dataset_generator(trainer).set_state(self._restored["batches"].cpu())
            self._restored = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:  # seeds dropout; each rank has other spots and other dropout
            seed = (self.seed * 10_007 + trainer.current_epoch) * 101 + trainer.global_rank
            torch.manual_seed(seed)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # validation runs inside the epoch, so its score is available; rank 0 decides for all
        metrics = trainer.callback_metrics
        names = ("loss", "val_pcc", "val_partial")
        values = [float(metrics.get(name, math.nan)) for name in names]
        record = EpochRecord(trainer.current_epoch + 1, *trainer.strategy.broadcast(values))
        self.curve.append(record)
        trainer.should_stop = is_patience_exhausted(self.curve, self.patience)
        if self.folder is not None:
            self._save(trainer, self.folder)
        if self.on_epoch is not None and trainer.is_global_zero:
            self.on_epoch(record)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.world_size == 1:
            return
        total = torch.stack([p.detach().double().sum() for p in pl_module.parameters()]).sum()
        totals = trainer.strategy.all_gather(total)
        if not torch.equal(totals, totals[:1].expand_as(totals)):
            raise DkanError(
                "The processes that trained together have come to different weights, which must "
                "not happen; train with --devices 1."
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[CHECKPOINT_KEY] = {
            "curve": [list(astuple(e)) for e in self.curve],
            "draws": _module_generator(pl_module).get_state(),
            "batches": _dataset_generator(trainer).get_state(),
        }

    def _save(self, trainer: pl.Trainer, folder: Path) -> None:
        if trainer.is_global_zero:
            with atomic_write(folder / LAST_CHECKPOINT) as file:
                trainer.save_checkpoint(file)
            write_curve(folder / CURVE_FILE, self.curve)
        else:  # takes part in the collective call and writes nothing
            trainer.save_checkpoint(folder / LAST_CHECKPOINT)


def write_curve(path: Path, curve: list[EpochRecord]) -> None:
    """Write loss and validation scores, one line per epoch; raises OutputError."""
    with atomic_write(path) as file, file.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["epoch", "loss", "val_pcc", "val_depth_partial_pcc"])
        for e in curve:
            values = (e.loss, e.val_pcc, e.val_partial)
            table.writerow([e.number, *(f"{v:.6f}" for v in values)])


def _module_generator(module: pl.LightningModule) -> torch.Generator:
    assert isinstance(module, ExpressionLightningModule)
    return module.generator


def _dataset_generator(trainer: pl.Trainer) -> torch.Generator:
    loader: Any = trainer.train_dataloader
    generator: torch.Generator = loader.dataset.generator
    return generator
