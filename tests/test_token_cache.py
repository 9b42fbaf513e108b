"""Cached features, tokens and context windows; damaged tiles; coarse targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box

from napari_dkan.errors import DamagedTileError
from napari_dkan.inference.cache.cache_directory import list_entries
from napari_dkan.inference.cache.keyed_array import KeyedArray
from napari_dkan.inference.context_layout import ContextWindowLayout
from napari_dkan.inference.patch_features.patch_geometry import (
    centers_from_keys,
    compute_neighbor_keys,
    compute_neighbor_masks,
    keys_from_centers,
)
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.spot_batches import SpotQueue
from napari_dkan.inference.target import (
    Target,
    TargetKind,
    make_coarse_target,
    match_coarse_rows,
    target_from_region,
)
from napari_dkan.model import load_checkpoint
from napari_dkan.slide import open_slide
from napari_dkan.spatial.spots import Spots
from napari_dkan.spatial.tile_grid import TileGrid

if TYPE_CHECKING:
    from napari_dkan.slide.slide import Slide


MPP = 0.7


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    """Use an empty cache folder."""
    monkeypatch.setenv("NAPARI_DKAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def slide(tiny_slide_file):
    with open_slide(tiny_slide_file) as opened:
        yield opened


@pytest.fixture
def make_predictor(slide: Slide, tiny_checkpoint_file):
    def predictor(**options):
        checkpoint = load_checkpoint(tiny_checkpoint_file)
        return Predictor(slide, checkpoint, MPP, find_tissue_region(slide, MPP), "cpu", **options)

    return predictor


@pytest.fixture
def read_centers(slide: Slide, monkeypatch):
    """Centers (x, y) of all patches that are read."""
    original, centers = slide.read_patch, []

    def read_patch(x, y, *rest):
        centers.append((x, y))
        return original(x, y, *rest)

    monkeypatch.setattr(slide, "read_patch", read_patch)
    return centers


def make_dense_target(predictor: Predictor, slide: Slide):
    um = predictor.checkpoint.patch.um
    return target_from_region(
        predictor.tissue, um, MPP, slide.width, slide.height, predictor.tissue
    )


def test_dense_grid_encodes_each_patch_once_with_equal_values(
    make_predictor, slide: Slide, monkeypatch
):
    predictor = make_predictor()
    target = make_dense_target(predictor, slide)
    encoder, encoded = predictor.feature_cache.encoder, []
    forward = type(encoder).forward

    def counting(self, tiles):
        encoded.append(len(tiles))
        return forward(self, tiles)

    monkeypatch.setattr(type(encoder), "forward", counting)
    values = predict(predictor, target).values
    xy, side = target.spots.xy, predictor.patch_side_px
    neighbor_keys = compute_neighbor_keys(xy, side, 5)
    masks = compute_neighbor_masks(slide, xy, side, 5)
    needed = {tuple(k) for k in neighbor_keys[masks].tolist()}
    assert sum(encoded) == len(needed) < 26 * len(target) / 4
    monkeypatch.undo()

    # Reference: 26 patches a tile, each read and encoded separately.
    network, px = predictor.checkpoint.network, encoder.spec.px
    tiles = [
        [slide.read_patch(x, y, side, px) for x, y in centers_from_keys(keys).tolist()]
        for keys in neighbor_keys
    ]
    pixels = torch.from_numpy(np.array(tiles)).permute(0, 1, 4, 2, 3)
    centers_pixels = np.stack(
        [slide.read_patch(x, y, side, 56) for x, y in centers_from_keys(keys_from_centers(xy))]
    )
    with torch.no_grad():
        features = torch.stack([torch.cat([encoder(t[None]) for t in each]) for each in pixels])
        expected = network.predict(
            predictor.prediction_context.normalize_patches(centers_pixels),
            features[:, 12],
            torch.from_numpy(target.grid.cells),
            features,
            torch.from_numpy(masks),
        )["final"]
    np.testing.assert_allclose(values, expected.numpy(), atol=1e-4)


def test_second_job_and_second_predictor_read_nothing(make_predictor, slide: Slide, read_centers):
    predictor = make_predictor(use_disk_cache=True)
    target = make_dense_target(predictor, slide)
    first = predict(predictor, target)
    assert read_centers
    read_centers.clear()
    np.testing.assert_array_equal(predict(predictor, target).tokens, first.tokens)
    second_predictor = make_predictor(use_disk_cache=True)
    assert second_predictor.count_cached_spots(target) == len(target)
    stages = [u.stage for u in second_predictor.stream(target)]
    assert set(stages) == {"known"} and not read_centers
    second = predict(second_predictor, target)
    np.testing.assert_array_equal(second.tokens, first.tokens)
    np.testing.assert_array_equal(second.qc_features, first.qc_features)
    assert np.isfinite(first.qc_features).all()
    np.testing.assert_allclose(second.values, first.values, atol=1e-6)
    # Another grid reads the tiles that it does not share.
    other = make_predictor(use_disk_cache=True)
    predict(other, target_from_region(other.tissue, 140.0, MPP, slide.width, slide.height))
    assert read_centers


def test_spots_of_a_section_are_encoded_once_over_restarts(make_predictor, monkeypatch):
    array = np.array([(0, 0), (1, 0), (0, 1)])
    target = Target(TargetKind.ARRAY, Spots(200.3 + 90.7 * array, array, pitch_um=63.5))
    first = predict(make_predictor(use_disk_cache=True), target).values
    restarted, encoded = make_predictor(use_disk_cache=True), []
    monkeypatch.setattr(type(restarted.feature_cache.encoder), "forward", encoded.append)
    np.testing.assert_allclose(predict(restarted, target).values, first, atol=1e-6)
    assert not encoded and np.isfinite(first).all()


def test_changed_slide_file_is_detected(tiny_slide_file, tiny_checkpoint_file, tmp_path):
    file = tmp_path / "slide.ome.tif"
    file.write_bytes(tiny_slide_file.read_bytes())
    warnings = []
    for flipped in (False, True):
        if flipped:
            import tifffile

            pixels = tifffile.imread(tiny_slide_file)[::-1].copy()
            tifffile.imwrite(file, pixels, photometric="rgb", tile=(256, 256))
        with open_slide(file) as slide:
            tissue = find_tissue_region(slide, MPP)
            checkpoint = load_checkpoint(tiny_checkpoint_file)
            predictor = Predictor(slide, checkpoint, MPP, tissue, "cpu", use_disk_cache=True)
            target = make_dense_target(predictor, slide)
            assert predictor.count_cached_spots(target) == 0
            predict(predictor, target)
            warnings.append(predictor.token_cache.warning)
    assert warnings[0] == "" and "slide.ome.tif has changed" in warnings[1]


def test_tokens_of_another_tissue_are_not_used(make_predictor, slide: Slide, read_centers):
    predictor = make_predictor(use_disk_cache=True)
    target = make_dense_target(predictor, slide)
    predict(predictor, target)
    predictor.tissue = predictor.tissue.buffer(-60)
    assert predictor.count_cached_spots(target) == 0


def test_damaged_tiles_fail_and_can_be_retried(make_predictor, slide: Slide, monkeypatch):
    predictor = make_predictor()
    target = make_dense_target(predictor, slide)
    undamaged = predict(make_predictor(), target).values
    read = slide.read_patch
    damaged_center = target.spots.xy[len(target) // 2]

    def damaged(x, y, *rest):
        if abs(x - damaged_center[0]) < 1 and abs(y - damaged_center[1]) < 1:
            raise DamagedTileError("nothing can be read there")
        return read(x, y, *rest)

    monkeypatch.setattr(slide, "read_patch", damaged)
    prediction = predict(predictor, target)
    affected = np.abs(target.spots.xy - damaged_center).max(axis=1) < 2.5 * predictor.patch_side_px
    np.testing.assert_array_equal(prediction.failed_mask, affected)
    assert (
        np.isnan(prediction.values[affected]).all()
        and np.isfinite(prediction.values[~affected]).all()
    )
    assert len(prediction.select_predicted().target) == (~affected).sum()
    monkeypatch.undo()
    # Tokens of a context without the damaged tile are not cached.
    np.testing.assert_allclose(predict(predictor, target).values, undamaged, atol=1e-5)


def test_genes_decoded_later_have_equal_values(make_predictor, slide: Slide):
    predictor = make_predictor()
    target = make_dense_target(predictor, slide)
    at_once = predict(predictor, target)
    columns = iter([[0], [2], [4]] * 1000)
    predictor.clear_cache()
    predictor.batch_sizes.limit(3)
    tokens = np.empty_like(at_once.tokens)
    for update in predictor.stream(target, genes=lambda: next(columns)):
        if len(update.rows):
            tokens[update.rows] = update.tokens
            expected = at_once.values[np.ix_(update.rows, update.gene_columns)]
            np.testing.assert_allclose(update.values, expected, atol=1e-5)
    np.testing.assert_allclose(predictor.decode(tokens), at_once.values, atol=1e-5)


def test_precomputed_context_is_not_read_again(make_predictor, read_centers):
    predictor = make_predictor()
    xy = np.array([[700.0, 600.0]])
    assert list(predictor.precompute_context(xy)) and read_centers
    read_centers.clear()
    list(predictor.stream(Target(TargetKind.POINTS, Spots(xy))))
    assert len(read_centers) <= 26
    read_centers.clear()
    list(predictor.stream(Target(TargetKind.POINTS, Spots(xy))))
    assert len(read_centers) == 1  # pixels of the trunk


@given(
    st.floats(100, 3000),
    st.integers(50, 20_000),
    st.integers(50, 20_000),
    st.integers(0, 2**32 - 1),
)
def test_windows_of_a_zone_contain_its_points_and_are_blended_without_a_step(
    side, width, height, seed
):
    layout = ContextWindowLayout(side, width, height)
    start = np.random.default_rng(seed).uniform((0, 0), (width, height), (12, 2))
    apart = 1e-3 * side
    xy = np.concatenate([start, np.minimum(start + apart, (width, height))])
    corners = []  # of the windows, blended
    for point, zone in zip(xy, map(tuple, layout.find_zones(xy)), strict=True):
        windows = layout.list_windows(zone)
        for window in windows:
            x0, y0, x1, y1 = layout.get_bounds(*window)
            assert x0 <= point[0] <= x1 + 1e-6 and y0 <= point[1] <= y1 + 1e-6
            assert x0 >= 0 and y0 >= 0 and x1 <= width + 1e-6 and y1 <= height + 1e-6
            assert x1 - x0 <= side + 1e-6 and y1 - y0 <= side + 1e-6
        (weights,) = layout.compute_weights(point[None], zone)
        assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
        corners.append(weights @ np.array([layout.get_bounds(*window)[:2] for window in windows]))
    first, second = np.split(np.array(corners), 2)
    assert np.abs(first - second).max() < 2.01 * apart
    if max(width, height) <= side:
        assert not layout.find_zones(xy).any()


def test_a_zone_is_finished_before_the_next():
    x, y = np.meshgrid(np.arange(8), np.arange(6))
    xy = np.stack([x.ravel(), y.ravel()], axis=1).astype(float)
    zones = (xy // (3, 4)).astype(np.int64)
    queue, popped = SpotQueue(xy, zones), []
    while len(queue):
        rows, zone = queue.pop_batch(5)
        assert (zones[rows] == zone).all() and (np.diff(rows) > 0).all()
        popped.append(zone)
    assert popped == sorted(popped, key=lambda zone: zone[::-1])


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_keyed_array_is_correct_and_bounded(seed, max_rows):
    rng, width = np.random.default_rng(seed), 3
    rows = KeyedArray(width, capacity=2 * max_rows * 4 * width)
    for _ in range(10):
        keys = rng.integers(-50, 50, (20, 2))
        values = (keys.sum(axis=1, keepdims=True) * np.ones(width)).astype(np.float32)
        rows.add(keys, values)
        found, known = rows.get(keys)
        assert known.all()
        np.testing.assert_array_equal(found, values)
        older = rng.integers(-50, 50, (20, 2))
        found, known = rows.get(older)
        np.testing.assert_array_equal(found[known][:, 0], older[known].sum(axis=1))
        assert (found[~known] == 0).all()
        assert len(rows) <= 2 * (max_rows + 40)


@given(st.floats(50, 500), st.integers(0, 300), st.integers(0, 300))
def test_neighbors_on_a_dense_grid_have_the_keys_of_its_tiles(side, column, row):
    cells = np.array([[column + i, row + j] for j in range(5) for i in range(5)])
    centres = (cells + 0.5) * side
    np.testing.assert_array_equal(
        compute_neighbor_keys(centres[12][None], side, 5)[0], keys_from_centers(centres)
    )


def test_coarse_target_has_the_middle_tiles_of_blocks():
    x, y = np.meshgrid(np.arange(7, 80), np.arange(3, 70))
    cells = np.stack([x.ravel(), y.ravel()], axis=1)
    grid = TileGrid(100.0, 50.0, cells)
    fine = Target(TargetKind.GRID, grid.to_spots(), grid)
    coarse = make_coarse_target(fine)
    assert 20 < len(coarse) <= 100 and coarse.kind is TargetKind.ARRAY
    np.testing.assert_allclose(coarse.grid.centres, coarse.spots.xy)
    assert {tuple(c) for c in coarse.spots.xy} <= {tuple(c) for c in grid.centres}
    blocks = match_coarse_rows(grid, coarse.grid)
    assert (blocks >= 0).mean() > 0.8
    inside = np.abs(grid.centres - coarse.grid.centres[blocks]).max(axis=1) <= coarse.grid.pitch / 2
    assert inside[blocks >= 0].all()
    assert (
        make_coarse_target(
            Target(TargetKind.GRID, fine.spots.take(np.arange(50)), grid.take(np.arange(50)))
        )
        is None
    )


def test_region_off_the_tissue_is_predicted_and_not_cached(make_predictor, slide: Slide):
    predictor = make_predictor(use_disk_cache=True)
    corner = box(20, 20, 340, 340)
    target = target_from_region(
        corner, predictor.checkpoint.patch.um, MPP, slide.width, slide.height
    )
    values = predict(predictor, target).values
    assert np.isfinite(values).all()
    assert predictor.count_cached_spots(target) < len(target)


def test_grids_of_two_pitches_share_no_tokens_on_disk(
    make_predictor, slide: Slide, tmp_path
) -> None:
    """The context of a tile is its grid, so the same tile has other tokens on another grid."""

    def predict_grid(pitch_um: float, use_disk_cache: bool) -> np.ndarray:
        predictor = make_predictor(use_disk_cache=use_disk_cache)
        target = target_from_region(predictor.tissue, pitch_um, MPP, slide.width, slide.height)
        assert predictor.count_cached_spots(target) == 0
        return predict(predictor, target).tokens

    for pitch_um in (200.0, 400.0):
        cached = predict_grid(pitch_um, use_disk_cache=True)
        computed = predict_grid(pitch_um, use_disk_cache=False)
        np.testing.assert_allclose(cached, computed, atol=1e-5)
    keys = [e.key for e in list_entries(tmp_path / "cache") if e.key is not None]
    pitches = sorted(dict(key.made_by)["pitch"] for key in keys if key.what == "tokens")
    assert len(pitches) == 2 and pitches[0] < pitches[1]
