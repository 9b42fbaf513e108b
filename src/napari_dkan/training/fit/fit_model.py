"""Fit a tile encoder and a network or ensemble to sections, on one or several devices."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
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
from ...inference.device_choice import pick_device
from ...model.network.ensemble import combine_members
from ...model.network.network_interface import ExpressionNetwork
from ...model.tensor_files import read_torch_file
from ..data.prepared_section import (
    EncodedSection,
    PreparedSection,
    SectionEncoder,
    encode_section,
    fit_section_encoder,
)
from ..data.section_batches import (
    SectionBatchDataset,
    make_section_batch,
    make_validation_batch,
    predict_batch,
)
from ..gene_text import GeneTextFeatures
from ..network_shapes import make_network_config
from ..train_settings import Precision, TrainSettings
from .depth_residuals import fit_depth_path, remove_depth
from .fit_callback import (
    CHECKPOINT_KEY,
    EpochCallback,
    EpochRecord,
    FitCallback,
    find_best_epoch,
    is_patience_exhausted,
    read_curve,
)
from .method_modules import build_untrained_network, make_lightning_module
from .run_folder import LAST_CHECKPOINT


@dataclass(frozen=True)
class TrainingHardware:
    """Devices and precision of a fit.

    Attributes
    ----------
    devices
        Number of GPUs, or of processes on a machine without one. Several take different batches
        and average their gradients (DDP), so a step has ``devices`` times the batch.
    precision
        Precision of the forward pass.
    """

    devices: int = 1
    precision: Precision = Precision.auto

    def trainer_options(self) -> dict[str, Any]:
        """Make the arguments of a Lightning Trainer.

        Raises
        ------
        DkanError
            When there are fewer GPUs, or the precision needs one.
        """
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

            # sections hold tensors that share memory, whose file descriptors cannot be sent twice
            torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
            # spawned processes allow the rest of a longer run to stay in this process;
            # without the contrastive loss the expression branch has no gradient
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
    """A trained network.

    Attributes
    ----------
    network
        The network in eval mode, on the CPU.
    curve
        Loss and validation scores of each epoch; the scores are NaN without a validation section.
    """

    network: ExpressionNetwork
    curve: tuple[EpochRecord, ...]

    @property
    def epochs(self) -> int:
        """Number of epochs it was trained."""
        return len(self.curve)

    @property
    def best_epoch(self) -> int:
        """Epoch of the best validation score, from 1; 0 without validation."""
        return find_best_epoch(self.curve)


def fit_network(
    sections: Sequence[EncodedSection],
    gene_text: GeneTextFeatures,
    settings: TrainSettings,
    validation: EncodedSection | Sequence[EncodedSection] | None = None,
    on_epoch: EpochCallback | None = None,
    *,
    folder: Path | None = None,
    hardware: TrainingHardware = SINGLE_DEVICE,
) -> FittedNetwork:
    """Train a network from scratch; the same seed gives the same network on one CPU.

    Parameters
    ----------
    validation
        Sections that are not trained on; training stops when their mean depth-partial PCC has
        not improved for ``settings.patience`` epochs. Without them it runs ``settings.epochs``
        epochs.
    on_epoch
        Called after every epoch; not with several devices, whose processes are separate.
    folder
        Folder of the last checkpoint and the curve; a fit that finds its checkpoint there resumes.

    Raises
    ------
    OutputError
        When the folder cannot be written; earlier files stay.
    SpotsError
        When an auxiliary loss needs gene text and there is none.
    """
    held_out = [validation] if isinstance(validation, EncodedSection) else list(validation or ())
    # a third of a step's time would go into patches nobody reads
    if not make_network_config(settings, genes=1).sees_pixels:
        sections = list(map(_without_pixels, sections))
        held_out = list(map(_without_pixels, held_out))
    with _SuppressLightningWarnings(), _open_work_folder(folder) as work_folder:
        pl.seed_everything(settings.seed, verbose=False)
        network = build_untrained_network(sections, gene_text, settings)
        checkpoint = _load_last_checkpoint(work_folder)
        curve = [] if checkpoint is None else read_curve(checkpoint)
        if checkpoint is not None and (
            len(curve) >= settings.epochs or is_patience_exhausted(curve, settings.patience)
        ):  # the fit was finished
            tensors = checkpoint["state_dict"].items()  # also those of auxiliary losses
            network.load_state_dict(
                {
                    n.removeprefix(_NETWORK_PREFIX): t
                    for n, t in tensors
                    if n.startswith(_NETWORK_PREFIX)
                }
            )
            return _make_fitted_network(network, curve)
        checkpoint_folder = work_folder if folder is not None or hardware.devices > 1 else None
        progress = FitCallback(
            settings.patience,
            settings.seed,
            checkpoint_folder,
            on_epoch if hardware.devices == 1 else None,
        )
        callbacks: list[Callback] = [progress]
        if settings.average > 0:
            average = ExponentialMovingAverage(settings.average)
            callbacks.insert(0, WeightAveraging(use_buffers=True, multi_avg_fn=average))
        validation_batches: Any = [make_validation_batch(v) for v in held_out]
        trainer = pl.Trainer(
            default_root_dir=work_folder,
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
            make_lightning_module(network, settings, gene_text),
            DataLoader(
                SectionBatchDataset(sections, settings.batch, settings.seed), batch_size=None
            ),
            DataLoader(validation_batches, batch_size=None) if held_out else None,
            ckpt_path=None if checkpoint is None else work_folder / LAST_CHECKPOINT,
            weights_only=True,
        )
        if hardware.devices == 1:
            return _make_fitted_network(network, progress.curve)
        # with several devices only the checkpoint has the curve
        return _make_fitted_network(network, read_curve(_load_last_checkpoint(work_folder) or {}))


@dataclass(frozen=True)
class ExponentialMovingAverage:
    """Update of averaged weights: mean <- decay * mean + (1 - decay) * current."""

    decay: float

    @torch.no_grad()
    def __call__(
        self, averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int
    ) -> None:
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value.to(mean.device), 1 - self.decay)
            else:
                mean.copy_(value)


def _without_pixels(encoded: EncodedSection) -> EncodedSection:
    """Drop the patches of a section and its views."""
    section = replace(encoded.section, patches=encoded.section.patches[..., :0, :0])
    return replace(encoded, section=section, views=tuple(map(_without_pixels, encoded.views)))


def _make_fitted_network(network: ExpressionNetwork, curve: Sequence[EpochRecord]) -> FittedNetwork:
    return FittedNetwork(network.cpu().eval(), tuple(curve))


def _load_last_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Load the last checkpoint of an interrupted fit; raises CheckpointError when damaged."""
    path = folder / LAST_CHECKPOINT
    if not path.is_file():
        return None
    content: Any = read_torch_file(path)
    if not isinstance(content, dict) or CHECKPOINT_KEY not in content:
        raise CheckpointError(f"{path} is not of an interrupted training; remove it to start anew.")
    return content


@contextmanager
def _open_work_folder(folder: Path | None) -> Iterator[Path]:
    """Create the folder; without one make a temporary folder."""
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
    """Hide Lightning's advice on workers, loggers and hardware, which does not concern users."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@dataclass(frozen=True)
class FittedModel:
    """A tile encoder and a network or ensemble."""

    encoder: SectionEncoder
    network: ExpressionNetwork

    @property
    def n_numbers(self) -> int:
        """Number of parameters and buffers of all members, without the tile encoder."""
        return sum(t.numel() for t in self.network.state_dict().values())

    def predict(self, section: PreparedSection) -> NDArray[np.float32]:
        """Predict a section on the best device: (N, G) on the label scale."""
        batch = make_section_batch(encode_section(section, self.encoder))
        network = self.network.to(pick_device())
        try:
            return predict_batch(network, batch).cpu().numpy()
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
    """Choose the number of epochs: train on some sections and score on the validation sections.

    The score is the depth-partial PCC, which depth cannot earn; PCC-ALL stands beside it in the
    curve (with depth residuals as labels, it is that of the residuals).
    """
    encoder = fit_section_encoder(training, settings.dim, settings.patch_um)
    if settings.depth_residual:
        training, validation = remove_depth(training), remove_depth(validation)
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
    """Fit an encoder and a network or ensemble to sections, for a fixed number of epochs.

    Members of an ensemble share the encoder and differ in their seed, and so in initial weights,
    dropout, views and order of the spots. With depth residuals as labels, a linear path beside
    them restores the label scale.
    """
    encoder = fit_section_encoder(sections, settings.dim, settings.patch_um)
    labelled = remove_depth(sections) if settings.depth_residual else sections
    encoded = [encode_section(s, encoder) for s in labelled]
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
    if not settings.depth_residual:
        return FittedModel(encoder, combine_members(networks))
    linear = fit_depth_path(
        [encode_section(s, encoder) for s in sections],
        networks,
        settings.depth_share,
        settings.ridge_share,
    )
    return FittedModel(encoder, combine_members(networks, linear))


def make_member_seeds(settings: TrainSettings) -> list[int]:
    """Make a seed for each member; far apart, so that runs with adjacent seeds share none."""
    return [settings.seed + 1000 * i for i in range(settings.members)]
