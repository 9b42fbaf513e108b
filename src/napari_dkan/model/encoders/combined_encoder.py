"""Tile encoders of several parts: their features side by side, standardised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import CheckpointError, EncoderError
from .encoder_spec import STAIN_ENCODER, EncoderSpec
from .stain_encoder import (
    NUM_STATISTICS,
    compute_tile_statistics,
    find_statistics,
    fit_standardization,
    standardize,
)
from .timm_encoder import TimmEncoder

_OWN_TENSORS = ("mean", "std")


class EncoderParts(nn.Module):
    """Tiles (B, 3, px, px), RGB 0..255 -> the numbers of all parts, (B, n) float32.

    Every tile is resampled to the side that a part takes, by area. `spec.dimension` is n.
    """

    mixed_precision = False  # the stain statistics are differences of small numbers

    def __init__(self, spec: EncoderSpec, networks: Sequence[TimmEncoder]) -> None:
        super().__init__()
        self.spec = spec
        self.networks = nn.ModuleList(networks)  # of the parts that are not the stain statistics

    @classmethod
    def load(cls, spec: EncoderSpec, weights: Path | None = None) -> EncoderParts:
        """Load the weights of every part.

        Parameters
        ----------
        weights
            Local file of the one part that has weights. With several such parts all have to be
            downloaded.

        Raises
        ------
        EncoderError
            If weights are absent or do not fit, or one file is given for several parts.
        """
        named = [part for part in spec.parts if part.name != STAIN_ENCODER]
        if weights is not None and len(named) != 1:
            raise EncoderError(
                f"{spec.name} has {len(named)} parts with weights, and {weights} is one file; "
                "get theirs with `napari-dkan encoders get`."
            )
        networks = [TimmEncoder.load(part, weights) for part in named]
        loaded = iter(networks)
        parts = tuple(p if p.name == STAIN_ENCODER else next(loaded).spec for p in spec.parts)
        return cls(_describe_parts(parts), networks)

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """Encode tiles; raises EncoderError if they are not (B, 3, px, px)."""
        px = self.spec.px
        if tiles.ndim != 4 or tuple(tiles.shape[1:]) != (3, px, px):
            raise EncoderError(
                f"The tiles have shape {tuple(tiles.shape)}; {self.spec.name} takes "
                f"(B, 3, {px}, {px})."
            )
        networks = iter(self.networks)
        numbers = []
        for part in self.spec.parts:
            resized = _resize(tiles, part.px)
            if part.name == STAIN_ENCODER:
                with torch.autocast(tiles.device.type, enabled=False):
                    numbers.append(compute_tile_statistics(resized))
            else:
                numbers.append(next(networks)(resized))
        return torch.cat(numbers, dim=1)

    def tensors(self) -> dict[str, Tensor]:
        """The weights, to be bundled in a checkpoint."""
        return {
            f"parts.{i}.{name}": tensor
            for i, network in enumerate(self.networks)
            for name, tensor in network.tensors().items()  # type: ignore[operator]
        }

    @classmethod
    def from_tensors(cls, spec: EncoderSpec, tensors: Mapping[str, Tensor]) -> EncoderParts:
        """Build with the weights that are bundled in a checkpoint.

        Raises EncoderError if they do not fit.
        """
        named = [part for part in spec.parts if part.name != STAIN_ENCODER]
        networks = []
        for i, part in enumerate(named):
            start = f"parts.{i}."
            own = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
            networks.append(TimmEncoder.from_tensors(part, own))
        return cls(_describe_parts(spec.parts), networks)


class CombinedEncoder(nn.Module):
    """The numbers of several parts, each standardised over the training tiles.

    All weights travel in the checkpoint, so their licences have to allow it.
    """

    mixed_precision = False
    mean: Tensor
    std: Tensor

    def __init__(self, spec: EncoderSpec, parts: EncoderParts) -> None:
        super().__init__()
        self.spec = spec
        self.parts = parts
        self.register_buffer("mean", torch.zeros(parts.spec.dimension))
        self.register_buffer("std", torch.ones(parts.spec.dimension))
        self.requires_grad_(False).eval()

    @classmethod
    def fit(cls, parts: EncoderParts, numbers: Tensor, tile_um: float) -> CombinedEncoder:
        """Fit mean and spread to the numbers (N, n) of training tiles, with a side of tile_um.

        Raises EncoderError if there is no tile.
        """
        if not len(numbers):
            raise EncoderError("An encoder cannot be fitted without a training tile.")
        encoder = cls(replace(parts.spec, mpp=tile_um / parts.spec.px), parts)
        for name, value in zip(_OWN_TENSORS, fit_standardization(numbers), strict=True):
            getattr(encoder, name).copy_(value)
        return encoder

    @classmethod
    def from_tensors(cls, spec: EncoderSpec, tensors: Mapping[str, Tensor]) -> CombinedEncoder:
        """Build from a checkpoint's tensors.

        Raises CheckpointError or EncoderError if one is missing, of the wrong shape or not finite.
        """
        encoder = cls(spec, EncoderParts.from_tensors(spec, tensors))
        for name in _OWN_TENSORS:
            value, buffer = tensors.get(name), getattr(encoder, name)
            if value is None or value.shape != buffer.shape or not torch.isfinite(value).all():
                raise CheckpointError(
                    f"The checkpoint's tile encoder has no usable tensor {name}; "
                    "the file is damaged, get it again."
                )
            buffer.copy_(value)
        return encoder

    def tensors(self) -> dict[str, Tensor]:
        """The weights, to be bundled in a checkpoint."""
        return {n: getattr(self, n) for n in _OWN_TENSORS} | self.parts.tensors()

    def project(self, numbers: Tensor) -> Tensor:
        """Standardise the numbers of the parts (..., n)."""
        return standardize(numbers, self.mean, self.std)

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """Encode RGB 0..255 (B, 3, px, px) -> float32 (B, d) on the device of the weights."""
        with torch.autocast(self.mean.device.type, enabled=False):
            return self.project(self.parts(tiles.to(self.mean.device)))


def find_stain_features(spec: EncoderSpec, kind: str) -> tuple[int, ...]:
    """Find the features that are stain statistics of a kind, see `find_statistics`.

    Returns () for an encoder without that part. The built-in encoder alone mixes its statistics.
    """
    start = 0
    for part in spec.parts:
        if part.name == STAIN_ENCODER:
            return tuple(start + column for column in find_statistics(kind))
        start += part.dimension
    return ()


def combine_specs(parts: Sequence[EncoderSpec]) -> EncoderSpec:
    """Describe an encoder of several parts; the tiles have the largest side of all."""
    return _describe_parts(tuple(parts))


def _describe_parts(parts: tuple[EncoderSpec, ...]) -> EncoderSpec:
    if any(p.name == STAIN_ENCODER and p.dimension != NUM_STATISTICS for p in parts):
        raise CheckpointError(f"The stain statistics of a tile are {NUM_STATISTICS} numbers.")
    licences = dict.fromkeys(p.licence for p in parts if p.licence)
    return EncoderSpec(
        "+".join(_name_part(p) for p in parts),
        dimension=sum(p.dimension for p in parts),
        px=max(p.px for p in parts),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        licence=" and ".join(licences),
        parts=parts,
    )


def _name_part(spec: EncoderSpec) -> str:
    stages = f"[{','.join(map(str, spec.out_indices))}]" if spec.out_indices else ""
    return spec.name + stages


def stain_part(px: int) -> EncoderSpec:
    """Describe the stain statistics as a part, at their side in pixels."""
    return EncoderSpec(
        STAIN_ENCODER,
        revision="1",
        dimension=NUM_STATISTICS,
        px=px,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        licence="BSD-3-Clause",
    )


def _resize(tiles: Tensor, px: int) -> Tensor:
    if tiles.shape[-1] == px:
        return tiles
    return F.interpolate(tiles.float(), (px, px), mode="area")
