"""The engine gives the numbers of the published path taken literally, 26 encodings a tile.

Whatever is made faster in the engine, these numbers stay: the literal path uses none of it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shapely.geometry import box

from napari_dkan.expression.array_geometry import mpp_from_spots
from napari_dkan.expression.tables.spot_files import read_spots
from napari_dkan.inference.predict import predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_region, target_from_spots
from napari_dkan.model import DKAN, load_checkpoint
from napari_dkan.model.network.dkan_config import NO_TRUNK
from napari_dkan.model.network.ensemble import combine_members
from napari_dkan.model.network.linear_path import LinearPath
from napari_dkan.slide import open_slide

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
MPP = 0.7


@pytest.fixture
def literal_path(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("literal", "published_step"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import literal

    return literal.LiteralPath


@pytest.fixture
def checkpoint(tiny_checkpoint_file) -> Any:
    checkpoint = load_checkpoint(tiny_checkpoint_file)
    torch.manual_seed(1)
    with_uneven_norms(checkpoint.network)
    return checkpoint


def with_uneven_norms(network: DKAN) -> DKAN:
    """Norms that are not all 1 and 0, which would prove little."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "norm" in name:
                weight.add_(0.3 * torch.randn_like(weight))
        network.label_std.uniform_(0.5, 2)
    return network


@pytest.fixture
def bundled_form(checkpoint) -> Any:
    """Of the shape of the bundled checkpoint: an ensemble without a trunk, beside a linear path."""
    old = checkpoint.network.config
    config = replace(old, dim=8, trunk=NO_TRUNK, trunk_dim=8, features=old.dim, standardise=True)
    members = [DKAN(config, checkpoint.network.gene_features).eval() for _ in range(2)]
    linear = LinearPath(2 * config.dim, old.dim, 1, config.genes)
    with torch.no_grad():
        for weight in linear.parameters():
            weight.normal_(0, 0.3)
    network = combine_members([with_uneven_norms(member) for member in members], linear)
    return replace(checkpoint, network=network)


@pytest.mark.parametrize("corner", [(0, 0), (480, 320)], ids=["at the edge", "inside"])
def test_a_dense_map_equals_the_published_path(tiny_slide_file, checkpoint, literal_path, corner):
    side = checkpoint.patch.um / MPP
    x, y = corner
    region = box(x, y, x + 4 * side, y + 4 * side)
    with open_slide(tiny_slide_file) as slide:
        predictor = Predictor(slide, checkpoint, MPP, region, "cpu")
        target = target_from_region(region, checkpoint.patch.um, MPP, slide.width, slide.height)
        assert len(target) == 16
        ours = predict(predictor, target).values

        encoder = checkpoint.build_tile_encoder()
        literal = literal_path(slide, checkpoint.network, encoder, side, checkpoint.patch.px)
        xy, positions = target.spots.xy, torch.from_numpy(target.spots.array_coords)
        features = torch.stack([literal.own_feature(*place) for place in xy])
        some = np.array([0, 3, 6, 13])
        published = literal.predict(xy[some], torch.from_numpy(some), features, positions)
    assert np.ptp(published.numpy(), axis=0).min() > 1e-3  # the tiles do differ
    np.testing.assert_allclose(ours[some], published.numpy(), atol=1e-4)


@pytest.mark.parametrize("form", ["checkpoint", "bundled_form"])
def test_spots_of_a_real_section_equal_the_published_path(data_dir, literal_path, form, request):
    """To 1e-5, as any change of the engine has to leave them.

    Patches of whole pixels, which are not resampled: blocks of patches round pixels differently.
    """
    spots = read_spots(data_dir / "her2st" / "crop" / "C3_crop_selection.tsv")
    spots = replace(spots, xy=spots.xy.round())
    mpp = mpp_from_spots(spots)
    checkpoint = request.getfixturevalue(form)
    side = checkpoint.patch.px
    checkpoint = replace(checkpoint, patch=replace(checkpoint.patch, um=side * mpp))
    with open_slide(data_dir / "her2st" / "crop" / "C3_crop.jpg") as slide:
        predictor = Predictor(slide, checkpoint, mpp, box(0, 0, 1, 1), "cpu")
        target = target_from_spots(spots, slide.width, slide.height)
        ours = predict(predictor, target).values

        encoder = checkpoint.build_tile_encoder()
        literal = literal_path(slide, checkpoint.network, encoder, side, checkpoint.patch.px)
        features = torch.stack([literal.own_feature(*place) for place in spots.xy])
        positions = torch.from_numpy(spots.array_coords)
        published = literal.predict(spots.xy, torch.arange(len(spots)), features, positions)
    assert np.ptp(published.numpy(), axis=0).min() > 1e-2  # the spots do differ
    apart = np.abs(ours - published.numpy()).max(axis=1)
    # A pixel at a threshold of the stain statistics is counted or not by rounding.
    assert (apart <= 1e-5).mean() > 0.95 and apart.max() < 2e-3, np.sort(apart)[-5:]
