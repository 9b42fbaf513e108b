"""Tile encoders of several parts and of middle layers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from napari_dkan.errors import CheckpointError, EncoderError
from napari_dkan.model.encoders import build_encoder, resolve_encoder_spec
from napari_dkan.model.encoders.combined_encoder import CombinedEncoder, EncoderParts
from napari_dkan.model.encoders.encoder_spec import EncoderSpec
from napari_dkan.model.encoders.stain_encoder import NUM_STATISTICS, compute_tile_statistics
from napari_dkan.model.encoders.timm_encoder import TimmEncoder

NAME = "stain-stats+lcnet_035[1,2]@64"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a small timm model, with the running means of a trained one."""
    torch.manual_seed(0)
    net = timm.create_model("lcnet_035", num_classes=0)
    with torch.no_grad():
        net.train()(torch.rand(8, 3, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "lcnet.safetensors"
    save_file({n: t.contiguous() for n, t in net.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def tiles() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (6, 3, 64, 64), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def parts(weights: Path) -> EncoderParts:
    return EncoderParts.load(resolve_encoder_spec(NAME), weights)


def test_stages_are_those_of_features_only(weights: Path, tiles: torch.Tensor) -> None:
    spec = resolve_encoder_spec("lcnet_035[1,2]@64")
    encoder = TimmEncoder.load(spec, weights)
    reference = timm.create_model("lcnet_035", features_only=True, out_indices=(1, 2)).eval()
    reference.load_state_dict(load_file(weights), strict=False)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.mean, spec.std))
    with torch.no_grad():
        maps = reference((tiles.float() / 255 - mean) / std)
    expected = torch.cat([m.mean(dim=(2, 3)) for m in maps], dim=1)
    assert spec.dimension == expected.shape[1]
    torch.testing.assert_close(encoder(tiles), expected, rtol=1e-4, atol=1e-5)


def test_later_stages_are_not_carried(weights: Path) -> None:
    whole = TimmEncoder.load(resolve_encoder_spec("lcnet_035"), weights)
    early = TimmEncoder.load(resolve_encoder_spec("lcnet_035[1,2]@64"), weights)
    count, kept = (sum(t.numel() for t in e.tensors().values()) for e in (whole, early))
    assert kept < count / 4


def test_stages_of_a_transformer_are_its_blocks() -> None:
    spec = resolve_encoder_spec("vit_tiny_patch16_224[2,5]")
    encoder = TimmEncoder.create_untrained(spec)
    assert spec.dimension == 2 * 192
    assert encoder(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)).shape == (1, 384)


def test_parts_are_side_by_side(parts: EncoderParts, weights: Path, tiles: torch.Tensor) -> None:
    numbers = parts(tiles)
    resized = torch.nn.functional.interpolate(tiles.float(), (56, 56), mode="area")
    torch.testing.assert_close(numbers[:, :NUM_STATISTICS], compute_tile_statistics(resized))
    alone = TimmEncoder.load(resolve_encoder_spec("lcnet_035[1,2]@64"), weights)
    torch.testing.assert_close(numbers[:, NUM_STATISTICS:], alone(tiles))


def test_numbers_are_standardised_over_the_training_tiles(
    parts: EncoderParts, tiles: torch.Tensor
) -> None:
    encoder = CombinedEncoder.fit(parts, parts(tiles), 154.0)
    features = encoder(tiles)
    varying = features.std(dim=0, unbiased=False) > 1e-3
    assert varying.sum() > 50
    torch.testing.assert_close(
        features.mean(dim=0), torch.zeros(features.shape[1]), atol=1e-4, rtol=0
    )
    spread = features.std(dim=0, unbiased=False)[varying]
    assert (spread - 1).abs().median() < 1e-3


def test_a_checkpoint_carries_all_parts(parts: EncoderParts, tiles: torch.Tensor) -> None:
    encoder = CombinedEncoder.fit(parts, parts(tiles), 154.0)
    spec = EncoderSpec.from_json(json.loads(json.dumps(encoder.spec.to_json())))
    assert spec == encoder.spec
    again = build_encoder(spec, encoder.tensors())
    torch.testing.assert_close(again(tiles), encoder(tiles), rtol=0, atol=0)


def test_a_missing_part_is_named(parts: EncoderParts, tiles: torch.Tensor) -> None:
    encoder = CombinedEncoder.fit(parts, parts(tiles), 154.0)
    tensors = {n: t for n, t in encoder.tensors().items() if not n.startswith("parts.")}
    with pytest.raises(EncoderError, match="lcnet_035"):
        build_encoder(encoder.spec, tensors)
    with pytest.raises(CheckpointError, match="mean"):
        build_encoder(encoder.spec, encoder.tensors() | {"mean": torch.zeros(3)})


@pytest.mark.parametrize(
    "name",
    ["lcnet_035[9]", "lcnet_035[2,1]", "lcnet_035[x]", "stain-stats[1]+lcnet_035", "+", "a+b"],
)
def test_names_that_are_no_encoder(name: str) -> None:
    with pytest.raises((EncoderError, CheckpointError)):
        resolve_encoder_spec(name)


def test_parts_have_no_parts(parts: EncoderParts) -> None:
    with pytest.raises(CheckpointError):
        replace(parts.spec, parts=(parts.spec,))
    data = parts.spec.to_json()
    data["parts"] = [data]
    with pytest.raises(CheckpointError):
        EncoderSpec.from_json(data)


def test_one_file_for_two_parts_is_refused(weights: Path) -> None:
    spec = resolve_encoder_spec("lcnet_035+resnet18")
    with pytest.raises(EncoderError, match="one file"):
        EncoderParts.load(spec, weights)


def test_old_specs_have_no_new_entries() -> None:
    assert {"parts", "out_indices"}.isdisjoint(EncoderSpec("resnet18", dimension=512).to_json())
