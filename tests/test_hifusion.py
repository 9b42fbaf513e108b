"""HiFusion: what of the spot's pixels each level sees, the region, and the loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_dkan.errors import CheckpointError, SpotsError
from napari_dkan.model.methods.hifusion import HiFusion
from napari_dkan.model.methods.method_configs import HiFusionConfig
from napari_dkan.model.network.inference_optimization import (
    optimize_for_inference,
    trace_for_latency,
)
from napari_dkan.training.fit.losses import alignment_loss
from napari_dkan.training.fit.method_modules import make_lightning_module
from napari_dkan.training.network_shapes import make_network_config
from napari_dkan.training.train_settings import (
    SettingsPreset,
    TrainSettings,
    make_preset_settings,
)

GENES, FEATURES, PX = 6, 5, 32
SHAPE = HiFusionConfig(GENES, dim=16, grid=3, features=FEATURES, trunk_dim=16)
TRUNK = replace(SHAPE, trunk="test_efficientnet", trunk_dim=256)
DRAW = torch.Generator().manual_seed(1)
PATCHES = torch.randn(2, 3, PX, PX, generator=DRAW)
NEIGHBORS = torch.randn(2, 9, FEATURES, generator=DRAW)
MASK = torch.ones(2, 9, dtype=torch.bool)


@pytest.fixture(scope="module", params=[SHAPE, TRUNK], ids=["features", "trunk"])
def network(request) -> HiFusion:
    torch.manual_seed(2)
    network = HiFusion(request.param).eval()
    for name, tensor in network.named_buffers():  # as after a training, so that levels differ
        if name.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(tensor, 0.1, 1.0)
    return network


def levels_and_values(network: HiFusion, patches: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        fused = network.fuse(patches, NEIGHBORS, MASK, torch.zeros(2, 16))
        return fused.levels, network.decode(fused.z)


def rearrange(patches: Tensor, side: int, order: list[int]) -> Tensor:
    """Put sub-patches, numbered row by row, in another order."""
    px = PX // side
    parts = [
        patches[..., r * px : (r + 1) * px, c * px : (c + 1) * px]
        for r in range(side)
        for c in range(side)
    ]
    rows = [
        torch.cat([parts[i] for i in order[r * side : (r + 1) * side]], dim=3) for r in range(side)
    ]
    return torch.cat(rows, dim=2)


WITHIN_QUADRANT = [1, 0, *range(2, 16)]  # the first two of the 4x4 change places
ACROSS_QUADRANTS = [0, 2, 1, *range(3, 16)]


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda p: rearrange(p, 2, [3, 0, 1, 2]), (False, False)),
        (lambda p: rearrange(p, 4, WITHIN_QUADRANT), (True, False)),
        (lambda p: rearrange(p, 4, ACROSS_QUADRANTS), (True, False)),
        (lambda p: p.roll(PX // 8, dims=3), (True, True)),  # pixels move to another sub-patch
        (lambda p: torch.cat([p[..., :4].flip(3), p[..., 4:]], dim=3), (True, True)),
    ],
    ids=["quadrants", "within a quadrant", "across quadrants", "rolled", "within a sub-patch"],
)
def test_what_a_rearrangement_of_the_patch_changes(network, change, changed) -> None:
    levels, values = levels_and_values(network, PATCHES)
    moved_levels, moved_values = levels_and_values(network, change(PATCHES))
    difference = (moved_levels - levels).abs().amax(dim=(0, 2))
    # the whole patch is seen by a trunk, else it is the tile's features
    expected = (network.trunk is not None, *changed)
    assert tuple((difference > 1e-3).tolist()) == expected
    assert (difference[~torch.tensor(expected)] < 1e-5).all()
    if any(expected):
        assert (moved_values - values).abs().max() > 1e-4
    else:
        torch.testing.assert_close(moved_values, values)


def test_tokens_are_those_of_the_sub_patches_alone(network) -> None:
    patches = PATCHES
    if network.trunk is None:  # then the stain has no effect
        std, mean = torch.std_mean(patches, dim=(2, 3), keepdim=True, correction=0)
        brighter = patches * torch.tensor([1.3, 0.8, 1.0]).view(3, 1, 1) + 0.4
        torch.testing.assert_close(network.encode_target(brighter), network.encode_target(patches))
        patches = (patches - mean) / std
    expected = []
    for side in network.config.sides[network.trunk is None :]:
        px = PX // side
        for row in range(side):
            for column in range(side):
                part = patches[..., row * px : (row + 1) * px, column * px : (column + 1) * px]
                tokens = (
                    network.sub_patch(part)
                    if network.trunk is None
                    else network.adapter(network.trunk(part))
                )
                expected.append(tokens.mean(dim=1))
    torch.testing.assert_close(network.encode_target(PATCHES), torch.stack(expected, dim=1))
    # a side that is no multiple of the sub-patches, and no patch at all
    assert network.encode_target(PATCHES[..., :30, :30]).shape == (2, len(expected), 16)
    assert network.encode_target(PATCHES[:0]).shape == (0, len(expected), 16)


def test_tiles_of_the_region_count_where_they_are_on_the_slide(network) -> None:
    target, unused = network.encode_target(PATCHES), torch.zeros(2, 16)
    mask = MASK.clone()
    mask[:, 2] = False
    other = NEIGHBORS.clone()
    other[:, 2] += 1
    with torch.no_grad():
        seen = [
            network.decode(network.fuse_tokens(target, neighbors, visible, unused).z)
            for visible in (MASK, mask)
            for neighbors in (NEIGHBORS, other)
        ]
    assert (seen[0] - seen[1]).abs().max() > 1e-3
    torch.testing.assert_close(seen[2], seen[3])
    assert (seen[0] - seen[2]).abs().max() > 1e-3
    with pytest.raises(SpotsError, match="target tokens"):
        network.fuse_tokens(target[:1], NEIGHBORS, MASK, unused)


def test_the_loss_is_the_literal_one() -> None:
    levels = torch.randn(2, 3, 4, generator=DRAW)
    distance = [
        abs(float(levels[spot, level, i] - levels[spot, 0, i]))
        for spot in range(2)
        for level in (1, 2)
        for i in range(4)
    ]
    assert alignment_loss(levels) == pytest.approx(sum(distance) / len(distance))
    network = HiFusion(SHAPE).eval()
    module = make_lightning_module(network, TrainSettings(method="hifusion"))
    fused = network.fuse(PATCHES, NEIGHBORS, MASK, torch.zeros(2, 16))
    labels = torch.randn(2, GENES, generator=DRAW)
    by_level = [F.mse_loss(network.level_head(fused.levels[:, i]), labels) for i in range(3)]
    expected = F.mse_loss(network.head(fused.z), labels) + sum(by_level) / 3
    loss = module.compute_method_loss(fused, None, labels, None)
    torch.testing.assert_close(loss, expected + alignment_loss(fused.levels))
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_a_folded_trunk_gives_the_same_tokens_of_all_sizes() -> None:
    network = HiFusion(TRUNK).eval()
    optimized = optimize_for_inference(network, torch.device("cpu"), PX)
    list(trace_for_latency(optimized))
    with torch.no_grad():
        expected, found = network.encode_target(PATCHES), optimized.encode_target(PATCHES)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in optimized.trunk.net.net.modules())
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_settings_and_their_limits() -> None:
    small = make_network_config(replace(TrainSettings(), method="hifusion"), 250)
    published = replace(make_preset_settings(SettingsPreset.published), method="hifusion")
    config = make_network_config(published, 250)
    assert (small.trunk_name, small.sides, small.sees_pixels) == ("", (1, 2, 4), True)
    assert (config.trunk_name, config.trunk_dim, config.sides) == ("resnet18", 512, (1, 2, 7))
    for change in ({"finest": 2}, {"trunk": "hf-hub:a/b"}, {"trunk_dim": 3}):
        with pytest.raises(CheckpointError):
            replace(SHAPE, **change)
