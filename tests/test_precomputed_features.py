"""Precomputed features of TRIDENT and CLAM files: equal values, or a rejected file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from shapely.geometry import box

from napari_dkan.errors import SpotsError
from napari_dkan.inference.patch_features.patch_geometry import keys_from_centers
from napari_dkan.inference.patch_features.precomputed_features import load_precomputed_features
from napari_dkan.inference.patch_features.tile_feature_file import open_feature_file
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import TargetKind, target_from_region
from napari_dkan.model import load_checkpoint
from napari_dkan.slide import open_slide

from . import vendor_files
from .slide_files import halves, picture

if TYPE_CHECKING:
    from napari_dkan.model.checkpoint.checkpoint_file import Checkpoint
    from napari_dkan.slide.slide import Slide


MPP, SIDE = 0.7, 160  # the small checkpoint's patches are 112 um wide


@pytest.fixture(scope="module")
def slide(tiny_slide_file):
    with open_slide(tiny_slide_file) as opened:
        yield opened


@pytest.fixture
def checkpoint(tiny_checkpoint_file):
    return load_checkpoint(tiny_checkpoint_file)


def predict_directly(slide: Slide, checkpoint: Checkpoint, tissue):
    """The prediction of a dense grid without a feature file, and its predictor."""
    predictor = Predictor(slide, checkpoint, MPP, tissue, "cpu")
    target = target_from_region(tissue, 112.0, MPP, slide.width, slide.height, tissue)
    return predict(predictor, target), predictor


def write_feature_file(path, centres, features, attributes=None, feature_attributes=None):
    """Write a file as TRIDENT does."""
    stated = {"patch_size": 224, "patch_size_level0": SIDE, "level0_magnification": 15}
    stated |= {"target_magnification": 21, "overlap": 0, "name": "drawn.ome"}
    stated |= {"level0_width": 1600, "level0_height": 1600, **(attributes or {})}
    with h5py.File(path, "w") as file:
        coords = file.create_dataset("coords", data=(np.asarray(centres) - SIDE / 2).astype(int))
        rows = file.create_dataset("features", data=features)
        coords.attrs.update({k: v for k, v in stated.items() if v is not None})
        default_attributes = {"name": "drawn", "savetodir": "/job/features_stain-stats"}
        rows.attrs.update(default_attributes if feature_attributes is None else feature_attributes)
    return path


@pytest.fixture
def feature_file(slide: Slide, checkpoint: Checkpoint, tmp_path):
    """A file of the tissue's tiles, and their prediction without it."""
    prediction, predictor = predict_directly(slide, checkpoint, find_tissue_region(slide, MPP))
    xy = prediction.target.spots.xy
    features, known = predictor.feature_cache.get_features(keys_from_centers(xy))
    assert known.all()
    shuffled = np.random.default_rng(0).permutation(len(xy))
    rows = features.numpy()[shuffled]
    return write_feature_file(tmp_path / "drawn.h5", xy[shuffled], rows), prediction


def test_precomputed_features_give_the_values_of_encoding(
    slide: Slide, checkpoint: Checkpoint, feature_file, monkeypatch
):
    file, expected = feature_file
    features_of_file = load_precomputed_features(file, slide, checkpoint, MPP)
    assert (
        features_of_file.tile_side_px == SIDE
        and not features_of_file.lacks_encoder
        and features_of_file.note == ""
    )
    tissue = find_tissue_region(slide, MPP)
    predictor = Predictor(
        slide, checkpoint, MPP, tissue, "cpu", precomputed_features=features_of_file
    )
    encoded, encode = [], type(predictor.feature_cache).encode

    def counting(self, tiles):
        encoded.append(len(tiles))
        return encode(self, tiles)

    monkeypatch.setattr(type(predictor.feature_cache), "encode", counting)
    prediction = predict(predictor, features_of_file.target_from_region())
    assert (
        prediction.target.kind is TargetKind.TILES
        and prediction.target.spots.names == expected.target.spots.names
    )
    np.testing.assert_allclose(prediction.values, expected.values, atol=1e-5)
    np.testing.assert_allclose(prediction.qc_features, expected.qc_features, atol=1e-5)
    tile_count = len(keys_from_centers(expected.target.spots.xy))
    assert sum(encoded) < tile_count  # neighbors off the tissue, which the file lacks
    assert prediction.provenance["features"]["file"] == "drawn.h5"
    subset = features_of_file.target_from_region(box(0, 0, 800, 1600))
    assert 0 < len(subset) < len(prediction.target)
    row_by_name = {name: row for row, name in enumerate(expected.target.spots.names)}
    rows = [row_by_name[n] for n in subset.spots.names]
    np.testing.assert_allclose(predict(predictor, subset).values, expected.values[rows], atol=1e-5)


def test_without_weights_only_tiles_of_the_file_are_predicted(
    slide: Slide, checkpoint: Checkpoint, tmp_path
):
    slide_region = box(0, 0, slide.width, slide.height)
    expected, predictor = predict_directly(slide, checkpoint, slide_region)
    xy = expected.target.spots.xy
    features = predictor.feature_cache.get_features(keys_from_centers(xy))[0].numpy()
    without_weights = replace(checkpoint, encoder_tensors=None)
    features_of_file = load_precomputed_features(
        write_feature_file(tmp_path / "all.h5", xy, features), slide, without_weights, MPP
    )
    assert features_of_file.lacks_encoder
    predictor = Predictor(
        slide, without_weights, MPP, slide_region, "cpu", precomputed_features=features_of_file
    )
    np.testing.assert_allclose(
        predict(predictor, features_of_file.target_from_region()).values, expected.values, atol=1e-5
    )
    with pytest.raises(SpotsError, match="its own tiles only"):
        predict(predictor, expected.target)
    assert len(features_of_file.target_at_point(*(xy[7] + 30))) == 1

    # Neighbors that the file lacks are masked like those off the slide.
    few = load_precomputed_features(
        write_feature_file(tmp_path / "few.h5", xy[::2] + 13, features[::2]),
        slide,
        without_weights,
        MPP,
    )
    assert few.tile_grid is None
    predictor = Predictor(
        slide, without_weights, MPP, slide_region, "cpu", precomputed_features=few
    )
    assert np.isfinite(predict(predictor, few.target_from_region()).values).all()
    with pytest.raises(SpotsError, match="no tile there"):
        few.target_at_point(2.0, 2.0)


@pytest.mark.parametrize(
    ("attributes", "feature_attributes", "sentence"),
    [
        ({}, {"savetodir": "/job/features_uni_v1"}, "are of uni, but the checkpoint needs"),
        ({}, {}, "does not say which encoder"),
        ({"patch_size_level0": 224}, None, "157 um wide .* needs 112 um"),
        ({"patch_size": 32}, None, "read at 32 px"),
        ({"level0_width": 3200}, None, "not of this slide"),
        ({"level0_magnification": 40}, None, "40x scan"),
    ],
)
def test_mismatch_is_rejected(
    slide: Slide, checkpoint: Checkpoint, feature_file, attributes, feature_attributes, sentence
):
    centres, rows = (
        open_feature_file(feature_file[0]).centers,
        h5py.File(feature_file[0])["features"][:],
    )
    file = write_feature_file(
        feature_file[0].parent / "other.h5", centres, rows, attributes, feature_attributes
    )
    with pytest.raises(SpotsError, match=sentence):
        load_precomputed_features(file, slide, checkpoint, MPP)


def test_clam_file_needs_the_name_of_its_encoder(
    slide: Slide, checkpoint: Checkpoint, feature_file
):
    unstated = dict.fromkeys(
        ("patch_size", "patch_size_level0", "level0_magnification", "level0_width", "name")
    )
    tiles = open_feature_file(feature_file[0])
    rows = h5py.File(feature_file[0])["features"][:]
    file = write_feature_file(feature_file[0].parent / "clam.h5", tiles.centers, rows, unstated, {})
    features_of_file = load_precomputed_features(
        file, slide, checkpoint, MPP, encoder="stain-stats"
    )
    assert (
        not features_of_file.feature_file.is_side_stated and features_of_file.tile_side_px == SIDE
    )
    np.testing.assert_array_equal(features_of_file.feature_file.centers, tiles.centers)
    narrow = write_feature_file(feature_file[0].parent / "narrow.h5", tiles.centers, rows[:, :5])
    with pytest.raises(SpotsError, match=r"5 numbers.*stain-stats makes 16"):
        load_precomputed_features(narrow, slide, checkpoint, MPP)


@pytest.mark.parametrize("whole_glass", [False, True])
def test_tiles_count_from_the_glass(checkpoint: Checkpoint, whole_glass, tmp_path):
    """TRIDENT and CLAM read with OpenSlide; a slide that states a scan area opens with that."""
    levels = halves(picture(512, 640), 2)
    path = vendor_files.scn(tmp_path / "a.scn", levels, MPP, 20, (100, 60), (40, 30))
    centers = np.array([[180.0, 140.0], [340.0, 140.0]])
    with open_slide(path, whole_glass=whole_glass) as slide:
        _, _, width, height = slide.scan_area.glass
        size = {"level0_width": width, "level0_height": height, "name": "a"}
        file = write_feature_file(tmp_path / "a.h5", centers, np.zeros((2, 16), "f4"), size)
        features = load_precomputed_features(file, slide, checkpoint, MPP)
    np.testing.assert_array_equal(
        features.feature_file.centers, centers - (0 if whole_glass else (100, 60))
    )


def test_invalid_feature_file_is_rejected(slide: Slide, checkpoint: Checkpoint, tmp_path):
    def rejected_message(name, fill):
        with h5py.File(tmp_path / name, "w") as file:
            fill(file)
        with pytest.raises(SpotsError) as caught:
            load_precomputed_features(tmp_path / name, slide, checkpoint, MPP)
        assert name in str(caught.value) and "\n" not in str(caught.value)
        return str(caught.value)

    def write_datasets(file, coords, features):
        file["coords"], file["features"] = coords, features

    def write_huge_datasets(file):
        file.create_dataset("coords", (10**12, 2), "i8", chunks=(1000, 2))
        file.create_dataset("features", (10**12, 16), "f4", chunks=(1000, 16))

    def write_external_link(file):
        file["coords"] = h5py.ExternalLink("other.h5", "/coords")
        file["features"] = np.zeros((2, 16), "f4")

    assert "lacks the datasets" in rejected_message("empty.h5", lambda f: None)
    assert "other files" in rejected_message("link.h5", write_external_link)
    assert "needed are" in rejected_message(
        "flat.h5", lambda f: write_datasets(f, np.zeros(3), np.zeros((3, 16)))
    )
    rejected_message("huge.h5", write_huge_datasets)
    nowhere = np.full((2, 2), np.nan)
    assert "on no slide" in rejected_message(
        "nan.h5", lambda f: write_datasets(f, nowhere, np.zeros((2, 16), "f4"))
    )
    one = np.zeros((1, 2), int)
    assert "how large" in rejected_message(
        "one.h5", lambda f: write_datasets(f, one, np.zeros((1, 16), "f4"))
    )
    (tmp_path / "text.h5").write_text("nothing")
    with pytest.raises(SpotsError, match=r"text\.h5 cannot be read"):
        open_feature_file(tmp_path / "text.h5")
    file = write_feature_file(
        tmp_path / "holes.h5", [[80, 80], [240, 80]], np.full((2, 16), np.nan, "f4")
    )
    features_of_file = load_precomputed_features(file, slide, checkpoint, MPP)
    with pytest.raises(SpotsError, match="not numbers"):
        features_of_file.get_features(keys_from_centers(features_of_file.xy))
