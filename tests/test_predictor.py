"""The predictor: values independent of order, batches and other spots; errors."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from shapely.geometry import box

from napari_dkan.errors import DkanError, SlideError, SpotsError
from napari_dkan.inference.context_layout import ContextWindowLayout
from napari_dkan.inference.device_choice import pick_device
from napari_dkan.inference.device_errors import DeviceError
from napari_dkan.inference.occlusion import attribute_gene, occlude_spot
from napari_dkan.inference.patch_features.patch_geometry import (
    compute_neighbor_masks,
    read_spot_pixels,
)
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.spot_inputs import gather_spot_inputs
from napari_dkan.inference.target import Target, TargetKind, target_from_region, target_from_spots
from napari_dkan.inference.tile_qc_features import (
    PIXEL_QC_NAMES,
    QC_FEATURE_NAMES,
    compute_pixel_qc,
)
from napari_dkan.model import load_checkpoint
from napari_dkan.slide import open_slide
from napari_dkan.spatial.spots import Spots

if TYPE_CHECKING:
    from napari_dkan.slide.slide import Slide


MPP = 0.7


@pytest.fixture(scope="module")
def slide(tiny_slide_file):
    with open_slide(tiny_slide_file) as opened:
        yield opened


@pytest.fixture
def predictor(slide: Slide, tiny_checkpoint_file):
    checkpoint = load_checkpoint(tiny_checkpoint_file)
    return Predictor(slide, checkpoint, MPP, find_tissue_region(slide, MPP), "cpu")


@pytest.fixture
def grid_target(predictor: Predictor, slide: Slide):
    return target_from_region(predictor.tissue, 140.0, MPP, slide.width, slide.height)


def test_qc_features_do_not_depend_on_the_other_tiles(predictor: Predictor, grid_target: Target):
    whole = predict(predictor, grid_target).qc_features
    assert whole.shape == (len(grid_target), len(QC_FEATURE_NAMES)) and np.isfinite(whole).all()
    subset = grid_target.take(np.arange(0, len(grid_target), 3))
    np.testing.assert_allclose(predict(predictor, subset).qc_features, whole[::3], atol=1e-4)
    pixels = np.stack(
        [
            read_spot_pixels(predictor.slide, x, y, predictor.patch_side_px, 1, 56, 56).target
            for x, y in subset.spots.xy
        ]
    )
    np.testing.assert_allclose(
        compute_pixel_qc(pixels), whole[::3, : len(PIXEL_QC_NAMES)], atol=1e-4
    )


def test_array_spots_equal_the_whole_network_on_separate_patches(
    predictor: Predictor, slide: Slide
):
    """Reference: 26 patches a spot, encoded separately, through `DKAN.predict`."""
    array = np.array([[0, 0], [1, 0], [0, 1], [2, 2], [5, 1]])
    xy = np.array([[500, 500], [700, 500], [500, 700], [900.4, 899.7], [60, 600]])
    target = target_from_spots(Spots(xy, array), slide.width, slide.height)
    assert target.kind is TargetKind.ARRAY
    values = predict(predictor, target).values

    side, encoder = predictor.patch_side_px, predictor.feature_cache.encoder
    spots = [read_spot_pixels(slide, x, y, side, 5, 56, encoder.spec.px) for x, y in xy]
    tiles = torch.from_numpy(np.stack([s.tiles for s in spots])).permute(0, 1, 4, 2, 3)
    with torch.no_grad():
        features = torch.stack([encoder(t) for t in tiles])
        expected = predictor.network.predict(
            predictor.prediction_context.normalize_patches(np.stack([s.target for s in spots])),
            torch.stack([f[12] for f in features]),
            torch.from_numpy(array),
            features,
            torch.from_numpy(np.stack([s.mask for s in spots])),
        )["final"]
    np.testing.assert_allclose(values, expected.numpy(), atol=1e-4)


def test_values_do_not_depend_on_order_or_batch_size(predictor: Predictor, grid_target: Target):
    in_order = predict(predictor, grid_target).values
    shuffled = np.full_like(in_order, np.nan)
    predictor.batch_sizes.max_size = 3
    predictor.clear_cache()
    order = np.random.default_rng(0).permutation(len(grid_target))
    predicted_rows = []
    for update in predictor.stream(grid_target, order):
        if len(update.rows):
            shuffled[update.rows] = update.values
            predicted_rows += update.rows.tolist()
    assert predicted_rows == order.tolist()
    np.testing.assert_allclose(shuffled, in_order, atol=1e-5)


def test_point_on_a_tile_has_the_value_of_the_grid(predictor: Predictor, grid_target: Target):
    mapped = predict(predictor, grid_target).values
    row = len(grid_target) // 2
    click = Target(TargetKind.POINTS, Spots(grid_target.spots.xy[row][None]))
    np.testing.assert_allclose(predict(predictor, click).values[0], mapped[row], atol=1e-4)


def test_part_of_a_grid_has_the_values_of_the_whole(
    predictor: Predictor, slide: Slide, grid_target: Target
):
    whole = predict(predictor, grid_target)
    part = target_from_region(box(400, 300, 900, 800), 140.0, MPP, slide.width, slide.height)
    subset = predict(predictor, part)
    row_by_name = {name: i for i, name in enumerate(grid_target.spots.names)}
    rows = [row_by_name[n] for n in part.spots.names]
    np.testing.assert_allclose(subset.values, whole.values[rows], atol=1e-4)


def test_blended_windows_give_map_part_click_and_explanation_the_same_values(
    predictor: Predictor, slide: Slide, grid_target: Target
):
    whole = predict(predictor, grid_target).values
    predictor.global_context.window_layout = ContextWindowLayout(900, slide.width, slide.height)
    predictor.clear_cache()
    mapped = predict(predictor, grid_target).values
    assert np.abs(mapped - whole).max() > 1e-3
    between_four = (predictor.global_context.find_zones(grid_target) % 2 == 1).all(axis=1)
    part = grid_target.take(between_four)
    assert len(part)
    np.testing.assert_allclose(predict(predictor, part).values, mapped[between_four], atol=1e-5)
    click = Target(TargetKind.POINTS, Spots(part.spots.xy[:1]))
    expected = mapped[between_four][0]
    np.testing.assert_allclose(predict(predictor, click).values[0], expected, atol=1e-5)
    context = predictor.prediction_context
    gathering = gather_spot_inputs(context, *part.spots.xy[0])
    while True:
        try:
            next(gathering)
        except StopIteration as end:
            inputs = end.value
            break
    explained = attribute_gene(context, occlude_spot(context, inputs, 2), 0)
    assert explained.value == pytest.approx(expected[0], abs=1e-5)


def test_point_does_not_depend_on_other_points(predictor: Predictor):
    xy = np.array([[700, 600], [705, 604], [400, 500]], float)  # two share a cell
    together = predict(predictor, Target(TargetKind.POINTS, Spots(xy))).values
    alone = [predict(predictor, Target(TargetKind.POINTS, Spots(p[None]))).values[0] for p in xy]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


def test_selected_genes_have_the_values_of_the_panel(predictor: Predictor, grid_target: Target):
    few = grid_target.take(np.arange(len(grid_target)) < 4)
    whole = predict(predictor, few)
    subset = predict(predictor, few, genes=["KRT8", "HER2"])
    assert subset.panel.symbols == ("KRT8", "ERBB2")
    np.testing.assert_allclose(
        subset.get_gene_values("ERBB2"), whole.get_gene_values("ERBB2"), atol=1e-6
    )
    with pytest.raises(SpotsError, match="NOGENE"):
        predict(predictor, few, genes=["NOGENE"])


def test_batch_is_halved_when_memory_runs_out(
    predictor: Predictor, grid_target: Target, monkeypatch
):
    expected = predict(predictor, grid_target).values
    tokens, sizes = predictor.network.encode_target, []

    def encode_with_limited_memory(patches):
        sizes.append(len(patches))
        if len(patches) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tokens(patches)

    monkeypatch.setattr(predictor.network, "encode_target", encode_with_limited_memory)
    predictor.batch_sizes.size = 8
    predictor.clear_cache()
    np.testing.assert_allclose(predict(predictor, grid_target).values, expected, atol=1e-5)
    # The next batch, which was already being read, is halved too.
    assert sizes[0] == 8 and max(sizes[14:]) <= 2 and predictor.batch_sizes.max_size == 2


def test_encoder_batch_is_reduced_when_memory_runs_out(
    predictor: Predictor, grid_target: Target, monkeypatch
):
    expected = predict(predictor, grid_target).values
    forward, sizes = type(predictor.feature_cache.encoder).forward, []

    def encode_with_limited_memory(encoder, tiles):
        sizes.append(len(tiles))
        if len(tiles) > 7:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(encoder, tiles)

    monkeypatch.setattr(
        type(predictor.feature_cache.encoder), "forward", encode_with_limited_memory
    )
    predictor.clear_cache()
    np.testing.assert_allclose(predict(predictor, grid_target).values, expected, atol=1e-5)
    assert sizes[0] > 7 and max(sizes[5:]) <= 7

    def raise_out_of_memory(encoder, tiles):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(predictor.feature_cache.encoder), "forward", raise_out_of_memory)
    predictor.clear_cache()
    with pytest.raises(DeviceError, match="of this machine"):
        predict(predictor, grid_target)


def test_device_too_small_for_one_spot_raises(
    predictor: Predictor, grid_target: Target, monkeypatch
):
    def raise_out_of_memory(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(predictor.network, "fuse_tokens", raise_out_of_memory)
    with pytest.raises(DeviceError, match="of this machine"):
        predict(predictor, grid_target)


def test_closing_a_job_ends_its_reader_threads(predictor: Predictor, grid_target: Target):
    job = predictor.stream(grid_target)
    while not len(next(job).rows):
        pass
    job.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("dkan-read")]


def test_updates_before_the_slide_disappears_are_valid(
    tiny_slide_file, tmp_path, predictor: Predictor
):
    copy = tmp_path / "copy.ome.tif"
    copy.write_bytes(tiny_slide_file.read_bytes())
    with open_slide(copy) as opened:
        target = target_from_region(predictor.tissue, 140.0, MPP, opened.width, opened.height)
        tissue = predictor.tissue
        job = Predictor(opened, predictor.checkpoint, MPP, tissue, "cpu")
        done = 0
        with pytest.raises(SlideError, match=r"copy\.ome\.tif"):  # noqa: PT012
            for update in job.stream(target):
                done += len(update.rows)
                if done and copy.exists():
                    copy.unlink()
        assert 0 < done < len(target)


def test_spots_off_the_slide_are_rejected(slide: Slide):
    xy = np.array([[5, 5], [5000, 5], [-1, 3]])
    with pytest.raises(SpotsError, match=r"2 of 3 spots lie outside the slide \(1600 x 1600"):
        target_from_spots(Spots(xy), slide.width, slide.height)
    with pytest.raises(SpotsError, match="no spots"):
        target_from_spots(Spots(np.empty((0, 2))), slide.width, slide.height)


def test_regions_without_tissue_or_off_the_slide_are_rejected(predictor: Predictor):
    with pytest.raises(SpotsError, match="no tissue in this region"):
        target_from_region(box(0, 0, 90, 90), 140.0, MPP, 1600, 1600, predictor.tissue)
    with pytest.raises(SpotsError, match="outside the slide"):
        target_from_region(box(3000, 0, 3090, 90), 140.0, MPP, 1600, 1600)
    with pytest.raises(SpotsError, match="empty"):
        target_from_region(box(0, 0, 0, 0), 140.0, MPP, 1600, 1600)


def test_neighbors_off_the_slide_are_masked(slide: Slide):
    middle, corner = compute_neighbor_masks(slide, np.array([[700, 600], [10, 10]]), 160, 5)
    corner = corner.reshape(5, 5)
    assert middle.all()
    assert corner[2, 2] and not corner[:2].any() and not corner[:, :2].any()
    assert corner[3:, 3:].all()


def test_tiles_of_a_block_equal_separate_patches(slide: Slide):
    spot = read_spot_pixels(slide, 640, 560, 112, 5, 112, 112)  # 1 px per px: exact
    for i in range(25):
        x, y = 640 + (i % 5 - 2) * 112, 560 + (i // 5 - 2) * 112
        assert np.array_equal(spot.tiles[i], slide.read_patch(x, y, 112, 112))


def test_unknown_device_is_rejected():
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(DkanError, match="tpu is not on this machine"):
        pick_device("tpu")


def test_points_off_the_tissue_do_not_change_the_context(predictor: Predictor):
    xy = np.array([[20, 20], [700, 600]], float)  # the first is off the tissue
    together = predict(predictor, Target(TargetKind.POINTS, Spots(xy))).values
    alone = predict(predictor, Target(TargetKind.POINTS, Spots(xy[1:]))).values
    np.testing.assert_allclose(together[1], alone[0], atol=1e-6)


def test_point_on_a_slide_without_tissue_is_predicted(predictor: Predictor):
    predictor.tissue = box(0, 0, 0, 0)
    values = predict(predictor, Target(TargetKind.POINTS, Spots(np.array([[700.0, 600.0]])))).values
    assert np.isfinite(values).all()


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_that_a_thread_frees_is_not_faulted_in_again():
    code = """
import ctypes, resource, sys, threading
import numpy as np
from napari_dkan.inference.device import keep_freed_memory
if not hasattr(ctypes.CDLL(None), "mallopt"):
    sys.exit(print(0, 1))
faults = []
def allocate():
    count = lambda: resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(20):
        begun = count()
        arrays = [np.ones(2**21, np.float32) for _ in range(3)]  # three layers of 8 MB
        del arrays
        faults.append(count() - begun)
for prepare in (lambda: None, keep_freed_memory):
    prepare()
    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()
print(sum(faults[30:]), sum(faults[10:20]))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, given_back = map(int, ran.stdout.split())
    assert kept <= given_back / 20  # both 0 with another allocator
