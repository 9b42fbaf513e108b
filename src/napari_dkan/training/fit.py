"""Fitting one network to some sections."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import CheckpointError, OutputError
from ..model.network import DKAN
from ..model.torchfile import read_torch_file
from .batches import SectionBatchDataset, make_section_batch
from .gene_text import GeneTextFeatures
from .hardware import TrainingHardware
from .module import DKANLightningModule
from .progress import CHECKPOINT_KEY, LAST_CHECKPOINT, EpochRecord, FitCallback, read_curve, is_patience_exhausted
from .sections import EncodedSection
from .settings import TrainSettings

SINGLE_DEVICE = TrainingHardware()
_NETWORK_PREFIX = "network."  # before the names of its tensors in a Lightning checkpoint


@dataclass(frozen=True)
class FittedNetwork:
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


def fit_network(
    sections: Sequence[EncodedSection],
    gene_text: GeneTextFeatures,
    settings: TrainSettings,
    validation: EncodedSection | Sequence[EncodedSection] | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
    *,
    folder: Path | None = None,
    hardware: TrainingHardware = SINGLE_DEVICE,
) -> FittedNetwork:
    """Train a network from scratch on sections; the same seed gives the same network on one CPU.

    validation : sections kept out of training; training stops when their mean PCC-ALL has not got
        better for ``settings.patience`` epochs. Without them it runs ``settings.epochs`` epochs.
    on_epoch : called after every epoch with its number from 1 and the last validation PCC-ALL
        (NaN without validation); not with several devices, which run in processes of their own.
    folder : keeps the last epoch and the curve; a fit that finds its own there goes on from it.

    Raises OutputError when the folder cannot be written; what was written before stays.
    """
    held_out = [validation] if isinstance(validation, EncodedSection) else list(validation or ())
    with _SuppressLightningWarnings(), _open_work_folder(folder) as where:
        pl.seed_everything(settings.seed, verbose=False)
        network = _build_network(sections, gene_text, settings)
        last = _load_last_checkpoint(where)
        before = [] if last is None else read_curve(last)
        if last is not None and (
            len(before) >= settings.epochs or is_patience_exhausted(before, settings.patience)
        ):  # it had come to its end
            network.load_state_dict({n[len(_NETWORK_PREFIX) :]: t for n, t in last["state_dict"].items()})
            return _make_fitted_network(network, before)
        report = on_epoch if hardware.devices == 1 else None
        keep = where if folder is not None or hardware.devices > 1 else None
        progress = FitCallback(settings.patience, settings.seed, keep, report)
        callbacks: list[Callback] = [progress]
        if settings.average > 0:
            mean = ExponentialMovingAverage(settings.average)
            callbacks.insert(0, WeightAveraging(use_buffers=True, multi_avg_fn=mean))
        trainer = pl.Trainer(
            default_root_dir=where,
            max_epochs=settings.epochs,
            callbacks=callbacks,
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            **hardware.trainer_options(),
        )
        trainer.fit(
            DKANLightningModule(network, settings),
            DataLoader(SectionBatchDataset(sections, settings.batch, settings.seed), batch_size=None),
            DataLoader([make_section_batch(v) for v in held_out], batch_size=None) if held_out else None,
            ckpt_path=None if last is None else where / LAST_CHECKPOINT,
            weights_only=True,
        )
        if hardware.devices == 1:
            return _make_fitted_network(network, progress.curve)
        # several devices record it in processes of their own
        return _make_fitted_network(network, read_curve(_load_last_checkpoint(where) or {}))


@dataclass(frozen=True)
class ExponentialMovingAverage:
    """Moves the averaged weights towards the current ones after every step."""

    decay: float

    @torch.no_grad()
    def __call__(
        self, averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int
    ) -> None:
        for mean, now in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(now.to(mean.device), 1 - self.decay)
            else:
                mean.copy_(now)


def _make_fitted_network(network: DKAN, curve: Sequence[EpochRecord]) -> FittedNetwork:
    values = tuple(e.val_pcc for e in curve if e.val_pcc == e.val_pcc)
    return FittedNetwork(network.cpu().eval(), len(curve), values)


def _build_network(sections: Sequence[EncodedSection], gene_text: GeneTextFeatures, settings: TrainSettings) -> DKAN:
    labels = torch.cat([s.section.labels for s in sections])
    network = DKAN(settings.network_config(labels.shape[1]), gene_text.features)
    network.label_mean.copy_(labels.mean(dim=0))
    # a gene that hardly varies must not become all noise
    network.label_std.copy_(labels.std(dim=0, unbiased=False).clamp_min(0.02))
    return network


def _load_last_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint of an interrupted fit.

    Raises CheckpointError when it is damaged.
    """
    path = folder / LAST_CHECKPOINT
    if not path.is_file():
        return None
    content: Any = read_torch_file(path)
    if not isinstance(content, dict) or CHECKPOINT_KEY not in content:
        raise CheckpointError(f"{path} is not of an interrupted training; remove it to start anew.")
    return content


@contextmanager
def _open_work_folder(folder: Path | None) -> Iterator[Path]:
    """The folder, made where it is not there; without one a temporary folder."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="napari-dkan-") as name:
            yield Path(name)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}); choose another.") from error
    yield folder


class _SuppressLightningWarnings(warnings.catch_warnings):
    """Lightning's advice on workers, loggers and hardware is not for the person training."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
