"""Reference statistics of the training sections that are stored in a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import SpotsError
from ...inference.device import pick_device
from ...inference.tile_qc_features import QC_FEATURE_NAMES, compute_network_qc, compute_pixel_qc
from ...model.checkpoint.checkpoint_file import Checkpoint
from ...model.checkpoint.training_reference import (
    DISTANCE_FEATURE,
    TrainingReference,
    compute_quantiles,
    compute_whitened_distance,
    fit_whitening,
)
from ...model.encoders import STAIN_ENCODER
from ...model.network.dkan_network import DKAN
from ...model.network.ensemble import Ensemble
from ...model.ridge_regression import RidgeRegression, compute_multi_scale_features
from ..baselines.linear_baselines import fit_ridge_cv
from ..data.frozen_features import FrozenEncoder
from ..data.measured_section import rename_to_panel_symbols
from ..data.prepared_section import NEIGHBOR_GRID, EncodedSection, SectionEncoder, encode_section
from ..data.section_batches import make_section_batch
from ..data.section_loading import load_section, read_section_data
from ..train_settings import TrainSettings

CHUNK_SPOTS = 64  # spots at once

FloatMatrix32 = NDArray[np.float32]
LogFunction = Callable[[str], None]


def build_reference(
    sections: Sequence[EncodedSection], network: DKAN | Ensemble, tissue: str = ""
) -> TrainingReference:
    """What the network was trained on; the ridge is the one it is compared with.

    tissue : organ and species in words.
    """
    seen = [compute_qc_features(section, network) for section in sections]
    tokens = np.concatenate([tokens for _, tokens in seen])
    mean, axes = fit_whitening(tokens)
    noted = [np.c_[found, compute_whitened_distance(tokens, mean, axes)] for found, tokens in seen]
    return TrainingReference(
        n_spots=len(tokens),
        feature_names=(*QC_FEATURE_NAMES, DISTANCE_FEATURE),
        feature_quantiles=compute_quantiles(list(np.concatenate(noted).T)),
        slide_names=tuple(s.section.name for s in sections),
        slide_means=np.stack([n.mean(axis=0) for n in noted]).astype(np.float32),
        slide_mpp=tuple(s.section.mpp for s in sections),
        token_mean=mean,
        token_axes=axes,
        ridge=_fit_reference_ridge(sections, network.config.grid),
        tissue=tissue,
    )


@torch.no_grad()
def compute_qc_features(
    encoded: EncodedSection, network: DKAN | Ensemble
) -> tuple[FloatMatrix32, FloatMatrix32]:
    """What is noted of N spots while they are predicted, (N, E), and their fused tokens (N, D)."""
    mode = network.training
    network.eval()
    try:
        batch = make_section_batch(encoded)
        context = network.encode_global(batch["slide_features"], batch["positions"])
        near = network.standardize_by_slide(batch["neighbor_features"], batch["slide_features"])
        tokens, found = [], []
        for start in range(0, len(context), CHUNK_SPOTS):
            s = slice(start, start + CHUNK_SPOTS)
            fused = network.fuse(
                batch["patches"][s], near[s], batch["neighbor_mask"][s], context[s]
            )
            tokens.append(fused.z.numpy())
            found.append(compute_network_qc(network, fused, context[s]).numpy())
    finally:
        network.train(mode)
    pixels = compute_pixel_qc(encoded.section.patches.permute(0, 2, 3, 1).contiguous().numpy())
    return np.c_[pixels, np.concatenate(found)], np.concatenate(tokens)


def _fit_reference_ridge(sections: Sequence[EncodedSection], grid: int) -> RidgeRegression | None:
    if grid != NEIGHBOR_GRID:
        return None
    return fit_ridge_cv(
        [
            compute_multi_scale_features(s.neighbor_features.numpy(), s.section.mask.numpy())
            for s in sections
        ],
        [s.section.labels.numpy() for s in sections],
    )


def add_reference(
    checkpoint: Checkpoint,
    data: str | Path,
    names: Sequence[str] | None,
    *,
    tissue: str = "",
    encoder_weights: Path | None = None,
    log: LogFunction = lambda line: None,
) -> Checkpoint:
    """The checkpoint with a reference of the sections it was trained on; it is not written.

    Raises SpotsError when a section is another one, or lacks genes of the panel.
    """
    encoder = checkpoint.build_tile_encoder(encoder_weights)
    named = None
    if checkpoint.encoder.name != STAIN_ENCODER:
        device = pick_device()
        named = FrozenEncoder(encoder.to(device), device)
    settings = TrainSettings(
        patch_px=checkpoint.patch.px, patch_um=checkpoint.patch.um, augmentation=None
    )
    trained_on = _training_slide_fingerprints(checkpoint)
    sections = []
    for part in read_section_data(data, names):
        section = load_section(
            rename_to_panel_symbols(part, checkpoint.panel),
            checkpoint.panel,
            settings,
            named,
            checkpoint.label_scale,
            checkpoint.stain,
        )
        if trained_on and section.slide not in trained_on.values():
            raise SpotsError(
                f"{section.name} is not among the sections the checkpoint was trained on "
                f"({', '.join(trained_on)}); a reference describes those."
            )
        log(f"{section.name}: {len(section)} spots")
        sections.append(encode_section(section, cast(SectionEncoder, encoder)))
    made = build_reference(sections, checkpoint.network, tissue)
    return replace(checkpoint, reference=made, sha256="", path=None)


def _training_slide_fingerprints(checkpoint: Checkpoint) -> dict[str, str]:
    """Fingerprints of the training slides by section, as far as the card has them."""
    data = checkpoint.card.get("training_data")
    prints = data.get("slide_fingerprints") if isinstance(data, dict) else None
    return prints if isinstance(prints, dict) else {}


def read_reliability_report(path: str | Path) -> dict[str, Any]:
    """For the card, from the report of benchmarks/reliability.py: how well a score tells errors.

    Raises SpotsError when it is not one.
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        score, rival = report["score"], report["alone"]["predicted little"]
        kept = score["mse_of_the_most_reliable"]
        ratios = list(score["their_error_over_the_average"].values())
        return {
            "protocol": "sections predicted by networks that never saw them; parts of the score "
            "chosen on the other sections; 0 is a random order of the spots, 1 knowing the errors",
            "gain": report["nested_gain_mse_mean"],
            "gain_sd_over_sections": report["nested_gain_mse_sd"],
            "gain_by_predicted_level_alone": rival["gain_mse_mean"],
            "mse_of_all_spots": _rounded_mean(kept["100%"]),
            "mse_of_the_most_reliable_half": _rounded_mean(kept["50%"]),
            "mse_of_unreliable_spots_over_average": _rounded_mean(ratios),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpotsError(
            f"{path} is not the report of a reliability measurement; make it with "
            "benchmarks/reliability.py."
        ) from error


def _rounded_mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 3)
