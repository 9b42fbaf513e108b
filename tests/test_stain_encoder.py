"""The built-in tile encoder: stable features for any tile, and bundled weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from napari_dkan.errors import CheckpointError, EncoderError
from napari_dkan.model.encoders import build_encoder
from napari_dkan.model.encoders.stain_encoder import (
    NUM_STATISTICS,
    StainEncoder,
    compute_tile_statistics,
)


@pytest.fixture(scope="module")
def tiles() -> Tensor:
    """Blurred pink and purple noise, 200 tiles of 56 px."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(200, 3, 14, 14, generator=generator)
    smooth = torch.nn.functional.interpolate(noise, size=56, mode="bicubic")
    shade = torch.tensor([200.0, 120.0, 190.0]).view(3, 1, 1)
    return (shade * (0.6 + 0.5 * smooth)).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def encoder(tiles: Tensor) -> StainEncoder:
    return StainEncoder.fit([tiles[:100], tiles[100:]], 32)


def test_features_are_centred_uncorrelated_and_ordered(
    encoder: StainEncoder, tiles: Tensor
) -> None:
    features = encoder(tiles)
    assert features.shape == (200, 32) and features.dtype == torch.float32
    assert torch.isfinite(features).all()
    # Axes of the training tiles, ordered by variance and not correlated.
    torch.testing.assert_close(features.mean(0), torch.zeros(32), atol=0.1, rtol=0)
    correlation = torch.corrcoef(features.T) - torch.eye(32)
    assert correlation.abs().max() < 0.2
    assert (features.std(0)[:-1] >= features.std(0)[1:] - 0.05).all()


@pytest.mark.parametrize("value", [0, 255])
def test_blank_glass_and_ink_give_finite_features(encoder: StainEncoder, value: int) -> None:
    flat = torch.full((2, 3, 56, 56), value, dtype=torch.uint8)
    assert torch.isfinite(compute_tile_statistics(flat)).all()
    assert encoder(flat).abs().max() < 200
    assert encoder(flat[:0]).shape == (0, 32)


def test_features_are_independent_of_other_tiles_and_of_rotation(
    encoder: StainEncoder, tiles: Tensor
) -> None:
    together = encoder(tiles)
    torch.testing.assert_close(encoder(tiles[77:78])[0], together[77], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoder(tiles.float()), together)
    # The orientation of the slide does not matter.
    for rotated in (tiles.flip(3), tiles.rot90(1, (2, 3))):
        torch.testing.assert_close(encoder(rotated), together, atol=0.02, rtol=0.01)


def test_another_tile_size_is_resampled(encoder: StainEncoder, tiles: Tensor) -> None:
    double = tiles.repeat_interleave(2, 2).repeat_interleave(2, 3)
    gap = (encoder(double) - encoder(tiles)).abs() / encoder(tiles).std(0)
    assert gap.median() < 0.5


def test_weights_round_trip(encoder: StainEncoder, tiles: Tensor) -> None:
    again = build_encoder(encoder.spec, encoder.tensors())
    torch.testing.assert_close(again(tiles), encoder(tiles))
    assert encoder.spec.px == 56 and encoder.spec.mpp == pytest.approx(2.752)
    for broken in (
        {},
        encoder.tensors() | {"projection": torch.zeros(NUM_STATISTICS, 8)},
        encoder.tensors() | {"mean": torch.full((NUM_STATISTICS,), torch.nan)},
    ):
        with pytest.raises(CheckpointError, match="tile encoder has no usable tensor"):
            StainEncoder.from_tensors(encoder.spec, broken)


def test_a_fit_needs_tiles_and_a_possible_dimension(tiles: Tensor) -> None:
    with pytest.raises(EncoderError, match="1 to 104"):
        StainEncoder.fit([tiles], 105)
    with pytest.raises(EncoderError, match="without a training tile"):
        StainEncoder.fit([tiles[:0]], 8)


def test_a_fit_is_the_same_every_time(tiles: Tensor) -> None:
    one, two = (StainEncoder.fit([tiles], 16).tensors() for _ in range(2))
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name
