"""The built-in tile encoder: statistics of stain, texture, nuclei and fibres, and a projection."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import CheckpointError, EncoderError
from ..stain_normalization import RUIFROK_STAIN_VECTORS
from .encoder_spec import STAIN_ENCODER, EncoderSpec

TILE_SIDE_PX = 56  # on a 154 um tile 2.75 um/px, at which a nucleus is a blob of 3 px
NUM_STATISTICS = 104  # per tile

_DENSITY_THRESHOLDS = (  # channel, and optical densities; the fraction of pixels above is measured
    (0, (0.1, 0.2, 0.3, 0.45, 0.6, 0.8)),
    (1, (0.1, 0.2, 0.3, 0.45, 0.6, 0.8)),
    (3, (0.12, 0.2, 0.3, 0.45, 0.6)),
)
NUCLEUS_THRESHOLDS = (0.03, 0.08, 0.15)  # contrast of a nucleus in haematoxylin
NUCLEI, GRADIENT_ENERGY = "nuclei", "gradient energy"  # kinds of statistics
_NUM_SCALES = 4
_CPU_CHUNK_TILES = 32  # fits into a CPU's cache


def compute_tile_statistics(tiles: Tensor) -> Tensor:
    """Compute the statistics of RGB tiles (B, 3, px, px), 0..255 of any type -> float32 (B, 104).

    A tile of another size than 56 px is resampled first. The statistics do not change when a
    tile is mirrored or rotated by 90 degrees.
    """
    if not len(tiles):
        return torch.zeros(0, NUM_STATISTICS, device=tiles.device)
    # A GPU takes all tiles at once; on the CPU small chunks are several times faster.
    size = _CPU_CHUNK_TILES if tiles.device.type == "cpu" else len(tiles)
    return torch.cat([_compute_chunk_statistics(chunk) for chunk in torch.split(tiles, size)])


def find_statistics(kind: str) -> tuple[int, ...]:
    """Find the columns of `compute_tile_statistics` that are of a kind, such as NUCLEI."""
    blank = torch.zeros(1, 3, TILE_SIDE_PX, TILE_SIDE_PX)
    kinds = [k for k, numbers in _iter_statistics(blank) for _ in range(numbers.shape[1])]
    return tuple(column for column, k in enumerate(kinds) if k == kind)


def _compute_chunk_statistics(tiles: Tensor) -> Tensor:
    return torch.cat([numbers for _, numbers in _iter_statistics(tiles)], dim=1)


def _iter_statistics(tiles: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Compute statistics (B, n) of tiles, each with its kind."""
    rgb = tiles.float()
    if rgb.shape[-1] != TILE_SIDE_PX:
        rgb = F.interpolate(rgb, (TILE_SIDE_PX, TILE_SIDE_PX), mode="bilinear", antialias=True)
    density = compute_density(rgb)
    x = unmix_stains(density)
    yield from (("colour", numbers) for numbers in _color_statistics(density))
    for scale in range(_NUM_SCALES):
        local = box_mean(x, 3)
        mean, std = _mean_and_std(x)
        yield "deviation", std
        yield GRADIENT_ENERGY, _log_gradient_energy(x)
        yield "roughness", _log_mean((_crop_border(x, 1) - local).abs(), 1e-4)
        if scale < 2:
            yield "skewness", _skewness(x, mean, std)
        if scale == 0:
            yield "mean", mean
            yield from (("fraction", numbers) for numbers in _threshold_fractions(x))
            yield from ((NUCLEI, numbers) for numbers in _nucleus_statistics(local[:, 0]))
        if scale == 1:
            yield "coherence", _fibre_coherence(x[:, 3])
        if scale < _NUM_SCALES - 1:
            x = F.avg_pool2d(x, 2)
    yield "maximum", x.amax((2, 3))
    yield "minimum", x.amin((2, 3))


def compute_density(rgb: Tensor) -> Tensor:
    """Compute optical densities of RGB 0..255 in floats, of any shape."""
    return -torch.log((rgb.clamp(0, 255) + 1) / 256)


def unmix_stains(density: Tensor) -> Tensor:
    """Compute haematoxylin, eosin, residual and mean (B, 4, h, w) of densities (B, 3, h, w)."""
    stains = _make_unmixing_matrix(density) @ density.flatten(2)
    return stains.reshape(-1, 4, *density.shape[2:])


def compute_nucleus_contrast(local: Tensor) -> Tensor:
    """Compute by how much haematoxylin (B, h, w), averaged over 3x3, is above that around.

    Returns (B, h - 6, w - 6), above 0 in dark blobs of the size of a nucleus.
    """
    return _crop_border(local, 3) - box_mean(local, 7)


def _make_unmixing_matrix(like: Tensor) -> Tensor:
    """Return the matrix (4, 3) from optical densities to haematoxylin, eosin, residual and mean."""
    stains = torch.tensor(RUIFROK_STAIN_VECTORS, dtype=torch.float64)
    inverse = torch.linalg.inv(stains / stains.norm(dim=1, keepdim=True)).T
    return torch.cat([inverse, torch.full((1, 3), 1 / 3)]).to(like)


def _crop_border(x: Tensor, border: int) -> Tensor:
    return x[..., border:-border, border:-border]


def box_mean(x: Tensor, side: int) -> Tensor:
    """Average over windows of side x side without padding.

    Sums of shifted views run several times faster on a CPU than average pooling with stride 1.
    """
    return _reduce_windows(x, side, torch.add) / side**2


def _max_filter(x: Tensor, side: int) -> Tensor:
    """Take the maximum over windows of side x side without padding."""
    return _reduce_windows(x, side, torch.maximum)


def _reduce_windows(x: Tensor, side: int, reduce: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    height, width = x.shape[-2] - side + 1, x.shape[-1] - side + 1
    rows = functools.reduce(reduce, [x[..., i : height + i, :] for i in range(side)])
    return functools.reduce(reduce, [rows[..., i : width + i] for i in range(side)])


def _mean_and_std(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.mean((2, 3))
    variance = x.square().mean((2, 3)) - mean.square()
    return mean, variance.clamp_min(1e-8).sqrt()


def _skewness(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    centred = x - mean[..., None, None]
    return (centred * centred * centred).mean((2, 3)) / std**3


def _color_statistics(density: Tensor) -> Iterator[Tensor]:
    """Means, standard deviations and correlations of the three optical densities."""
    mean, std = _mean_and_std(density)
    yield mean
    yield std
    flat = density.flatten(2)
    covariance = flat @ flat.transpose(1, 2) / flat.shape[2] - mean[:, :, None] * mean[:, None]
    correlation = covariance / (std[:, :, None] * std[:, None])
    yield torch.stack([correlation[:, 0, 1], correlation[:, 0, 2], correlation[:, 1, 2]], dim=1)


def _log_mean(x: Tensor, floor: float) -> Tensor:
    return (x.mean((2, 3)) + floor).log()


def _log_gradient_energy(x: Tensor) -> Tensor:
    down = (x[:, :, 1:] - x[:, :, :-1]).square().mean((2, 3))
    across = (x[..., 1:] - x[..., :-1]).square().mean((2, 3))
    return (down + across + 1e-6).log()


def _threshold_fractions(x: Tensor) -> Iterator[Tensor]:
    for channel, levels in _DENSITY_THRESHOLDS:
        plane = x[:, channel]
        yield torch.stack([(plane > q).float().mean((1, 2)) for q in levels], dim=1)


def _nucleus_statistics(local: Tensor) -> Iterator[Tensor]:
    """Number, darkness and area of dark blobs in haematoxylin (B, h, w) averaged over 3x3."""
    contrast = compute_nucleus_contrast(local)
    middle, local = _crop_border(contrast, 2), _crop_border(local, 5)
    peaks = middle * (middle == _max_filter(contrast, 5))
    for threshold in NUCLEUS_THRESHOLDS:
        peak = (peaks > threshold).float()
        count = peak.mean((1, 2))
        darkness = (peak * local).mean((1, 2)) / (count + 1e-4)
        covered = (contrast > threshold).float().mean((1, 2))
        yield torch.stack([count, darkness, covered], dim=1)


def _fibre_coherence(plane: Tensor) -> Tensor:
    """Coherence of the structure tensor: near 1 if edges have one direction, as in stroma."""
    a = plane[:, 2:, 1:-1] - plane[:, :-2, 1:-1]
    b = plane[:, 1:-1, 2:] - plane[:, 1:-1, :-2]
    aa, bb, ab = F.avg_pool2d(torch.stack([a * a, b * b, a * b], dim=1), 6, 5).unbind(1)
    coherence = ((aa - bb).square() + 4 * ab.square()).sqrt() / (aa + bb + 1e-6)
    return coherence.mean((1, 2))[:, None]


_MAX_Z_SCORE = 5.0  # so that an outlier tile of another laboratory's slide does not dominate


def fit_standardization(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Fit mean and standard deviation (n,) of numbers (N, n); constant ones keep their scale."""
    numbers = numbers.double()
    mean, std = numbers.mean(0), numbers.std(0, unbiased=False)
    return mean, torch.where(std < 1e-4, torch.ones_like(std), std)


def standardize(numbers: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Standardise numbers (..., n), at most five standard deviations from the mean."""
    return ((numbers - mean) / std).clamp(-_MAX_Z_SCORE, _MAX_Z_SCORE)


class StainEncoder(nn.Module):
    """Tiles -> 104 stain and texture statistics -> standardised -> projected to d features.

    The weights are the mean and standard deviation of the statistics over the training tiles and
    a projection on their principal axes. An axis is scaled to the square root of its standard
    deviation: full whitening would amplify noise to the level of signal, and without scaling one
    axis would dominate. The weights, about 30 kB, are bundled in the checkpoint.
    """

    mixed_precision = False  # inaccurate for differences of small numbers, and hardly faster
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
        """Fit on batches of training tiles, each uint8 (B, 3, px, px) with a side of tile_um."""
        return cls.fit_from_statistics(
            torch.cat([compute_tile_statistics(t) for t in tiles]), dimension, tile_um
        )

    @classmethod
    def fit_from_statistics(
        cls, statistics: Tensor, dimension: int, tile_um: float = 154.112
    ) -> StainEncoder:
        """Fit on the statistics (N, 104) of training tiles.

        Raises EncoderError if dimension is not in 1..104 or there is no tile.
        """
        if not 1 <= dimension <= NUM_STATISTICS:
            raise EncoderError(
                f"The stain encoder gives 1 to {NUM_STATISTICS} numbers, not {dimension}."
            )
        if not len(statistics):
            raise EncoderError("The stain encoder cannot be fitted without a training tile.")
        encoder = cls(
            EncoderSpec(
                name=STAIN_ENCODER,
                revision="1",
                dimension=dimension,
                px=TILE_SIDE_PX,
                mpp=tile_um / TILE_SIDE_PX,
                mean=(0.0, 0.0, 0.0),
                std=(1.0, 1.0, 1.0),
                licence="BSD-3-Clause",
            )
        )
        statistics = statistics.double()
        mean, std = fit_standardization(statistics)
        scaled = standardize(statistics, mean, std)
        spread, axes = torch.linalg.eigh(scaled.T @ scaled / len(scaled))
        spread, axes = spread.flip(0)[:dimension], axes.flip(1)[:, :dimension]
        # The sign of an eigenvector is arbitrary; it is fixed, so that a fit is reproducible.
        axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
        encoder.mean.copy_(mean)
        encoder.std.copy_(std)
        encoder.projection.copy_(axes * spread.clamp_min(1e-6).pow(-0.25))
        return encoder

    @classmethod
    def from_tensors(cls, spec: EncoderSpec, tensors: Mapping[str, Tensor]) -> StainEncoder:
        """Build from a checkpoint's tensors.

        Raises CheckpointError if one is missing, of the wrong shape or not finite.
        """
        encoder = cls(spec)
        for name, buffer in encoder.named_buffers():
            value = tensors.get(name)
            if value is None or value.shape != buffer.shape or not torch.isfinite(value).all():
                raise CheckpointError(
                    f"The checkpoint's tile encoder has no usable tensor {name}; "
                    "the file is damaged, get it again."
                )
            buffer.copy_(value)
        return encoder

    def tensors(self) -> dict[str, Tensor]:
        """The weights, to be bundled in a checkpoint."""
        return dict(self.named_buffers())

    def project(self, statistics: Tensor) -> Tensor:
        """Standardise and project statistics (..., 104) -> features (..., d)."""
        return standardize(statistics, self.mean, self.std) @ self.projection

    @torch.no_grad()
    def forward(self, tiles: Tensor) -> Tensor:
        """Encode RGB 0..255 (B, 3, px, px) -> float32 (B, d) on the device of the weights."""
        with torch.autocast(self.mean.device.type, enabled=False):
            return self.project(compute_tile_statistics(tiles.to(self.mean.device)))
