"""Leave one section out: DKAN beside its baselines, on the same split and the same features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import SpotsError
from .batches import predicted_by, whole
from .fit import fit
from .gene_text import GeneText
from .metrics import Scores, score
from .ridge import choose_ridge, multi_scale
from .sections import Encoded, Section, encode, fit_encoder
from .settings import Settings

PROTOCOL = (
    "leave one section out; in each fold encoder, label standardisation and ridge penalty come "
    "from the training sections, and the number of epochs from a network trained on all but one "
    "of the training sections and validated on that one; the network is then trained on all "
    "training sections for that many epochs; the test section is used once, for the scores"
)


@dataclass(frozen=True)
class CrossValidation:
    """Scores of each method over all sections as test section, and the epochs of each fold."""

    scores: dict[str, Scores]
    epochs: tuple[int, ...]

    def report(self) -> dict[str, Any]:
        """The numbers for a card or a report file."""
        return {
            "protocol": PROTOCOL,
            "epochs_per_fold": list(self.epochs),
            **{method: scores.summary() for method, scores in self.scores.items()},
        }


def leave_one_section_out(
    sections: Sequence[Section],
    gene_text: GeneText,
    settings: Settings,
    log: Callable[[str], None] = lambda line: None,
) -> CrossValidation:
    """DKAN, ridge on the same features, and the training mean, each section tested once.

    Raises SpotsError with fewer than three sections: one is tested, one validates.
    """
    if len(sections) < 3:
        raise SpotsError(
            f"Leave-one-section-out takes at least 3 sections, not {len(sections)}; "
            "give more, or train without it."
        )
    predicted: dict[str, dict[str, Any]] = {"dkan": {}, "ridge": {}, "training_mean": {}}
    epochs = []
    for i, test in enumerate(sections):
        training = [s for s in sections if s is not test]
        # the section after the test section validates: each does so once
        validation = sections[(i + 1) % len(sections)]
        best = choose_epochs(training, validation, gene_text, settings)
        epochs.append(best)
        encoder = fit_encoder(training, settings.dim, settings.patch_um)
        encoded = [encode(s, encoder) for s in training]
        target = encode(test, encoder)
        network = fit(encoded, gene_text, replace(settings, epochs=best)).network
        batch = whole(target)
        final = predicted_by(network, batch)
        labels = [s.labels.numpy() for s in training]
        ridge = choose_ridge([_inputs(e) for e in encoded], labels)
        predicted["dkan"][test.name] = final.numpy()
        predicted["ridge"][test.name] = ridge.predict(_inputs(target))
        mean = np.concatenate(labels).mean(axis=0)
        predicted["training_mean"][test.name] = np.tile(mean, (len(test), 1))
        measured = {s.name: s.labels.numpy() for s in sections[: i + 1]}
        so_far = {m: score(p, measured).summary() for m, p in predicted.items()}
        log(
            f"{test.name} ({len(test)} spots): {best} epochs chosen on {validation.name}, PCC-ALL "
            f"DKAN {so_far['dkan']['pcc_all_per_section'][test.name]:.3f}, ridge "
            f"{so_far['ridge']['pcc_all_per_section'][test.name]:.3f} (penalty {ridge.penalty:g})"
        )
    measured = {s.name: s.labels.numpy() for s in sections}
    return CrossValidation(
        {method: score(p, measured) for method, p in predicted.items()}, tuple(epochs)
    )


def choose_epochs(
    training: Sequence[Section], validation: Section, gene_text: GeneText, settings: Settings
) -> int:
    """How long to train: on all training sections but validation, scored on validation."""
    rest = [s for s in training if s is not validation]
    encoder = fit_encoder(rest, settings.dim, settings.patch_um)
    fitted = fit(
        [encode(s, encoder) for s in rest], gene_text, settings, encode(validation, encoder)
    )
    return fitted.best_epoch


def _inputs(encoded: Encoded) -> Any:
    return multi_scale(encoded.features.numpy(), encoded.section.mask.numpy())
