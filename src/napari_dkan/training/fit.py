"""Fitting one network to some sections."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch.utils.data import DataLoader

from ..model.network import DKAN
from .batches import Epochs, whole
from .gene_text import GeneText
from .module import DKANModule
from .sections import Encoded
from .settings import Settings


@dataclass(frozen=True)
class Fitted:
    """network : in eval mode, on the CPU. epochs : how many it was trained.

    curve : validation PCC-ALL after each epoch, empty without a validation section.
    """

    network: DKAN
    epochs: int
    curve: tuple[float, ...] = ()

    @property
    def best_epoch(self) -> int:
        """Number of epochs after which validation was best."""
        return max(range(len(self.curve)), key=self.curve.__getitem__) + 1 if self.curve else 0


def fit(
    sections: Sequence[Encoded],
    gene_text: GeneText,
    settings: Settings,
    validation: Encoded | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Fitted:
    """Train a network from scratch on sections; the same seed gives the same network on one CPU.

    validation : a section kept out of training; training stops when it has not got better for
        ``settings.patience`` epochs. Without it training runs ``settings.epochs`` epochs.
    on_epoch : called after every epoch with its number from 1 and the last validation PCC-ALL
        (NaN without validation).
    """
    with _quiet():
        pl.seed_everything(settings.seed, verbose=False)
        network = _network(sections, gene_text, settings)
        watch = _Watch(settings.patience, on_epoch)
        callbacks: list[Callback] = [watch]
        if settings.average > 0:
            callbacks.insert(0, EMAWeightAveraging(decay=settings.average, use_buffers=True))
        trainer = pl.Trainer(
            accelerator="auto" if torch.cuda.is_available() else "cpu",
            devices=1,
            max_epochs=settings.epochs,
            callbacks=callbacks,
            gradient_clip_val=1.0,
            precision="16-mixed" if torch.cuda.is_available() else "32-true",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(
            DKANModule(network, settings),
            DataLoader(Epochs(sections, settings.batch, settings.seed), batch_size=None),
            None if validation is None else DataLoader([whole(validation)], batch_size=None),
        )
    return Fitted(network.cpu().eval(), trainer.current_epoch, tuple(watch.curve))


def _network(sections: Sequence[Encoded], gene_text: GeneText, settings: Settings) -> DKAN:
    labels = torch.cat([s.section.labels for s in sections])
    network = DKAN(settings.config(labels.shape[1]), gene_text.features)
    network.label_mean.copy_(labels.mean(dim=0))
    # a gene that hardly varies must not become all noise
    network.label_std.copy_(labels.std(dim=0, unbiased=False).clamp_min(0.02))
    return network


class _Watch(Callback):
    """Records the validation curve, reports it, and stops when it has stopped rising."""

    def __init__(self, patience: int, report: Callable[[int, float], None] | None) -> None:
        self.curve: list[float] = []
        self.patience = patience
        self.report = report

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # validation runs inside the epoch, so its score is there by now
        value = trainer.callback_metrics.get("val_pcc")
        if value is not None:
            self.curve.append(float(value))
            best = max(range(len(self.curve)), key=self.curve.__getitem__)
            trainer.should_stop = len(self.curve) - 1 - best >= self.patience
        if self.report is not None:
            self.report(trainer.current_epoch + 1, float("nan") if value is None else float(value))


class _quiet(warnings.catch_warnings):
    """Lightning's advice on workers, loggers and hardware is not for the person training."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
