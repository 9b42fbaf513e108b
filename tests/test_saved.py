"""A saved result comes back to the last bit, and a bad file is refused before it can do harm."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from contextlib import suppress
from dataclasses import replace

import anndata
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Polygon, box

from napari_dkan.errors import OutputError, ResultError
from napari_dkan.export.result_reader import is_saved_result, load_result
from napari_dkan.export.saved_result import SavedResult, SlideRecord, ViewSettings, save_result
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_region
from napari_dkan.model import load_checkpoint
from napari_dkan.slide import open_slide

from .result_files import grid_target, result, spots_target


def bits(array):
    return array.dtype, array.shape, array.tobytes()


def require_same(ours: SavedResult, back: SavedResult) -> None:
    """Everything equal, numbers to the last bit."""
    one, two = ours.prediction, back.prediction
    for name in ("values", "tokens", "failed_mask", "qc_features"):
        assert bits(getattr(one, name)) == bits(getattr(two, name)), name
    assert bits(one.target.spots.xy) == bits(two.target.spots.xy)
    assert one.target.kind is two.target.kind
    for name in ("names", "diameter_um", "pitch_um"):
        assert getattr(one.target.spots, name) == getattr(two.target.spots, name), name
    for a, b in (
        (one.target.spots.array, two.target.spots.array),
        (one.target.grid and one.target.grid.cells, two.target.grid and two.target.grid.cells),
    ):
        assert (a is None and b is None) or bits(a) == bits(b)
    if one.target.grid:
        assert one.target.grid.pitch == two.target.grid.pitch
        assert one.target.grid.pitch_um == two.target.grid.pitch_um
    for name in ("panel", "label_scale", "provenance", "zero_shot_symbols"):
        assert getattr(one, name) == getattr(two, name), name
    assert (ours.slide_record, dict(ours.card), ours.view_settings) == (
        back.slide_record,
        dict(back.card),
        back.view_settings,
    )
    if ours.regions is None:
        assert back.regions is None
    else:
        assert ours.regions.equals_exact(back.regions, 0)
    if ours.reliability is None:
        assert back.reliability is None
    else:
        assert bits(ours.reliability.score) == bits(back.reliability.score)
        assert bits(ours.reliability.unreliable) == bits(back.reliability.unreliable)
        for row in range(len(one.target)):
            assert ours.reliability.reasons(row) == back.reliability.reasons(row)


def test_a_prediction_of_a_slide_comes_back(tiny_slide_file, tiny_checkpoint_file, tmp_path):
    checkpoint, file = load_checkpoint(tiny_checkpoint_file), tmp_path / "a b" / "rücken.h5ad"
    with open_slide(tiny_slide_file) as slide:
        tissue = find_tissue_region(slide, slide.mpp)
        x, y = tissue.representative_point().coords[0]
        near = box(x - 300, y - 300, x + 300, y + 300)
        target = target_from_region(near, 140.0, slide.mpp, slide.width, slide.height)
        prediction = predict(Predictor(slide, checkpoint, slide.mpp, tissue, "cpu"), target)
        record = SlideRecord.from_slide(slide, slide.mpp, "OME metadata")
        ours = SavedResult(prediction, record, checkpoint.card, regions=tissue)
        save_result(file, ours, slide)
        assert (record.path, record.fingerprint) == (str(tiny_slide_file), slide.fingerprint())
    assert is_saved_result(file)
    back = load_result(file)
    require_same(ours, back)
    assert np.isfinite(back.prediction.values).all() and len(back.prediction.values) > 5
    assert back.overview.rgb.shape == (1600, 1600, 3) and back.overview.scale == 1
    assert back.versions["napari-dkan"] and back.versions["torch"]
    again = save_result(tmp_path / "again.h5ad", back)  # needs no slide
    require_same(back, load_result(again))
    np.testing.assert_array_equal(load_result(again).overview.rgb, back.overview.rgb)
    assert load_result(again).versions == back.versions


floats = st.integers(0, 2**32 - 1).map(lambda n: np.uint32(n).view(np.float32))  # every bit pattern
corners = st.floats(-1e6, 1e6)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=15)
@given(data=st.data())
def test_anything_comes_back(data, tmp_path_factory):
    count = data.draw(st.integers(1, 5))
    array = None
    if data.draw(st.booleans()):
        array = np.array(data.draw(st.lists(st.tuples(*[st.integers(-9, 9)] * 2),
                                            min_size=count, max_size=count)))  # fmt: skip
    called = data.draw(st.just(()) | st.lists(names, min_size=count, max_size=count).map(tuple))
    target = spots_target(count, called, array, data.draw(st.none() | st.floats(1, 200)))
    if data.draw(st.booleans()):
        target = grid_target(corner=(data.draw(st.integers(-99, 99)), 0))
    plain = result(target)
    prediction = plain.prediction
    drawn = data.draw(st.lists(floats, min_size=prediction.values.size,
                               max_size=prediction.values.size))  # fmt: skip
    prediction.values[:] = np.array(drawn, np.float32).reshape(prediction.values.shape)
    record = {**prediction.provenance, "zero_shot": {"expected_pcc": data.draw(st.floats(-1, 1))}}
    prediction = replace(prediction, zero_shot_symbols=("CD74",), provenance=record)
    x, y = data.draw(corners), data.draw(corners)
    region = Polygon([(x, y), (x + 3.3, y), (x + 1 / 3, y + 7.7)])
    ours = replace(
        plain,
        prediction=prediction,
        regions=data.draw(st.sampled_from([None, region, MultiPolygon([region]), Polygon()])),
        view_settings=data.draw(st.sampled_from([None, plain.view_settings, ViewSettings()])),
        reliability=data.draw(st.sampled_from([None, plain.reliability])),
    )
    file = save_result(tmp_path_factory.mktemp("any") / "any.h5ad", ours)
    require_same(ours, load_result(file))


def test_what_other_programs_kept_comes_back(tmp_path):
    ours = result()
    save_result(tmp_path / "all.h5ad", ours)
    data = anndata.read_h5ad(tmp_path / "all.h5ad")
    kept = data[[4, 0, 7], ["CD74"]].copy()
    kept.obs["cluster"] = ["a", "b", "a"]
    kept.write_h5ad(tmp_path / "some.h5ad", compression="gzip")
    back = load_result(tmp_path / "some.h5ad")
    rows = [4, 0, 7]
    assert back.prediction.panel.symbols == ("CD74",)
    assert bits(back.prediction.values) == bits(ours.prediction.values[rows][:, 1:])
    assert bits(back.prediction.tokens) == bits(ours.prediction.tokens[rows])
    assert back.prediction.target.grid.cells.tolist() == (
        ours.prediction.target.grid.cells[rows].tolist()
    )
    assert back.reliability.reasons(1) == ("out of focus", "little tissue")


def test_evidence_of_another_version_is_taken_by_name(tmp_path):
    ours = result()
    file = save_result(tmp_path / "old.h5ad", ours)
    told = document(file)
    told["evidence"] = ["older", *reversed(told["evidence"][1:])]
    rewrite(file, told)
    back = load_result(file).prediction.qc_features
    assert np.isnan(back[:, 0]).all()
    assert bits(back[:, 1:].copy()) == bits(ours.prediction.qc_features[:, :0:-1].copy())


def test_nothing_predicted_is_not_saved(tmp_path):
    empty = result()
    empty = replace(empty, prediction=empty.prediction.take(np.zeros(11, bool)))
    with pytest.raises(OutputError, match=r"out\.h5ad was not written: nothing is predicted yet"):
        save_result(tmp_path / "out.h5ad", empty)
    odd = replace(result(), card={"title": {1, 2}})
    with pytest.raises(OutputError, match="not JSON"):
        save_result(tmp_path / "out.h5ad", odd)
    assert not list(tmp_path.iterdir())


# ---- bad files -------------------------------------------------------------------------


def document(file):
    with h5py.File(file, "r") as h5:
        return json.loads(h5["uns/napari_dkan/saved"][()])


def rewrite(file, told):
    with h5py.File(file, "r+") as h5:
        h5["uns/napari_dkan/saved"][()] = told if isinstance(told, str) else json.dumps(told)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return save_result(tmp_path_factory.mktemp("good") / "good.h5ad", result()).read_bytes()


def absurd(h5):
    """Ten billion spots, of which nothing is stored."""
    del h5["X"]
    h5.create_dataset("X", (10**10, 250), "f4", chunks=(1000, 250))


def bomb(h5):
    """A chunk of 88 bytes that inflates to 100 MiB."""
    del h5["X"]
    item = h5.create_dataset("X", (11, 2), "f4", chunks=(11, 2), compression="gzip")
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    item.id.write_direct_chunk((0, 0), packed)


def elsewhere(h5):
    del h5["X"]
    h5["X"] = h5py.ExternalLink("/etc/hostname", "X")


def outside(h5):
    del h5["X"]
    h5.create_dataset("X", (11, 2), "f4", external=[("/etc/hostname", 0, 88)])


def short(h5):
    del h5["X"]
    h5["X"] = np.ones((11, 1), np.float32)


def double(h5):
    del h5["X"]
    h5["X"] = np.ones((11, 2), np.float64)


def same_cell(h5):
    h5["obsm/dkan_cells"][1] = h5["obsm/dkan_cells"][0]


def far_cell(h5):
    h5["obsm/dkan_cells"][1] = 2**62


def no_tokens(h5):
    del h5["obsm/dkan_tokens"]


def infinite(h5):
    h5["obsm/spatial"][0] = np.inf


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (absurd, "claims to hold"),
        (bomb, "unpacks to more than it says"),
        (elsewhere, "refers to other files"),
        (outside, "refers to other files"),
        (short, "is not float32 of shape"),
        (double, "is not float32 of shape"),
        (same_cell, "a cell twice"),
        (far_cell, "larger than any slide"),
        (no_tokens, "is damaged"),
        (infinite, "no finite position"),
    ],
)
def test_a_changed_file_is_refused(good, change, said, tmp_path):
    file = tmp_path / "bad.h5ad"
    file.write_bytes(good)
    with h5py.File(file, "r+") as h5:
        change(h5)
    tracemalloc.start()
    with pytest.raises(ResultError, match=said) as error:
        load_result(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "bad.h5ad" in str(error.value) and "\n" not in str(error.value)
    assert peak < 64 << 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 99}, "newer napari-dkan"),
        ({"format": "1"}, "entry format"),
        ({"panel": 3}, "entry panel"),
        ({"panel": [{"symbol": "ERBB2", "ensembl": "", "name": "", "aliases": [1]}]}, "aliases"),
        ({"label_scale": {"target_sum": 1e4, "base": True, "smoothing": 3}}, "entry base"),
        ({"regions": {"type": "Point", "coordinates": [1, 2]}}, "no polygons"),
        ({"regions": {"type": "Polygon", "coordinates": [[[1, 2]]]}}, "is damaged"),
        ({"view": {"gene": "CD74"}}, "entry pinned"),
        ({"target": {"kind": "elsewhere"}}, "is damaged"),
        ({"slide": {"name": "x"}}, "entry path"),
        ("[" * 100_000, "is damaged"),
        ("[]", "no JSON object"),
    ],
)
def test_a_document_that_is_wrong_is_refused(good, change, said, tmp_path):
    file = tmp_path / "bad.h5ad"
    file.write_bytes(good)
    rewrite(file, change if isinstance(change, str) else document(file) | change)
    with pytest.raises(ResultError, match=said) as error:
        load_result(file)
    assert "bad.h5ad" in str(error.value) and "\n" not in str(error.value)


def test_other_files_are_told_from_ours(good, tmp_path):
    anndata.AnnData(np.ones((3, 2), np.float32)).write_h5ad(tmp_path / "theirs.h5ad")
    (tmp_path / "text.h5ad").write_text("not HDF5")
    (tmp_path / "short.h5ad").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.h5ad").write_bytes(b"")
    (tmp_path / "folder.h5ad").mkdir()
    for file in sorted(tmp_path.iterdir()):
        assert not is_saved_result(file)
        with pytest.raises(ResultError, match=file.name):
            load_result(file)
    assert not is_saved_result(tmp_path / "gone.h5ad")
    with pytest.raises(ResultError, match="There is no file"):
        load_result(tmp_path / "gone.h5ad")


def test_flipped_bytes_never_do_harm(good, tmp_path):
    rng, file = np.random.default_rng(0), tmp_path / "flipped.h5ad"
    for _ in range(40):
        mutated = bytearray(good)
        for at in rng.integers(0, len(good), rng.integers(1, 20)):
            mutated[at] = rng.integers(256)
        file.write_bytes(mutated)
        with suppress(ResultError):
            load_result(file)


def test_regions_outside_the_saved_kinds_are_kept(tmp_path):
    """Many parts with holes, as whole-tissue outlines have them."""
    parts = [box(i * 10, 0, i * 10 + 8, 8).difference(box(i * 10 + 2, 2, i * 10 + 3, 3.1))
             for i in range(50)]  # fmt: skip
    ours = result(regions=MultiPolygon(parts))
    require_same(ours, load_result(save_result(tmp_path / "parts.h5ad", ours)))
