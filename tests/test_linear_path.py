"""A linear path is carried in the checkpoint and enters every prediction of the panel's genes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_dkan.inference.occlusion import attribute_gene, occlude_spot
from napari_dkan.inference.predict import find_tissue_region
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.spot_inputs import gather_spot_inputs
from napari_dkan.inference.target import Target, TargetKind
from napari_dkan.model import Checkpoint, load_checkpoint, save_checkpoint
from napari_dkan.model.checkpoint.checkpoint_header import read_checkpoint_header
from napari_dkan.model.network.ensemble import Ensemble, combine_members, list_members
from napari_dkan.model.network.linear_path import LinearFit, LinearPath, average_scales
from napari_dkan.model.ridge_regression import compute_multi_scale_features
from napari_dkan.model.safetensors_header import read_safetensors_header
from napari_dkan.slide import Slide, open_slide
from napari_dkan.spatial.spots import Spots


@pytest.fixture(scope="module")
def parent(tiny_checkpoint_file: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint_file)


def make_fit(checkpoint: Checkpoint, rank: int = 3) -> LinearFit:
    """A fit of low rank in the tile features, and of every other kind of weight."""
    config, rng = checkpoint.network.config, np.random.default_rng(4)
    inputs, genes = 3 * config.dim, config.genes
    return LinearFit(
        share=rng.uniform(0, 1, genes),
        token_weights=rng.normal(0, 0.3, (config.members_dim, genes)),
        tile_weights=rng.normal(size=(inputs, rank)) @ rng.normal(size=(rank, genes)),
        mean=rng.normal(size=inputs),
        offset=rng.normal(size=genes),
    )


@pytest.fixture(scope="module")
def fit(parent: Checkpoint) -> LinearFit:
    return make_fit(parent)


@pytest.fixture(scope="module")
def carried(parent: Checkpoint, fit: LinearFit, tmp_path_factory) -> Checkpoint:
    network = combine_members(list_members(parent.network), LinearPath.from_fit(fit))
    path = tmp_path_factory.mktemp("linear") / "linear.safetensors"
    save_checkpoint(path, replace(parent, network=network))
    return load_checkpoint(path)


@pytest.fixture(scope="module")
def slide(tiny_slide_file: Path):
    with open_slide(tiny_slide_file) as opened:
        yield opened


def make_predictor(slide: Slide, checkpoint: Checkpoint) -> Predictor:
    return Predictor(slide, checkpoint, 0.7, find_tissue_region(slide, 0.7))


def section_inputs(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    config, px = checkpoint.network.config, checkpoint.patch.px
    draw = torch.Generator().manual_seed(5)
    mask = torch.rand(7, config.grid**2, generator=draw) > 0.3
    mask[:, config.grid**2 // 2] = True
    return {
        "patches": torch.randn(7, 3, px, px, generator=draw),
        "slide_features": torch.randn(7, config.dim, generator=draw),
        "positions": torch.stack([torch.arange(7) // 3, torch.arange(7) % 3], dim=1),
        "neighbor_features": torch.randn(7, config.grid**2, config.dim, generator=draw),
        "neighbor_mask": mask,
    }


def test_scales_are_those_of_the_ridge_baseline() -> None:
    features = torch.randn(4, 25, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(4, 25, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[:, 12] = True
    expected = compute_multi_scale_features(features.numpy(), mask.numpy())
    np.testing.assert_allclose(average_scales(features, mask), expected, atol=1e-6)


def test_a_reopened_checkpoint_predicts_what_was_fitted(
    parent: Checkpoint, carried: Checkpoint, fit: LinearFit
) -> None:
    inputs = section_inputs(parent)
    network = parent.network
    neighbors = network.standardize_by_slide(inputs["neighbor_features"], inputs["slide_features"])
    with torch.no_grad():
        tokens = network.encode_global(inputs["slide_features"], inputs["positions"])
        z = network.fuse(inputs["patches"], neighbors, inputs["neighbor_mask"], tokens).z
    prior = network.predict(**inputs)["final"]
    x = compute_multi_scale_features(neighbors.numpy(), inputs["neighbor_mask"].numpy())
    expected = fit.predict(prior.double().numpy(), z.double().numpy(), x)
    predicted = carried.network.predict(**inputs)
    np.testing.assert_allclose(predicted["final"], expected, atol=2e-4)
    assert not np.allclose(prior, expected, atol=0.1)
    # the auxiliary heads are the members' own
    torch.testing.assert_close(predicted["global"], network.predict(**inputs)["global"])


def test_the_header_states_the_path_and_old_files_know_nothing_of_it(
    parent: Checkpoint, carried: Checkpoint
) -> None:
    assert carried.path is not None and parent.path is not None
    header = read_checkpoint_header(carried.path)
    assert header.config.linear == 3
    assert header.config.token_dim == parent.network.config.token_dim + 3
    assert header.n_parameters == carried.header.n_parameters
    old = parent.network.config
    assert old.linear == 0 and "linear" not in old.to_json()
    assert not any("linear" in name for name in read_safetensors_header(parent.path).tensors)


def test_the_engine_predicts_the_same_and_decodes_later_from_tokens(
    slide: Slide, parent: Checkpoint, carried: Checkpoint, fit: LinearFit
) -> None:
    points = np.array([[p.x, p.y] for p in [find_tissue_region(slide, 0.7).centroid]])
    points = np.concatenate([points, points + 40.0])
    target = Target(TargetKind.POINTS, Spots(points))
    predictor = make_predictor(slide, carried)
    (update,) = (u for u in predictor.stream(target) if len(u.rows))
    assert update.tokens.shape[1] == carried.network.config.token_dim
    order = np.argsort(update.rows)
    later = predictor.decode(update.tokens, [1])
    np.testing.assert_allclose(later[:, 0], update.values[:, 1], atol=1e-5)
    (plain,) = (u for u in make_predictor(slide, parent).stream(target) if len(u.rows))
    z = update.tokens[order, : parent.network.config.token_dim]
    np.testing.assert_allclose(z, plain.tokens[np.argsort(plain.rows)], atol=1e-5)
    # what the path adds, from the inputs of one of the points
    given = _run(gather_spot_inputs(predictor.prediction_context, *points[0]))
    near = predictor.global_context.standardize(
        given.neighbor_features[None], given.zone_context, given.window_weights
    )
    x = compute_multi_scale_features(near.numpy(), given.neighbor_mask[None].numpy())
    prior = plain.values[np.argsort(plain.rows)][:1].astype(float)
    np.testing.assert_allclose(
        update.values[order][:1], fit.predict(prior, z[:1].astype(float), x), atol=1e-3
    )


def test_occlusion_sees_the_path(slide: Slide, carried: Checkpoint) -> None:
    predictor = make_predictor(slide, carried)
    point = predictor.tissue.representative_point()
    given = _run(gather_spot_inputs(predictor.prediction_context, point.x, point.y))
    found = attribute_gene(
        predictor.prediction_context, occlude_spot(predictor.prediction_context, given), 1
    )
    updates = list(
        predictor.stream(Target(TargetKind.POINTS, Spots(np.array([[point.x, point.y]]))))
    )
    assert found.value == pytest.approx(float(updates[-1].values[0, 1]), abs=1e-4)
    assert np.isfinite(found.blocks).all()


def test_occlusion_maps_leave_out_a_level_that_is_common_to_all_genes(
    slide: Slide, parent: Checkpoint
) -> None:
    """The path of depth moves the value; the map is that of the networks."""
    fit, rng = make_fit(parent, rank=1), np.random.default_rng(1)
    of_depth = replace(
        fit,
        share=np.ones_like(fit.share),
        token_weights=0 * fit.token_weights,
        tile_weights=rng.normal(0, 3.0, (len(fit.mean), 1)) @ fit.tile_weights[:1],
    )
    found = []
    for path in (None, of_depth, replace(of_depth, token_weights=fit.token_weights)):
        linear = None if path is None else LinearPath.from_fit(path)
        network = combine_members(list_members(parent.network), linear)
        context = make_predictor(slide, replace(parent, network=network)).prediction_context
        point = context.tissue.representative_point()
        occluded = occlude_spot(context, _run(gather_spot_inputs(context, point.x, point.y)))
        found.append(attribute_gene(context, occluded, 1))
    plain, beside, mixed = found
    assert [f.is_beside_depth for f in found] == [False, True, False]
    np.testing.assert_allclose(beside.blocks, plain.blocks, atol=1e-4)
    np.testing.assert_allclose(beside.tiles, plain.tiles, atol=1e-4)
    assert abs(beside.patch - plain.patch) > 0.01 and abs(beside.value - plain.value) > 0.01
    assert np.abs(mixed.blocks - plain.blocks).max() > 0.01


def test_the_gradient_of_a_gene_is_that_of_its_values(slide: Slide, carried: Checkpoint) -> None:
    decoder = make_predictor(slide, carried).decoder
    tokens = torch.randn(1, carried.network.config.token_dim, requires_grad=True)
    value = decoder.decode_for_gradient(tokens, 2)[0]
    (gradient,) = torch.autograd.grad(value, tokens)
    step = torch.zeros_like(tokens)
    step[0, -1] = 1e-2  # a number of the linear path
    moved = decoder.decode((tokens + step).detach(), [2])[0, 0]
    assert float(value.detach()) == pytest.approx(float(decoder.decode(tokens.detach(), [2])[0, 0]))
    assert (moved - float(value.detach())) / 1e-2 == pytest.approx(float(gradient[0, -1]), rel=1e-2)


def test_more_directions_than_are_carried_lose_the_weakest(parent: Checkpoint) -> None:
    fit = make_fit(parent, rank=3)
    u, s, v = np.linalg.svd(fit.tile_weights, full_matrices=False)
    path = LinearPath.from_fit(fit, max_features=2)
    assert path.n_features == 2
    kept = path.axes.double().numpy() @ path.weights[path.token_dim :].double().numpy()
    np.testing.assert_allclose(kept, u[:, :2] * s[:2] @ v[:2], atol=1e-4)


def test_new_genes_are_left_to_the_networks(parent: Checkpoint, fit: LinearFit) -> None:
    path = LinearPath.from_fit(fit)
    extended = path.extend(2)
    genes = len(fit.offset)
    prior, tokens = torch.randn(3, genes + 2), torch.randn(3, path.token_dim + path.n_features)
    predicted = extended(prior, tokens)
    torch.testing.assert_close(predicted[:, genes:], prior[:, genes:])
    torch.testing.assert_close(predicted[:, :genes], path(prior[:, :genes], tokens))


def test_members_and_path_are_one_ensemble(carried: Checkpoint) -> None:
    network = carried.network
    assert isinstance(network, Ensemble) and network.linear is not None
    assert len(list_members(network)) == 1


def _run(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value
