"""The light built-in tile encoder: stain and texture statistics with weights of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ...errors import CheckpointError, EncoderError
from .protocol import EncoderSpec
from .stain_statistics import NUM_STATISTICS, TILE_SIDE_PX, compute_tile_statistics

STAIN_ENCODER_NAME = "stain-stats"
_MAX_Z_SCORE = 5.0  # standard deviations: an odd tile of a foreign slide must not dominate a slide


class StainEncoder(nn.Module):
    """Tiles -> 104 stain and texture statistics -> standardised -> projected to d numbers.

    The weights are the mean and standard deviation of the statistics over the training tiles and
    a projection on their principal axes. An axis is scaled to the square root of its own spread:
    full whitening would lift noise to the level of signal, none would let one axis speak for all.
    A checkpoint carries them, about 30 kB.
    """

    mixed_precision = False  # differences of small numbers; and there is little to gain
    mean: Tensor
    std: Tensor
    projection: Tensor

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("mean", torch.zeros(NUM_STATISTICS))
        self.register_buffer("std", torch.ones(NUM_STATISTICS))
        self.register_buffer("projection", torch.zeros(NUM_STATISTICS, spec.dimension))

    @classmethod
    def fit(cls, tiles: Iterable[Tensor], dimension: int, tile_um: float = 154.112) -> StainEncoder:
        """Fit on batches of training tiles, each uint8 (B, 3, px, px) of tile_um a side."""
        return cls.fit_from_statistics(torch.cat([compute_tile_statistics(t) for t in tiles]), dimension, tile_um)

    @classmethod
    def fit_from_statistics(
        cls, numbers: Tensor, dimension: int, tile_um: float = 154.112
    ) -> StainEncoder:
        """Fit on the statistics (N, 104) of training tiles.

        Raises EncoderError when dimension is not within 1..104 or no tile is given.
        """
        if not 1 <= dimension <= NUM_STATISTICS:
            raise EncoderError(f"The stain encoder gives 1 to {NUM_STATISTICS} numbers, not {dimension}.")
        if not len(numbers):
            raise EncoderError("The stain encoder cannot be fitted without a training tile.")
        encoder = cls(
            EncoderSpec(
                name=STAIN_ENCODER_NAME,
                revision="1",
                dimension=dimension,
                px=TILE_SIDE_PX,
                mpp=tile_um / TILE_SIDE_PX,
                mean=(0.0, 0.0, 0.0),
                std=(1.0, 1.0, 1.0),
                licence="BSD-3-Clause",
            )
        )
        numbers = numbers.double()
        mean, std = numbers.mean(0), numbers.std(0, unbiased=False)
        std = torch.where(std < 1e-4, torch.ones_like(std), std)
        scaled = ((numbers - mean) / std).clamp(-_MAX_Z_SCORE, _MAX_Z_SCORE)
        spread, axes = torch.linalg.eigh(scaled.T @ scaled / len(scaled))
        spread, axes = spread.flip(0)[:dimension], axes.flip(1)[:, :dimension]
        # eigenvectors come with either sign; fix it, so that a fit is the same everywhere
        axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
        encoder.mean.copy_(mean)
        encoder.std.copy_(std)
        encoder.projection.copy_(axes * spread.clamp_min(1e-6).pow(-0.25))
        return encoder

    @classmethod
    def from_tensors(cls, spec: EncoderSpec, tensors: Mapping[str, Tensor]) -> StainEncoder:
        """Rebuild from a checkpoint's tensors.

        Raises CheckpointError when one is missing, misshapen or not finite.
        """
        encoder = cls(spec)
        for name, own in encoder.named_buffers():
            given = tensors.get(name)
            if given is None or given.shape != own.shape or not torch.isfinite(given).all():
                raise CheckpointError(
                    f"The checkpoint's tile encoder has no usable tensor {name}; "
                    "the file is damaged, get it again."
                )
            own.copy_(given)
        return encoder

    def tensors(self) -> dict[str, Tensor]:
        """The weights a checkpoint carries."""
        return dict(self.named_buffers())

    def project(self, numbers: Tensor) -> Tensor:
        """Statistics (..., 104) -> features (..., d)."""
        scaled = ((numbers - self.mean) / self.std).clamp(-_MAX_Z_SCORE, _MAX_Z_SCORE)
        return scaled @ self.projection

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """uint8 or float RGB 0..255, (B, 3, px, px) -> float32 (B, d), on the weights' device."""
        with torch.autocast(self.mean.device.type, enabled=False):
            return self.project(compute_tile_statistics(tiles.to(self.mean.device)))
