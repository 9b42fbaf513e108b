"""Fit a tile encoder and a network or ensemble to sections, on one or several devices."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ...errors import CheckpointError, DkanError, OutputError
from ...inference.device import pick_device
from ...model.network.dkan_network import DKAN
from ...model.network.ensemble import Ensemble, combine_members
from ...model.tensor_files import read_torch_file
from ..data.prepared_section import (
    EncodedSection,
    PreparedSection,
    SectionEncoder,
    encode_section,
    fit_section_encoder,
)
from ..data.section_batches import SectionBatchDataset, make_section_batch, predict_batch
from ..genes.gene_text import GeneTextFeatures
from ..option_choices import Precision
from ..train_settings import TrainSettings
from .fit_callback import (
    CHECKPOINT_KEY,
    LAST_CHECKPOINT,
    EpochRecord,
    FitCallback,
    is_patience_exhausted,
    read_curve,
)
from .lightning_module import DKANLightningModule


@dataclass(frozen=True)
class TrainingHardware:
    """devices : GPUs where there are any, else processes on the CPU; above 1 they share each step.

    With several, every one takes other batches and their gradients are averaged (DDP), so a step
    sees ``devices`` times the batch.
    """

    devices: int = 1
    precision: Precision = Precision.auto

    def trainer_options(self) -> dict[str, Any]:
        """Arguments of a Lightning Trainer. Raises DkanError when there are not as many GPUs."""
        gpus = torch.cuda.device_count()
        if gpus and self.devices > gpus:
            raise DkanError(f"There are {gpus} GPUs, not {self.devices}; give --devices {gpus}.")
        options: dict[str, Any] = {
            "accelerator": "cuda" if gpus else "cpu",
            "devices": self.devices,
            "precision": self._lightning_precision(bool(gpus)),
        }
        if self.devices > 1:
            from lightning.pytorch.strategies import DDPStrategy

            # sections hold tensors that share memory, whose descriptors cannot be passed on twice
            torch.multiprocessing.set_sharing_strategy("file_system")
            # spawned, so that a fold of a longer run can be shared out and the rest not;
            # without contrast the expression path has no gradient
            options["strategy"] = DDPStrategy(
                start_method="spawn",
                find_unused_parameters=True,
                process_group_backend="nccl" if gpus else "gloo",
            )
            options["sync_batchnorm"] = bool(gpus)
        return options

    def _lightning_precision(self, gpu: bool) -> str:
        chosen = self.precision
        if chosen is Precision.auto:
            if not gpu:
                chosen = Precision.float32
            else:
                chosen = Precision.bfloat16 if torch.cuda.is_bf16_supported() else Precision.float16
        if chosen is Precision.float16 and not gpu:
            raise DkanError("16 bits need a GPU; give --precision 32 or bf16.")
        return {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}[chosen.value]


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
            network.load_state_dict(
                {n[len(_NETWORK_PREFIX) :]: t for n, t in last["state_dict"].items()}
            )
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
            DataLoader(
                SectionBatchDataset(sections, settings.batch, settings.seed), batch_size=None
            ),
            DataLoader([make_section_batch(v) for v in held_out], batch_size=None)
            if held_out
            else None,
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


def _build_network(
    sections: Sequence[EncodedSection], gene_text: GeneTextFeatures, settings: TrainSettings
) -> DKAN:
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


EpochCallback = Callable[[int, float], None]


@dataclass(frozen=True)
class FittedModel:
    """A tile encoder and the network, or the ensemble, behind it."""

    encoder: SectionEncoder
    network: DKAN | Ensemble

    def predict(self, section: PreparedSection) -> NDArray[np.float32]:
        """(N, G) on the label scale, on the best device there is."""
        network = self.network.to(pick_device())
        try:
            return (
                predict_batch(network, make_section_batch(encode_section(section, self.encoder)))
                .cpu()
                .numpy()
            )
        finally:
            network.cpu()


def choose_epochs(
    training: Sequence[PreparedSection],
    validation: Sequence[PreparedSection],
    gene_text: GeneTextFeatures,
    settings: TrainSettings,
    *,
    folder: Path | None = None,
    hardware: TrainingHardware = SINGLE_DEVICE,
    on_epoch: EpochCallback | None = None,
) -> int:
    """How long to train: on these sections, scored on those held out of them."""
    encoder = fit_section_encoder(training, settings.dim, settings.patch_um)
    return fit_network(
        [encode_section(s, encoder) for s in training],
        gene_text,
        settings,
        [encode_section(s, encoder) for s in validation],
        on_epoch,
        folder=folder,
        hardware=hardware,
    ).best_epoch


def fit_model(
    sections: Sequence[PreparedSection],
    gene_text: GeneTextFeatures,
    settings: TrainSettings,
    epochs: int,
    *,
    folder: Path | None = None,
    hardware: TrainingHardware = SINGLE_DEVICE,
    on_epoch: EpochCallback | None = None,
) -> FittedModel:
    """Encoder and network on all of these sections, for this many epochs.

    Members of an ensemble share the encoder and differ in their seed, and so in first weights,
    dropout, views and order of the spots.
    """
    encoder = fit_section_encoder(sections, settings.dim, settings.patch_um)
    encoded = [encode_section(s, encoder) for s in sections]
    networks = [
        fit_network(
            encoded,
            gene_text,
            replace(settings, epochs=epochs, seed=seed),
            on_epoch=on_epoch,
            folder=folder and folder / f"member-{number}",
            hardware=hardware,
        ).network
        for number, seed in enumerate(make_member_seeds(settings), start=1)
    ]
    return FittedModel(encoder, combine_members(networks))


def make_member_seeds(settings: TrainSettings) -> list[int]:
    """A seed for each member; far apart, so that runs with neighbouring seeds share none."""
    return [settings.seed + 1000 * i for i in range(settings.members)]
