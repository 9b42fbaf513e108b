"""What settings ask for, fitted to some sections: an encoder and a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..inference.device import pick_device
from ..model.ensemble import Ensemble, together
from ..model.network import DKAN
from .batches import predicted_by, whole
from .fit import ONE_DEVICE, fit
from .gene_text import GeneText
from .hardware import Hardware
from .sections import Section, SectionEncoder, encode, fit_encoder
from .settings import Settings

OnEpoch = Callable[[int, float], None]


@dataclass(frozen=True)
class Model:
    """A tile encoder and the network, or the ensemble, behind it."""

    encoder: SectionEncoder
    network: DKAN | Ensemble

    def predict(self, section: Section) -> NDArray[np.float32]:
        """(N, G) on the label scale, on the best device there is."""
        network = self.network.to(pick_device())
        try:
            return predicted_by(network, whole(encode(section, self.encoder))).cpu().numpy()
        finally:
            network.cpu()


def choose_epochs(
    fitting: Sequence[Section],
    validation: Sequence[Section],
    gene_text: GeneText,
    settings: Settings,
    *,
    folder: Path | None = None,
    hardware: Hardware = ONE_DEVICE,
    on_epoch: OnEpoch | None = None,
) -> int:
    """How long to train: on these sections, scored on those held out of them."""
    encoder = fit_encoder(fitting, settings.dim, settings.patch_um)
    return fit(
        [encode(s, encoder) for s in fitting],
        gene_text,
        settings,
        [encode(s, encoder) for s in validation],
        on_epoch,
        folder=folder,
        hardware=hardware,
    ).best_epoch


def fit_model(
    sections: Sequence[Section],
    gene_text: GeneText,
    settings: Settings,
    epochs: int,
    *,
    folder: Path | None = None,
    hardware: Hardware = ONE_DEVICE,
    on_epoch: OnEpoch | None = None,
) -> Model:
    """Encoder and network on all of these sections, for this many epochs.

    Members of an ensemble share the encoder and differ in their seed, and so in first weights,
    dropout, views and order of the spots.
    """
    encoder = fit_encoder(sections, settings.dim, settings.patch_um)
    encoded = [encode(s, encoder) for s in sections]
    networks = [
        fit(
            encoded,
            gene_text,
            replace(settings, epochs=epochs, seed=seed),
            on_epoch=on_epoch,
            folder=folder and folder / f"member-{number}",
            hardware=hardware,
        ).network
        for number, seed in enumerate(member_seeds(settings), start=1)
    ]
    return Model(encoder, together(networks))


def member_seeds(settings: Settings) -> list[int]:
    """A seed for each member; far apart, so that runs with neighbouring seeds share none."""
    return [settings.seed + 1000 * i for i in range(settings.members)]
