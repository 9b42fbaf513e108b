"""Features of TRIDENT and CLAM files instead of encoding: the same numbers, or one sentence."""

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


def direct(slide: Slide, checkpoint: Checkpoint, tissue):
    """The prediction of a dense grid as it always was, and the predictor behind it."""
    predictor = Predictor(slide, checkpoint, MPP, tissue, "cpu")
    target = target_from_region(tissue, 112.0, MPP, slide.width, slide.height, tissue)
    return predict(predictor, target), predictor


def write(path, centres, features, about=None, of_features=None):
    """As TRIDENT writes it."""
    stated = {"patch_size": 224, "patch_size_level0": SIDE, "level0_magnification": 15}
    stated |= {"target_magnification": 21, "overlap": 0, "name": "drawn.ome"}
    stated |= {"level0_width": 1600, "level0_height": 1600, **(about or {})}
    with h5py.File(path, "w") as file:
        coords = file.create_dataset("coords", data=(np.asarray(centres) - SIDE / 2).astype(int))
        rows = file.create_dataset("features", data=features)
        coords.attrs.update({k: v for k, v in stated.items() if v is not None})
        given = {"name": "drawn", "savetodir": "/job/features_stain-stats"}
        rows.attrs.update(given if of_features is None else of_features)
    return path


@pytest.fixture
def made(slide: Slide, checkpoint: Checkpoint, tmp_path):
    """A file of the tissue's tiles, and the direct prediction of them."""
    prediction, predictor = direct(slide, checkpoint, find_tissue_region(slide, MPP))
    xy = prediction.target.spots.xy
    features, known = predictor.feature_cache.get_features(keys_from_centers(xy))
    assert known.all()
    shuffled = np.random.default_rng(0).permutation(len(xy))
    rows = features.numpy()[shuffled]
    return write(tmp_path / "drawn.h5", xy[shuffled], rows), prediction


def test_a_files_features_give_the_numbers_of_encoding(
    slide: Slide, checkpoint: Checkpoint, made, monkeypatch
):
    file, wanted = made
    ready = load_precomputed_features(file, slide, checkpoint, MPP)
    assert ready.tile_side_px == SIDE and not ready.lacks_encoder and ready.note == ""
    tissue = find_tissue_region(slide, MPP)
    predictor = Predictor(slide, checkpoint, MPP, tissue, "cpu", precomputed_features=ready)
    encoded, encode = [], type(predictor.feature_cache).encode

    def counting(self, tiles):
        encoded.append(len(tiles))
        return encode(self, tiles)

    monkeypatch.setattr(type(predictor.feature_cache), "encode", counting)
    got = predict(predictor, ready.target_from_region())
    assert (
        got.target.kind is TargetKind.TILES and got.target.spots.names == wanted.target.spots.names
    )
    np.testing.assert_allclose(got.values, wanted.values, atol=1e-5)
    np.testing.assert_allclose(got.qc_features, wanted.qc_features, atol=1e-5)
    everything = len(keys_from_centers(wanted.target.spots.xy))
    assert sum(encoded) < everything  # only neighbours off the tissue, which the file lacks
    assert got.provenance["features"]["file"] == "drawn.h5"
    some = ready.target_from_region(box(0, 0, 800, 1600))
    assert 0 < len(some) < len(got.target)
    at = {name: row for row, name in enumerate(wanted.target.spots.names)}
    rows = [at[n] for n in some.spots.names]
    np.testing.assert_allclose(predict(predictor, some).values, wanted.values[rows], atol=1e-5)


def test_without_weights_the_file_is_all_there_is(slide: Slide, checkpoint: Checkpoint, tmp_path):
    whole = box(0, 0, slide.width, slide.height)
    wanted, predictor = direct(slide, checkpoint, whole)
    xy = wanted.target.spots.xy
    features = predictor.feature_cache.get_features(keys_from_centers(xy))[0].numpy()
    bare = replace(checkpoint, encoder_tensors=None)
    ready = load_precomputed_features(write(tmp_path / "all.h5", xy, features), slide, bare, MPP)
    assert ready.lacks_encoder
    predictor = Predictor(slide, bare, MPP, whole, "cpu", precomputed_features=ready)
    np.testing.assert_allclose(
        predict(predictor, ready.target_from_region()).values, wanted.values, atol=1e-5
    )
    with pytest.raises(SpotsError, match="its own tiles only"):
        predict(predictor, wanted.target)
    assert len(ready.target_at_point(*(xy[7] + 30))) == 1

    # tiles that the file lacks are masked as those off the slide are
    few = load_precomputed_features(
        write(tmp_path / "few.h5", xy[::2] + 13, features[::2]), slide, bare, MPP
    )
    assert few.tile_grid is None
    predictor = Predictor(slide, bare, MPP, whole, "cpu", precomputed_features=few)
    assert np.isfinite(predict(predictor, few.target_from_region()).values).all()
    with pytest.raises(SpotsError, match="no tile there"):
        few.target_at_point(2.0, 2.0)


@pytest.mark.parametrize(
    ("about", "of_features", "sentence"),
    [
        ({}, {"savetodir": "/job/features_uni_v1"}, "are of uni, but the checkpoint needs"),
        ({}, {}, "does not say which encoder"),
        ({"patch_size_level0": 224}, None, "157 um wide .* needs 112 um"),
        ({"patch_size": 32}, None, "read at 32 px"),
        ({"level0_width": 3200}, None, "not of this slide"),
        ({"level0_magnification": 40}, None, "40x scan"),
    ],
)
def test_what_does_not_match_is_said(
    slide: Slide, checkpoint: Checkpoint, made, about, of_features, sentence
):
    centres, rows = open_feature_file(made[0]).centers, h5py.File(made[0])["features"][:]
    file = write(made[0].parent / "other.h5", centres, rows, about, of_features)
    with pytest.raises(SpotsError, match=sentence):
        load_precomputed_features(file, slide, checkpoint, MPP)


def test_a_file_of_clam_needs_somebody_to_name_its_encoder(
    slide: Slide, checkpoint: Checkpoint, made
):
    unstated = dict.fromkeys(
        ("patch_size", "patch_size_level0", "level0_magnification", "level0_width", "name")
    )
    tiles = open_feature_file(made[0])
    rows = h5py.File(made[0])["features"][:]
    file = write(made[0].parent / "clam.h5", tiles.centers, rows, unstated, {})
    ready = load_precomputed_features(file, slide, checkpoint, MPP, encoder="stain-stats")
    assert not ready.feature_file.is_side_stated and ready.tile_side_px == SIDE
    np.testing.assert_array_equal(ready.feature_file.centers, tiles.centers)
    narrow = write(made[0].parent / "narrow.h5", tiles.centers, rows[:, :5])
    with pytest.raises(SpotsError, match=r"5 numbers.*stain-stats makes 16"):
        load_precomputed_features(narrow, slide, checkpoint, MPP)


def test_what_is_no_feature_file_is_one_sentence(slide: Slide, checkpoint: Checkpoint, tmp_path):
    def bad(name, fill):
        with h5py.File(tmp_path / name, "w") as file:
            fill(file)
        with pytest.raises(SpotsError) as caught:
            load_precomputed_features(tmp_path / name, slide, checkpoint, MPP)
        assert name in str(caught.value) and "\n" not in str(caught.value)
        return str(caught.value)

    def two(file, coords, features):
        file["coords"], file["features"] = coords, features

    def huge(file):
        file.create_dataset("coords", (10**12, 2), "i8", chunks=(1000, 2))
        file.create_dataset("features", (10**12, 16), "f4", chunks=(1000, 16))

    def elsewhere(file):
        file["coords"] = h5py.ExternalLink("other.h5", "/coords")
        file["features"] = np.zeros((2, 16), "f4")

    assert "lacks the datasets" in bad("empty.h5", lambda f: None)
    assert "other files" in bad("link.h5", elsewhere)
    assert "needed are" in bad("flat.h5", lambda f: two(f, np.zeros(3), np.zeros((3, 16))))
    bad("huge.h5", huge)
    nowhere = np.full((2, 2), np.nan)
    assert "on no slide" in bad("nan.h5", lambda f: two(f, nowhere, np.zeros((2, 16), "f4")))
    one = np.zeros((1, 2), int)
    assert "how large" in bad("one.h5", lambda f: two(f, one, np.zeros((1, 16), "f4")))
    (tmp_path / "text.h5").write_text("nothing")
    with pytest.raises(SpotsError, match=r"text\.h5 cannot be read"):
        open_feature_file(tmp_path / "text.h5")
    file = write(tmp_path / "holes.h5", [[80, 80], [240, 80]], np.full((2, 16), np.nan, "f4"))
    ready = load_precomputed_features(file, slide, checkpoint, MPP)
    with pytest.raises(SpotsError, match="not numbers"):
        ready.get_features(keys_from_centers(ready.xy))
