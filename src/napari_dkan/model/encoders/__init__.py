"""Tile encoders: frozen networks that turn an H&E tile into a feature vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import EncoderError
from .encoder_catalog import resolve_encoder_name
from .encoder_spec import EncoderSpec, TileEncoder

if TYPE_CHECKING:
    from torch import Tensor


__all__ = [
    "EXTERNAL_ENCODER",
    "STAIN_ENCODER",
    "EncoderSpec",
    "TileEncoder",
    "build_encoder",
    "resolve_encoder_spec",
]

STAIN_ENCODER = "stain-stats"
EXTERNAL_ENCODER = "external"


def build_encoder(
    spec: EncoderSpec,
    tensors: Mapping[str, Tensor] | None = None,
    weights: str | Path | None = None,
) -> TileEncoder:
    """The encoder of a spec, in eval mode on the CPU.

    tensors : its weights where they travel in the checkpoint. weights : a local
    weights file (.safetensors, .pth, .bin). With neither, a timm model's published
    weights are fetched. Raises EncoderError saying what to do when they cannot be had.
    """
    if spec.name == EXTERNAL_ENCODER:
        raise EncoderError(
            "This checkpoint does not say which encoder made its features, so it cannot read "
            "slides; convert it again and name the encoder, or give it ready-made features."
        )
    if spec.name == STAIN_ENCODER:
        from .stain_encoder import StainEncoder

        if tensors is None:
            raise EncoderError(
                "This checkpoint lacks the weights of its stain-stats encoder; save it again."
            )
        return StainEncoder.from_tensors(spec, tensors)
    from .timm_encoder import TimmEncoder

    if tensors is not None:
        return TimmEncoder.from_tensors(spec, tensors)
    return TimmEncoder.load(spec, None if weights is None else Path(weights))


def resolve_encoder_spec(name: str) -> EncoderSpec:
    """The spec of an encoder by name: a known one (`uni`, `hf-hub:MahmoodLab/UNI`, ...),
    any timm model, or any `hf-hub:owner/model` in timm's format (asks the hub).

    Raises EncoderError when there is no such encoder.
    """
    from .timm_encoder import read_timm_spec

    return read_timm_spec(resolve_encoder_name(name))
