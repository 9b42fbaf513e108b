"""Occlusion attribution: consistent with the prediction, and finds planted signals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_dkan.inference.occlusion import (
    DEFAULT_BLOCKS,
    attribute_gene,
    compute_occluded_tokens,
    occlude_spot,
)
from napari_dkan.inference.predict import find_tissue_region
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.spot_inputs import compute_global_token, fuse_tokens, gather_spot_inputs
from napari_dkan.inference.target import Target, TargetKind
from napari_dkan.model import load_checkpoint
from napari_dkan.model.network.attention_blocks import CrossAttention
from napari_dkan.model.network.ensemble import Ensemble
from napari_dkan.slide import open_slide
from napari_dkan.spatial.spots import Spots

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def attention(monkeypatch):
    """The attention maps of the benchmarks."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import why_attention

    return why_attention


def run_generator(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def predict_point(predictor: Predictor, xy) -> np.ndarray:
    """Predict a point: (G,)."""
    updates = list(predictor.stream(Target(TargetKind.POINTS, Spots(np.array([xy])))))
    return updates[-1].values[0]


@pytest.fixture(scope="module")
def predictor(tiny_slide_file, tiny_checkpoint_file):
    with open_slide(tiny_slide_file) as slide:
        checkpoint = load_checkpoint(tiny_checkpoint_file)
        yield Predictor(slide, checkpoint, 0.7, find_tissue_region(slide, 0.7))


@pytest.fixture(scope="module")
def given(predictor: Predictor):
    point = predictor.tissue.representative_point()
    return run_generator(gather_spot_inputs(predictor.prediction_context, point.x, point.y))


def test_attention_weights_reproduce_the_layer(attention):
    torch.manual_seed(0)
    layer = CrossAttention(16, 4, 0.0).eval()
    x, context = torch.randn(3, 2, 16), torch.randn(3, 7, 16)
    mask = torch.rand(3, 7) > 0.3
    mask[:, 0] = True
    weights = attention.attention_weights(layer, x, context, mask)
    assert weights.shape == (3, 4, 2, 7)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 4, 2))
    assert (weights[~mask[:, None, None].expand_as(weights)] == 0).all()
    values = layer.key_value(layer.norm(context)).chunk(2, dim=-1)[1]
    by_hand = torch.cat([weights[:, h] @ values[..., 4 * h : 4 * h + 4] for h in range(4)], dim=-1)
    torch.testing.assert_close(x + layer.out(by_hand), layer(x, context, mask))


def test_attention_of_an_ensemble_is_the_mean(attention, predictor: Predictor):
    one = predictor.checkpoint.network
    torch.manual_seed(1)
    other = type(one)(one.config, one.gene_features).eval()
    d, k = one.config.dim, one.config.grid**2
    near, mask = torch.randn(2, k, d), torch.ones(2, k, dtype=torch.bool)
    mask[0, :5] = False
    target, tokens = torch.randn(2, 4, 2 * d), torch.randn(2, 2 * d)
    both = attention.fusion_attention(Ensemble([one, other]).eval(), target, near, mask, tokens)
    each = [
        attention.fusion_attention(m, target[..., part], near, mask, tokens[:, part])
        for m, part in ((one, slice(d)), (other, slice(d, None)))
    ]
    for i, size in enumerate((4, k)):
        torch.testing.assert_close(both[i], (each[0][i] + each[1][i]) / 2)
        assert both[i].shape == (2, size)
        torch.testing.assert_close(both[i].sum(dim=1), torch.ones(2))
    assert (both[1][0, :5] == 0).all()


def test_explained_value_is_the_predicted_one_and_genes_differ(predictor: Predictor):
    point = predictor.tissue.representative_point()
    predicted = predict_point(predictor, (point.x, point.y))
    occluded = occlude_spot(
        predictor.prediction_context,
        run_generator(gather_spot_inputs(predictor.prediction_context, point.x, point.y)),
    )
    found = [
        attribute_gene(predictor.prediction_context, occluded, gene)
        for gene in range(len(predicted))
    ]
    np.testing.assert_allclose([f.value for f in found], predicted, atol=1e-5)
    assert np.isnan(found[0].tiles[2, 2]) and np.isfinite(found[0].blocks).all()
    assert not np.allclose(found[0].blocks, found[1].blocks)


def test_occluded_block_agrees_with_the_whole_network(predictor: Predictor, given):
    keep = np.ones((DEFAULT_BLOCKS**2, DEFAULT_BLOCKS**2), bool)
    np.fill_diagonal(keep, False)
    occluded = occlude_spot(predictor.prediction_context, given)
    exact = predictor.decode(
        compute_occluded_tokens(
            predictor.prediction_context, given, keep.reshape(-1, DEFAULT_BLOCKS, DEFAULT_BLOCKS)
        )
    )
    without_patch = predictor.decode(
        compute_occluded_tokens(
            predictor.prediction_context, given, np.zeros((1, DEFAULT_BLOCKS, DEFAULT_BLOCKS), bool)
        )
    )
    for gene in range(3):
        found = attribute_gene(predictor.prediction_context, occluded, gene)
        effect = found.value - exact[:, gene]
        assert np.corrcoef(effect, found.blocks.ravel())[0, 1] > 0.9
        assert found.patch == pytest.approx(found.value - without_patch[0, gene], abs=1e-5)


def test_planted_neighbor_is_found(predictor: Predictor, given):
    """All neighbors but one equal the mean tile: replacing those changes nothing."""
    planted_index = 7
    near = given.mean_feature.repeat(25, 1)
    noise = torch.randn(near.shape[1], generator=torch.Generator().manual_seed(0))
    near[12], near[planted_index] = given.neighbor_features[12], given.mean_feature + 3 * noise
    full_mask = torch.ones_like(given.neighbor_mask)
    found = attribute_gene(
        predictor.prediction_context,
        occlude_spot(
            predictor.prediction_context,
            replace(given, neighbor_features=near, neighbor_mask=full_mask),
        ),
        0,
    )
    effects = np.abs(found.tiles.ravel())
    others = np.delete(effects, [planted_index, 12])
    assert np.isnan(effects[12]) and effects[planted_index] > 1e-4
    assert others.max() < 1e-5
    assert abs(found.neighborhood) == pytest.approx(effects[planted_index], abs=1e-5)


def test_planted_corner_is_found(predictor: Predictor, given):
    """A patch of one color with stripes in one corner whose mean is that color."""
    pixels = np.full((56, 56, 3), 150, np.uint8)
    pixels[:8, 48:, :] = np.where(np.arange(8) % 2, 60, 240)[None, :, None]
    near = given.neighbor_features.clone()
    near[12] = predictor.feature_cache.encode(pixels[None])[0]
    planted = replace(given, pixels=pixels, encoder_tile=pixels, neighbor_features=near)
    effects = np.abs(
        attribute_gene(
            predictor.prediction_context, occlude_spot(predictor.prediction_context, planted), 0
        ).blocks
    )
    assert effects.argmax() == 6 and effects[0, 6] > 1e-4
    effects[0, 6] = 0
    assert effects.max() < 1e-5


def test_deletion_beats_chance_on_a_real_section(data_dir, monkeypatch):
    """Deleting the half with the highest attribution lowers the value below random halves."""
    from napari_dkan.expression.array_geometry import mpp_from_spots
    from napari_dkan.expression.tables.spot_files import read_spots
    from napari_dkan.samples import fetch_her2st_section, find_bundled_checkpoint

    monkeypatch.setenv("NAPARI_DKAN_DATA", str(data_dir))
    paths, random = fetch_her2st_section("C3"), np.random.default_rng(0)
    spots = read_spots(paths.spots)
    checkpoint = load_checkpoint(find_bundled_checkpoint("her2-breast"))
    mpp, gene = mpp_from_spots(spots), checkpoint.panel.row("ERBB2")
    with open_slide(paths.image) as slide:
        predictor = Predictor(slide, checkpoint, mpp, find_tissue_region(slide, mpp))
        occluded = occlude_spot(
            predictor.prediction_context,
            run_generator(gather_spot_inputs(predictor.prediction_context, *spots.xy[90])),
        )
        found = attribute_gene(predictor.prediction_context, occluded, gene)
        order = np.argsort(-found.blocks.ravel())
        orders = [order, order[::-1], *(random.permutation(DEFAULT_BLOCKS**2) for _ in range(4))]
        keep = np.ones((len(orders), DEFAULT_BLOCKS**2), bool)
        for row, each in zip(keep, orders, strict=True):
            row[each[: DEFAULT_BLOCKS**2 // 2]] = False
        tokens = compute_occluded_tokens(
            predictor.prediction_context,
            occluded.inputs,
            keep.reshape(-1, DEFAULT_BLOCKS, DEFAULT_BLOCKS),
        )
        down, up, *random_orders = predictor.decode(tokens, [gene])[:, 0]
        assert down < min(random_orders) and max(random_orders) < up

        near, given = occluded.inputs.neighbor_features, occluded.inputs
        ranked = np.argsort(-found.tiles.ravel())[:24]  # NaN, the patch itself, is last
        orders = [ranked, ranked[::-1], *(random.permutation(ranked) for _ in range(4))]
        without = near.repeat(len(orders), 1, 1)
        for row, each in zip(without, orders, strict=True):
            row[each[:12].copy()] = given.mean_feature
        with torch.no_grad():
            global_token = compute_global_token(predictor.prediction_context, given, near[12])
            tokens = fuse_tokens(
                predictor.prediction_context, given, occluded.target_tokens, without, global_token
            )
        down, up, *random_orders = predictor.decode(tokens, [gene])[:, 0]
        assert down < min(random_orders) and max(random_orders) < up
