"""What settings ask for, fitted to some sections: an encoder and a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..inference.device import pick_device
from ..model.ensemble import Ensemble, combine_members
from ..model.network import DKAN
from .batches import predict_batch, make_section_batch
from .fit import SINGLE_DEVICE, fit_network
from .gene_text import GeneTextFeatures
from .hardware import TrainingHardware
from .sections import PreparedSection, SectionEncoder, encode_section, fit_section_encoder
from .settings import TrainSettings

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
            return predict_batch(network, make_section_batch(encode_section(section, self.encoder))).cpu().numpy()
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
