"""Reference statistics of the training sections that are stored in a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import SpotsError
from ...inference.section_choices import FROM_FILES, SectionChoices, open_section_slide
from ...inference.tile_qc_features import QC_FEATURE_NAMES, compute_network_qc, compute_pixel_qc
from ...model.checkpoint.checkpoint_file import Checkpoint
from ...model.checkpoint.training_reference import (
    DISTANCE_FEATURE,
    TrainingReference,
    compute_quantiles,
    compute_whitened_distance,
    fit_whitening,
)
from ...model.network.network_interface import ExpressionNetwork
from ...model.ridge_regression import RidgeRegression
from ..baselines import fit_ridge_cv, multi_scale_tile_features
from ..data.measured_section import select_panel_genes
from ..data.prepared_section import NEIGHBOR_GRID, EncodedSection
from ..data.section_batches import fuse_section
from ..data.section_loading import CheckpointSectionReader, read_section_data
from ..train_settings import LogFunction, ignore_log

CHUNK_SPOTS = 64  # spots per forward pass

Float32Matrix = NDArray[np.float32]


def build_reference(
    sections: Sequence[EncodedSection], network: ExpressionNetwork, tissue: str = ""
) -> TrainingReference:
    """Compute the reference of a network's training sections, with a ridge regression.

    Parameters
    ----------
    tissue
        Organ and species in words.
    """
    features_and_tokens = [compute_qc_features(section, network) for section in sections]
    tokens = np.concatenate([tokens for _, tokens in features_and_tokens])
    mean, axes = fit_whitening(tokens)
    features = [
        np.c_[qc, compute_whitened_distance(tokens, mean, axes)]
        for qc, tokens in features_and_tokens
    ]
    return TrainingReference(
        n_spots=len(tokens),
        feature_names=(*QC_FEATURE_NAMES, DISTANCE_FEATURE),
        feature_quantiles=compute_quantiles(list(np.concatenate(features).T)),
        slide_names=tuple(s.section.name for s in sections),
        slide_means=np.stack([f.mean(axis=0) for f in features]).astype(np.float32),
        slide_mpp=tuple(s.section.mpp for s in sections),
        token_mean=mean,
        token_axes=axes,
        ridge=_fit_reference_ridge(sections, network.config.grid),
        tissue=tissue,
    )


@torch.no_grad()
def compute_qc_features(
    encoded: EncodedSection, network: ExpressionNetwork
) -> tuple[Float32Matrix, Float32Matrix]:
    """Compute the quality-control features (N, E) of N spots, and their fused tokens (N, D).

    Of the tokens those of the networks, without what follows of a linear path.
    """
    is_training = network.training
    network.eval()
    try:
        tokens, network_features = [], []
        row_chunks = torch.split(torch.arange(len(encoded.section)), CHUNK_SPOTS)
        for chunk in fuse_section(network, encoded, row_chunks):
            tokens.append(chunk.fused.z[:, : network.config.members_dim].numpy())
            network_features.append(compute_network_qc(network, chunk.fused, chunk.context).numpy())
    finally:
        network.train(is_training)
    pixels = compute_pixel_qc(encoded.section.patches.permute(0, 2, 3, 1).contiguous().numpy())
    return np.c_[pixels, np.concatenate(network_features)], np.concatenate(tokens)


def _fit_reference_ridge(sections: Sequence[EncodedSection], grid: int) -> RidgeRegression | None:
    if grid != NEIGHBOR_GRID:
        return None
    return fit_ridge_cv(
        [multi_scale_tile_features(s) for s in sections],
        [s.section.labels.numpy() for s in sections],
    )


def add_reference(
    checkpoint: Checkpoint,
    data: str | Path,
    names: Sequence[str] | None,
    *,
    tissue: str = "",
    encoder_weights: Path | None = None,
    choices: SectionChoices = FROM_FILES,
    log: LogFunction = ignore_log,
) -> Checkpoint:
    """Add a reference of its training sections to a checkpoint; it is not written.

    Raises
    ------
    SpotsError
        When a section is not one of the training sections, or lacks genes of the panel.
    """
    reader = CheckpointSectionReader(checkpoint, encoder_weights)
    fingerprints = _training_slide_fingerprints(checkpoint)
    sections = []
    for data_section in read_section_data(data, names, choices):
        selected, *_ = select_panel_genes(data_section, checkpoint.panel)
        with open_section_slide(data_section.uns) as slide:
            fingerprint = slide.fingerprint()
        if fingerprints and fingerprint not in fingerprints.values():
            raise SpotsError(
                f"{data_section.uns['section']} is not among the sections the checkpoint was "
                f"trained on ({', '.join(fingerprints)}); a reference describes those."
            )
        encoded = reader.read(selected, checkpoint.panel)
        log(f"{encoded.section.name}: {len(encoded.section)} spots")
        sections.append(encoded)
    reference = build_reference(sections, checkpoint.network, tissue)
    return replace(checkpoint, reference=reference, sha256="", path=None)


def _training_slide_fingerprints(checkpoint: Checkpoint) -> dict[str, str]:
    """Fingerprints of the training slides by section, where the card has them."""
    data = checkpoint.card.get("training_data")
    fingerprints = data.get("slide_fingerprints") if isinstance(data, dict) else None
    return fingerprints if isinstance(fingerprints, dict) else {}


def read_reliability_report(path: str | Path) -> dict[str, Any]:
    """Read the card's entry on reliability from a report of benchmarks/reliability.py.

    Raises
    ------
    SpotsError
        When the file is no such report.
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        score, nested = report["score"], report["nested"]
        kept = score["partial_pcc_of_the_most_reliable"]
        return {
            "protocol": "sections predicted by networks that never saw them; parts of the score "
            "chosen on the other sections; error of a spot: squared error of the depth residuals "
            "over the genes; gain: 0 is a random order of the spots, 1 knowing the errors",
            "gain": nested["gain_mean"],
            "gain_sd_over_sections": nested["gain_sd"],
            "gain_beyond_counting_noise": score["gain_beyond_noise_mean"],
            "gain_by_counting_noise_alone": report["noise_alone"]["gain_mean"],
            "gain_by_predicted_level_alone": report["alone"]["predicted little"]["gain_mean"],
            "gain_of_plain_error": report["nested_plain"]["gain_mean"],
            "depth_partial_pcc_of_all_spots": _rounded_mean(kept["100%"]),
            "depth_partial_pcc_of_the_most_reliable_half": _rounded_mean(kept["50%"]),
            "error_of_unreliable_spots_over_average": _rounded_mean(
                list(score["their_error_over_the_average"].values())
            ),
            "error_beyond_noise_of_unreliable_spots_over_average": _rounded_mean(
                list(score["their_error_beyond_noise_over_the_average"].values())
            ),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpotsError(
            f"{path} is not the report of a reliability measurement; make it with "
            "benchmarks/reliability.py."
        ) from error


def _rounded_mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 3)
