"""What the engine computes once and keeps, and what it does where a slide is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box

from napari_dkan.errors import DamagedTileError
from napari_dkan.inference.cache.keyed_array import KeyedArray
from napari_dkan.inference.global_context import ContextWindowLayout
from napari_dkan.inference.patch_features.patch_geometry import (
    centers_from_keys,
    compute_neighbor_keys,
    compute_neighbor_masks,
    keys_from_centers,
)
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
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
def own_cache(monkeypatch, tmp_path):
    """Nothing that another test has kept is known here."""
    monkeypatch.setenv("NAPARI_DKAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def slide(tiny_slide_file):
    with open_slide(tiny_slide_file) as opened:
        yield opened


@pytest.fixture
def make(slide: Slide, tiny_checkpoint_file):
    def predictor(**options):
        checkpoint = load_checkpoint(tiny_checkpoint_file)
        return Predictor(slide, checkpoint, MPP, find_tissue_region(slide, MPP), "cpu", **options)

    return predictor


@pytest.fixture
def reads(slide: Slide, monkeypatch):
    """Every square that is read, as (x, y)."""
    read, seen = slide.read_patch, []

    def spy(x, y, *rest):
        seen.append((x, y))
        return read(x, y, *rest)

    monkeypatch.setattr(slide, "read_patch", spy)
    return seen


def dense(predictor: Predictor, slide: Slide):
    um = predictor.checkpoint.patch.um
    return target_from_region(
        predictor.tissue, um, MPP, slide.width, slide.height, predictor.tissue
    )


def test_on_a_dense_grid_every_patch_is_encoded_once_and_gives_the_literal_numbers(
    make, slide: Slide, monkeypatch
):
    predictor = make()
    target = dense(predictor, slide)
    encoder, encoded = predictor.feature_cache.encoder, []
    forward = type(encoder).forward

    def counting(self, tiles):
        encoded.append(len(tiles))
        return forward(self, tiles)

    monkeypatch.setattr(type(encoder), "forward", counting)
    values = predict(predictor, target).values
    xy, side = target.spots.xy, predictor.patch_side_px
    around = compute_neighbor_keys(xy, side, 5)
    masks = compute_neighbor_masks(slide, xy, side, 5)
    needed = {tuple(k) for k in around[masks].tolist()}
    assert sum(encoded) == len(needed) < 26 * len(target) / 4
    monkeypatch.undo()

    # the specification's way: 26 patches a tile, each read and encoded on its own
    network, px = predictor.checkpoint.network, encoder.spec.px
    tiles = [
        [slide.read_patch(x, y, side, px) for x, y in centers_from_keys(keys).tolist()]
        for keys in around
    ]
    pixels = torch.from_numpy(np.array(tiles)).permute(0, 1, 4, 2, 3)
    own = np.stack(
        [slide.read_patch(x, y, side, 56) for x, y in centers_from_keys(keys_from_centers(xy))]
    )
    with torch.no_grad():
        features = torch.stack([torch.cat([encoder(t[None]) for t in each]) for each in pixels])
        literal = network.predict(
            predictor.prediction_context.normalize_patches(own),
            features[:, 12],
            torch.from_numpy(target.grid.cells),
            features,
            torch.from_numpy(masks),
        )["final"]
    np.testing.assert_allclose(values, literal.numpy(), atol=1e-4)


def test_a_second_job_and_a_second_visit_read_nothing(make, slide: Slide, reads):
    predictor = make(use_disk_cache=True)
    target = dense(predictor, slide)
    first = predict(predictor, target)
    assert reads
    reads.clear()
    np.testing.assert_array_equal(predict(predictor, target).tokens, first.tokens)
    again = make(use_disk_cache=True)
    assert again.count_cached_spots(target) == len(target)
    stages = [u.stage for u in again.stream(target)]
    assert set(stages) == {"known"} and not reads
    second = predict(again, target)
    np.testing.assert_array_equal(second.tokens, first.tokens)
    np.testing.assert_array_equal(second.qc_features, first.qc_features)
    assert np.isfinite(first.qc_features).all()
    np.testing.assert_allclose(second.values, first.values, atol=1e-6)
    # another grid finds the features of the tiles it shares, and of its own none
    other = make(use_disk_cache=True)
    predict(other, target_from_region(other.tissue, 140.0, MPP, slide.width, slide.height))
    assert reads


def test_a_slide_replaced_under_its_name_is_noticed(
    tiny_slide_file, tiny_checkpoint_file, tmp_path
):
    file = tmp_path / "slide.ome.tif"
    file.write_bytes(tiny_slide_file.read_bytes())
    warnings = []
    for turned in (False, True):
        if turned:
            import tifffile

            pixels = tifffile.imread(tiny_slide_file)[::-1].copy()
            tifffile.imwrite(file, pixels, photometric="rgb", tile=(256, 256))
        with open_slide(file) as slide:
            tissue = find_tissue_region(slide, MPP)
            checkpoint = load_checkpoint(tiny_checkpoint_file)
            predictor = Predictor(slide, checkpoint, MPP, tissue, "cpu", use_disk_cache=True)
            target = dense(predictor, slide)
            assert predictor.count_cached_spots(target) == 0
            predict(predictor, target)
            warnings.append(predictor.token_cache.warning)
    assert warnings[0] == "" and "slide.ome.tif has changed" in warnings[1]


def test_another_tissue_outline_is_another_context(make, slide: Slide, reads):
    predictor = make(use_disk_cache=True)
    target = dense(predictor, slide)
    predict(predictor, target)
    predictor.tissue = predictor.tissue.buffer(-60)
    assert predictor.count_cached_spots(target) == 0


def test_damaged_tiles_fail_alone_and_can_be_tried_again(make, slide: Slide, monkeypatch):
    predictor = make()
    target = dense(predictor, slide)
    whole = predict(make(), target).values
    read = slide.read_patch
    bad = target.spots.xy[len(target) // 2]

    def damaged(x, y, *rest):
        if abs(x - bad[0]) < 1 and abs(y - bad[1]) < 1:
            raise DamagedTileError("nothing can be read there")
        return read(x, y, *rest)

    monkeypatch.setattr(slide, "read_patch", damaged)
    some = predict(predictor, target)
    reach = np.abs(target.spots.xy - bad).max(axis=1) < 2.5 * predictor.patch_side_px
    np.testing.assert_array_equal(some.failed_mask, reach)
    assert np.isnan(some.values[reach]).all() and np.isfinite(some.values[~reach]).all()
    assert len(some.select_predicted().target) == (~reach).sum()
    monkeypatch.undo()
    # what was computed without the damaged tile in its context is not kept either
    np.testing.assert_allclose(predict(predictor, target).values, whole, atol=1e-5)


def test_genes_decoded_later_are_those_decoded_at_once(make, slide: Slide):
    predictor = make()
    target = dense(predictor, slide)
    at_once = predict(predictor, target)
    asked = iter([[0], [2], [4]] * 1000)
    predictor.clear_cache()
    predictor.batch_sizes.limit(3)
    tokens = np.empty_like(at_once.tokens)
    for update in predictor.stream(target, genes=lambda: next(asked)):
        if len(update.rows):
            tokens[update.rows] = update.tokens
            wanted = at_once.values[np.ix_(update.rows, update.gene_columns)]
            np.testing.assert_allclose(update.values, wanted, atol=1e-5)
    np.testing.assert_allclose(predictor.decode(tokens), at_once.values, atol=1e-5)


def test_surroundings_prepared_for_a_click_are_not_read_again(make, reads):
    predictor = make()
    xy = np.array([[700.0, 600.0]])
    assert list(predictor.precompute_context(xy)) and reads
    reads.clear()
    list(predictor.stream(Target(TargetKind.POINTS, Spots(xy))))
    assert len(reads) <= 26
    reads.clear()
    list(predictor.stream(Target(TargetKind.POINTS, Spots(xy))))
    assert len(reads) == 1  # its own pixels, for the trunk


@given(
    st.floats(100, 3000),
    st.integers(50, 20_000),
    st.integers(50, 20_000),
    st.integers(0, 2**32 - 1),
)
def test_windows_cover_the_slide_and_hold_their_points(side, width, height, seed):
    windows = ContextWindowLayout(side, width, height)
    xy = np.random.default_rng(seed).uniform((0, 0), (width, height), (50, 2))
    for (x, y), (column, row) in zip(xy, windows.find_nearest_windows(xy), strict=True):
        x0, y0, x1, y1 = windows.get_bounds(column, row)
        assert x0 <= x <= x1 + 1e-6 and y0 <= y <= y1 + 1e-6
        assert x0 >= 0 and y0 >= 0 and x1 <= width + 1e-6 and y1 <= height + 1e-6
        assert x1 - x0 <= side + 1e-6 and y1 - y0 <= side + 1e-6
    if max(width, height) <= side:
        assert not windows.find_nearest_windows(xy).any()


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_rows_stay_what_they_were_and_the_memory_bounded(seed, most):
    random, width = np.random.default_rng(seed), 3
    rows = KeyedArray(width, capacity=2 * most * 4 * width)
    for _ in range(10):
        keys = random.integers(-50, 50, (20, 2))
        values = (keys.sum(axis=1, keepdims=True) * np.ones(width)).astype(np.float32)
        rows.add(keys, values)
        found, known = rows.get(keys)
        assert known.all()  # what was just added is there
        np.testing.assert_array_equal(found, values)
        older = random.integers(-50, 50, (20, 2))
        found, known = rows.get(older)
        np.testing.assert_array_equal(found[known][:, 0], older[known].sum(axis=1))
        assert (found[~known] == 0).all()
        assert len(rows) <= 2 * (most + 40)


@given(st.floats(50, 500), st.integers(0, 300), st.integers(0, 300))
def test_neighbours_on_a_dense_grid_are_tiles_of_it(side, column, row):
    cells = np.array([[column + i, row + j] for j in range(5) for i in range(5)])
    centres = (cells + 0.5) * side
    np.testing.assert_array_equal(
        compute_neighbor_keys(centres[12][None], side, 5)[0], keys_from_centers(centres)
    )


def test_a_rough_map_is_made_of_the_middles_of_blocks():
    x, y = np.meshgrid(np.arange(7, 80), np.arange(3, 70))
    cells = np.stack([x.ravel(), y.ravel()], axis=1)
    grid = TileGrid(100.0, 50.0, cells)
    fine = Target(TargetKind.GRID, grid.to_spots(), grid)
    rough = make_coarse_target(fine)
    assert 20 < len(rough) <= 100 and rough.kind is TargetKind.ARRAY
    np.testing.assert_allclose(rough.grid.centres, rough.spots.xy)
    assert {tuple(c) for c in rough.spots.xy} <= {tuple(c) for c in grid.centres}
    blocks = match_coarse_rows(grid, rough.grid)
    assert (blocks >= 0).mean() > 0.8
    inside = np.abs(grid.centres - rough.grid.centres[blocks]).max(axis=1) <= rough.grid.pitch / 2
    assert inside[blocks >= 0].all()
    assert (
        make_coarse_target(
            Target(TargetKind.GRID, fine.spots.take(np.arange(50)), grid.take(np.arange(50)))
        )
        is None
    )


def test_a_region_on_glass_is_predicted_and_not_kept(make, slide: Slide):
    predictor = make(use_disk_cache=True)
    corner = box(20, 20, 340, 340)
    target = target_from_region(
        corner, predictor.checkpoint.patch.um, MPP, slide.width, slide.height
    )
    values = predict(predictor, target).values
    assert np.isfinite(values).all()
    assert predictor.count_cached_spots(target) < len(target)
