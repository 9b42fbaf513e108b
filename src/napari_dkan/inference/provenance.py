"""What a prediction was made by, as it travels with every file written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from .. import __version__
from .engine import Predictor
from .target import Target


def provenance(predictor: Predictor, target: Target, mpp_origin: str) -> dict[str, Any]:
    """JSON-able record of version, checkpoint, slide, scale and parameters."""
    checkpoint, slide = predictor.checkpoint, predictor.slide
    pitch = target.grid.pitch_um if target.grid else target.spots.pitch_um
    return {
        "kind": "predicted",
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": checkpoint.card.get("title", ""),
        "checkpoint_sha256": checkpoint.sha256,
        "label_scale": checkpoint.label_scale.name,
        "encoder": checkpoint.encoder.name,
        "slide": slide.path.name,
        "slide_fingerprint": slide.fingerprint(),
        "mpp": predictor.mpp,
        "mpp_origin": mpp_origin,
        "patch_um": checkpoint.patch.um,
        "pitch_um": checkpoint.spot_pitch_um if pitch is None else pitch,
        "where": str(target.kind),
        "device": str(predictor.device),
    }
