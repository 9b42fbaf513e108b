"""The engine gives the numbers of the published path taken literally, 26 encodings a tile."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shapely.geometry import box

from napari_dkan.inference.predict import predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_region
from napari_dkan.model import load_checkpoint
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
    """With norms that are not all 1 and 0, which would prove little."""
    checkpoint = load_checkpoint(tiny_checkpoint_file)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in checkpoint.network.named_parameters():
            if "norm" in name:
                weight.add_(0.3 * torch.randn_like(weight))
        checkpoint.network.label_std.uniform_(0.5, 2)
    return checkpoint


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
