"""Tile encoders: frozen networks that turn an H&E tile into a feature vector."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import EncoderError
from .encoder_catalog import resolve_encoder_name
from .encoder_spec import EXTERNAL_ENCODER, MAX_PARTS, STAIN_ENCODER, EncoderSpec, TileEncoder

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
    if spec.parts:
        from .combined_encoder import CombinedEncoder

        if tensors is None:
            raise EncoderError(
                f"This checkpoint lacks the weights of its encoder {spec.name}; save it again."
            )
        return CombinedEncoder.from_tensors(spec, tensors)
    from .timm_encoder import TimmEncoder

    if tensors is not None:
        return TimmEncoder.from_tensors(spec, tensors)
    return TimmEncoder.load(spec, None if weights is None else Path(weights))


_PART = re.compile(r"(?P<name>[^\[\]@]+)(\[(?P<stages>\d+(,\d+)*)\])?(@(?P<px>\d{1,4}))?")


def resolve_encoder_spec(name: str) -> EncoderSpec:
    """Return the spec of an encoder.

    Parameters
    ----------
    name
        Of the catalogue (`uni`, `hf-hub:MahmoodLab/UNI`, ...), of any timm model, or any
        `hf-hub:owner/model` in timm's format (asks the hub). ``[2,3]`` after it names stages of
        timm's `features_only` instead of the pooled output, and ``@112`` the side of the tiles in
        px. Several parts are joined by ``+``, of which one may be ``stain-stats``:
        ``stain-stats+tf_efficientnet_lite0[2,3]@112``.

    Raises
    ------
    EncoderError
        If there is no such encoder.
    """
    names = name.split("+")
    if len(names) == 1:
        return _resolve_part(name)
    from .combined_encoder import combine_specs

    if not 2 <= len(names) <= MAX_PARTS:
        raise EncoderError(f"{name} has {len(names)} parts; give at most {MAX_PARTS}.")
    return combine_specs([_resolve_part(part) for part in names])


def _resolve_part(name: str) -> EncoderSpec:
    match = _PART.fullmatch(name.strip())
    if match is None:
        raise EncoderError(
            f"{name!r:.90} does not name a tile encoder; write NAME, NAME[2,3] for stages of a "
            "timm model, or NAME[2,3]@112 with the side of its tiles."
        )
    px = None if match["px"] is None else int(match["px"])
    if match["name"] == STAIN_ENCODER:
        from .combined_encoder import stain_part
        from .stain_encoder import TILE_SIDE_PX

        if match["stages"] or px not in (None, TILE_SIDE_PX):
            raise EncoderError(f"{STAIN_ENCODER} has no stages and tiles of {TILE_SIDE_PX} px.")
        return stain_part(TILE_SIDE_PX)
    from .timm_encoder import read_timm_spec

    stages = tuple(map(int, match["stages"].split(","))) if match["stages"] else ()
    return read_timm_spec(resolve_encoder_name(match["name"]), stages, px)
