"""What a prediction was made by, as it travels with every file written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .. import __version__
from .engine import Predictor
from .target import Target

if TYPE_CHECKING:
    from ..model import Checkpoint
    from .zero_shot import ZeroShotGenes


def build_provenance(predictor: Predictor, target: Target, mpp_origin: str) -> dict[str, Any]:
    """JSON-able record of version, checkpoint, slide, scale and parameters."""
    checkpoint, slide = predictor.checkpoint, predictor.slide
    encoder = predictor.feature_cache.encoder_spec
    pitch = target.grid.pitch_um if target.grid else target.spots.pitch_um
    return {
        "kind": "predicted",
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": checkpoint.card.get("title", ""),
        "checkpoint_sha256": checkpoint.sha256,
        "label_scale": checkpoint.label_scale.name,
        "encoder": encoder.name,
        "encoder_revision": encoder.revision,
        "encoder_sha256": encoder.sha256,
        "stain": "none" if checkpoint.stain is None else checkpoint.stain.method,
        "slide": slide.label,
        "slide_fingerprint": slide.fingerprint(),
        "slide_colours": slide.color_conversion or "as stored",
        "mpp": predictor.mpp,
        "mpp_origin": mpp_origin,
        "patch_um": checkpoint.patch.um,
        "pitch_um": checkpoint.spot_pitch_um if pitch is None else pitch,
        "where": str(target.kind),
        **({} if predictor.precomputed_features is None else {"features": predictor.precomputed_features.to_provenance()}),
        "device": str(predictor.device),
    }


def build_zero_shot_record(checkpoint: Checkpoint, genes: ZeroShotGenes) -> dict[str, Any]:
    """What to know about genes predicted from their text: units, text, and how good they are."""
    from .zero_shot import ZERO_SHOT_UNITS, read_zero_shot_expectation

    known = read_zero_shot_expectation(checkpoint)
    return {
        "genes": list(genes.symbols),
        "text": genes.source,
        "units": ZERO_SHOT_UNITS,
        "expected_pcc": known.pcc,
        "shuffled_pcc": known.shuffled_pcc,
        "panel_mean_pcc": known.panel_mean_pcc,
        "beats_shuffled": known.beats_shuffled,
        "expectation": known.summary,
    }
