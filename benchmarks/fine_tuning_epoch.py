"""Seconds of an epoch of fine-tuning on a section of random numbers, that needs no file."""

from __future__ import annotations

import time
from copy import deepcopy

import numpy as np
import torch

from napari_dkan.expression.label_scale import LabelScale
from napari_dkan.model import Checkpoint
from napari_dkan.training.data.prepared_section import EncodedSection, PreparedSection
from napari_dkan.training.finetuning.finetune_settings import AdaptScope
from napari_dkan.training.finetuning.hold_out_split import Subset
from napari_dkan.training.finetuning.training_section import TrainingSection
from napari_dkan.training.finetuning.tuned_model import (
    FixedPart,
    TunedModel,
    compute_spot_tokens,
)


def random_section(checkpoint: Checkpoint, spots: int) -> TrainingSection:
    """A section of spots in memory whose labels say nothing."""
    config, px = checkpoint.network.config, checkpoint.patch.px
    draw = torch.Generator().manual_seed(0)
    at, side = torch.arange(spots), int(spots**0.5) + 1
    labels = torch.randn(spots, config.genes, generator=draw)
    section = PreparedSection(
        "random",
        labels,
        torch.stack([at % side, at // side], dim=1),
        torch.randint(0, 255, (spots, 3, px, px), dtype=torch.uint8, generator=draw),
        torch.zeros(spots, 25, 1),
        torch.ones(spots, 25, dtype=torch.bool),
        0.5,
        checkpoint.spot_pitch_um,
        checkpoint.spot_diameter_um,
    )
    features = torch.randn(spots, 25, config.feature_dim, generator=draw)
    return TrainingSection(
        EncodedSection(section, features),
        labels.numpy(),
        np.ones(config.genes, bool),
        np.arange(spots),
        spots,
        LabelScale(),
    )


def seconds_of_epochs(checkpoint: Checkpoint, device: str, spots: int) -> dict[str, float]:
    """Seconds of the second epoch of the decoder and of everything, and of the tokens before."""
    section = random_section(checkpoint, spots)
    network = deepcopy(checkpoint.network).to(device)
    found: dict[str, float] = {}
    for _ in range(2):  # the first ones wake the machine up
        start = time.perf_counter()
        tokens = compute_spot_tokens(network, [section])
        _wait(device)
        found["tokens of all spots"] = time.perf_counter() - start
    fixed = FixedPart.of_network(network, tokens)
    rows = np.arange(spots)
    subset = Subset((rows,), (section.unsmoothed_labels,), (np.zeros(spots),))
    for scope in (AdaptScope.decoder, AdaptScope.everything):
        model = TunedModel(network, tokens, [section], subset, fixed, scope, None, 0)
        for _ in range(2):
            start = time.perf_counter()
            model.train_epoch()
            _wait(device)
            found[scope.value] = time.perf_counter() - start
    return found


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
