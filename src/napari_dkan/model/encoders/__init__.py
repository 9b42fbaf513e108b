"""Tile encoders: frozen networks that turn an H&E tile into a feature vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import EncoderError
from .encoder_catalog import resolve_encoder_name
from .encoder_spec import EXTERNAL_ENCODER, STAIN_ENCODER, EncoderSpec, TileEncoder

if TYPE_CHECKING:
    from torch import Tensor


def build_encoder(
    spec: EncoderSpec,
    tensors: Mapping[str, Tensor] | None = None,
    weights: str | Path | None = None,
) -> TileEncoder:
    """Build the encoder of a spec, in eval mode on the CPU.

    Parameters
    ----------
    tensors
        Weights that are bundled in the checkpoint.
    weights
        Local weights file (.safetensors, .pth, .bin). With neither, the downloaded weights of a
        published model are loaded.

    Raises
    ------
    EncoderError
        If the weights are not available or do not fit; the message says what to do.
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
    """Return the spec of an encoder.

    Parameters
    ----------
    name
        Of the catalogue (`uni`, `hf-hub:MahmoodLab/UNI`, ...), of any timm model, or any
        `hf-hub:owner/model` in timm's format (asks the hub).

    Raises
    ------
    EncoderError
        If there is no such encoder.
    """
    from .timm_encoder import read_timm_spec

    return read_timm_spec(resolve_encoder_name(name))
