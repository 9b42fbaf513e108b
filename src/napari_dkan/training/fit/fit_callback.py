"""Lightning callback that records the training curve, stops early and saves checkpoints."""

from __future__ import annotations

import csv
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from ...atomic_write import atomic_write
from ...errors import DkanError

LAST_CHECKPOINT = "last.ckpt"
CURVE_FILE = "curve.csv"
CHECKPOINT_KEY = "napari_dkan"  # of our entry in a Lightning checkpoint

EpochReporter = Callable[[int, float], None]


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: its number from 1, mean training loss, validation PCC-ALL (NaN without)."""

    number: int
    loss: float
    val_pcc: float


def is_patience_exhausted(curve: list[EpochRecord], patience: int) -> bool:
    """Whether validation has not got better for ``patience`` epochs."""
    values = [e.val_pcc for e in curve if e.val_pcc == e.val_pcc]
    return bool(values) and len(values) - 1 - values.index(max(values)) >= patience


def read_curve(checkpoint: Mapping[str, Any]) -> list[EpochRecord]:
    """The curve that a Lightning checkpoint of ours carries."""
    rows = checkpoint.get(CHECKPOINT_KEY, {}).get("curve", [])
    return [EpochRecord(int(n), float(loss), float(pcc)) for n, loss, pcc in rows]


class FitCallback(Callback):
    """Records the curve, reports it, stops in time, and saves every epoch where there is a folder.

    A checkpoint carries the state of every random generator, so a run that is resumed goes on as
    if it had never stopped. A checkpoint that cannot be written ends the fit with an OutputError
    and leaves the one before.
    """

    def __init__(
        self,
        patience: int,
        seed: int,
        folder: Path | None = None,
        on_epoch: EpochReporter | None = None,
    ) -> None:
        self.curve: list[EpochRecord] = []
        self.patience, self.seed = patience, seed
        self.folder, self.on_epoch = folder, on_epoch
        self._restored: dict[str, Any] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size > 1:  # a process of its own, which has to be told once more
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
        if batch_idx == 0:  # dropout; ranks see other spots and drop out other numbers
            seed = (self.seed * 10_007 + trainer.current_epoch) * 101 + trainer.global_rank
            torch.manual_seed(seed)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # validation runs inside the epoch, so its score is there by now; rank 0 decides for all
        metrics = trainer.callback_metrics
        pair = [float(metrics.get(name, float("nan"))) for name in ("loss", "val_pcc")]
        loss, pcc = trainer.strategy.broadcast(pair)
        self.curve.append(EpochRecord(trainer.current_epoch + 1, loss, pcc))
        trainer.should_stop = is_patience_exhausted(self.curve, self.patience)
        if self.folder is not None:
            self._save(trainer, self.folder)
        if self.on_epoch is not None and trainer.is_global_zero:
            self.on_epoch(trainer.current_epoch + 1, pcc)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.world_size == 1:
            return
        total = torch.stack([p.detach().double().sum() for p in pl_module.parameters()]).sum()
        each = trainer.strategy.all_gather(total)
        if not torch.equal(each, each[:1].expand_as(each)):
            raise DkanError(
                "The processes that trained together have come to different weights, which must "
                "not happen; train with --devices 1."
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[CHECKPOINT_KEY] = {
            "curve": [[e.number, e.loss, e.val_pcc] for e in self.curve],
            "draws": _module_generator(pl_module).get_state(),
            "batches": _dataset_generator(trainer).get_state(),
        }

    def _save(self, trainer: pl.Trainer, folder: Path) -> None:
        if trainer.is_global_zero:
            with atomic_write(folder / LAST_CHECKPOINT) as file:
                trainer.save_checkpoint(file)
            write_curve(folder / CURVE_FILE, self.curve)
        else:
            trainer.save_checkpoint(folder / LAST_CHECKPOINT)  # takes part, and writes nothing


def write_curve(path: Path, curve: list[EpochRecord]) -> None:
    """``epoch,loss,val_pcc``, one line per epoch. Raises OutputError."""
    with atomic_write(path) as file, file.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["epoch", "loss", "val_pcc"])
        for e in curve:
            table.writerow([e.number, f"{e.loss:.6f}", f"{e.val_pcc:.6f}"])


def _module_generator(module: pl.LightningModule) -> torch.Generator:
    return module.draws  # type: ignore[return-value]


def _dataset_generator(trainer: pl.Trainer) -> torch.Generator:
    return trainer.train_dataloader.dataset.generator  # type: ignore[union-attr]
