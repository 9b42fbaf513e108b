"""Saved results: bit-exact round trip, and rejection of damaged or malicious files."""

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
from napari_dkan.export.result_reader import is_saved_result, load_result, read_result_summary
from napari_dkan.export.saved_result import SavedResult, SlideRecord, ViewSettings, save_result
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_region
from napari_dkan.model import load_checkpoint
from napari_dkan.slide import open_slide

from .result_files import grid_target, result, spots_target


def to_bits(array):
    return array.dtype, array.shape, array.tobytes()


def assert_same(original: SavedResult, loaded: SavedResult) -> None:
    """Assert that everything is equal, numbers to the last bit."""
    one, two = original.prediction, loaded.prediction
    for name in ("values", "tokens", "failed_mask", "qc_features"):
        assert to_bits(getattr(one, name)) == to_bits(getattr(two, name)), name
    assert (one.spread is None) == (two.spread is None)
    assert one.spread is None or to_bits(one.spread) == to_bits(two.spread)
    assert to_bits(one.target.spots.xy) == to_bits(two.target.spots.xy)
    assert one.target.kind is two.target.kind
    for name in ("names", "diameter_um", "pitch_um"):
        assert getattr(one.target.spots, name) == getattr(two.target.spots, name), name
    for a, b in (
        (one.target.spots.array_coords, two.target.spots.array_coords),
        (one.target.grid and one.target.grid.cells, two.target.grid and two.target.grid.cells),
    ):
        assert (a is None and b is None) or to_bits(a) == to_bits(b)
    if one.target.grid:
        assert one.target.grid.pitch == two.target.grid.pitch
        assert one.target.grid.pitch_um == two.target.grid.pitch_um
    for name in ("panel", "label_scale", "provenance", "zero_shot_symbols"):
        assert getattr(one, name) == getattr(two, name), name
    assert (original.slide_record, dict(original.card), original.view_settings) == (
        loaded.slide_record,
        dict(loaded.card),
        loaded.view_settings,
    )
    if original.regions is None:
        assert loaded.regions is None
    else:
        assert original.regions.equals_exact(loaded.regions, 0)
    if original.reliability is None:
        assert loaded.reliability is None
    else:
        assert to_bits(original.reliability.score) == to_bits(loaded.reliability.score)
        assert to_bits(original.reliability.unreliable) == to_bits(loaded.reliability.unreliable)
        for row in range(len(one.target)):
            assert original.reliability.reasons(row) == loaded.reliability.reasons(row)


def test_prediction_of_a_slide_roundtrips(tiny_slide_file, tiny_checkpoint_file, tmp_path):
    checkpoint, file = load_checkpoint(tiny_checkpoint_file), tmp_path / "a b" / "rücken.h5ad"
    with open_slide(tiny_slide_file) as slide:
        tissue = find_tissue_region(slide, slide.mpp)
        x, y = tissue.representative_point().coords[0]
        region_around = box(x - 300, y - 300, x + 300, y + 300)
        target = target_from_region(region_around, 140.0, slide.mpp, slide.width, slide.height)
        prediction = predict(Predictor(slide, checkpoint, slide.mpp, tissue, "cpu"), target)
        record = SlideRecord.from_slide(slide, slide.mpp, "OME metadata")
        original = SavedResult(prediction, record, checkpoint.card, regions=tissue)
        save_result(file, original, slide)
        assert (record.path, record.fingerprint) == (str(tiny_slide_file), slide.fingerprint())
    assert is_saved_result(file)
    loaded = load_result(file)
    assert_same(original, loaded)
    assert np.isfinite(loaded.prediction.values).all() and len(loaded.prediction.values) > 5
    assert loaded.overview.rgb.shape == (1600, 1600, 3) and loaded.overview.scale == 1
    assert loaded.versions["napari-dkan"] and loaded.versions["torch"]
    second_file = save_result(tmp_path / "again.h5ad", loaded)  # needs no slide
    assert_same(loaded, load_result(second_file))
    np.testing.assert_array_equal(load_result(second_file).overview.rgb, loaded.overview.rgb)
    assert load_result(second_file).versions == loaded.versions


floats = st.integers(0, 2**32 - 1).map(lambda n: np.uint32(n).view(np.float32))  # every bit pattern
corners = st.floats(-1e6, 1e6)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=15)
@given(data=st.data())
def test_any_result_roundtrips(data, tmp_path_factory):
    count = data.draw(st.integers(1, 5))
    array = None
    if data.draw(st.booleans()):
        array = np.array(data.draw(st.lists(st.tuples(*[st.integers(-9, 9)] * 2),
                                            min_size=count, max_size=count)))  # fmt: skip
    spot_names = data.draw(st.just(()) | st.lists(names, min_size=count, max_size=count).map(tuple))
    target = spots_target(count, spot_names, array, data.draw(st.none() | st.floats(1, 200)))
    if data.draw(st.booleans()):
        target = grid_target(corner=(data.draw(st.integers(-99, 99)), 0))
    plain = result(target)
    prediction = plain.prediction
    values = data.draw(st.lists(floats, min_size=prediction.values.size,
                               max_size=prediction.values.size))  # fmt: skip
    prediction.values[:] = np.array(values, np.float32).reshape(prediction.values.shape)
    record = {**prediction.provenance, "zero_shot": {"expected_pcc": data.draw(st.floats(-1, 1))}}
    spread = data.draw(st.sampled_from([None, prediction.values[::-1].copy()]))
    prediction = replace(prediction, zero_shot_symbols=("CD74",), provenance=record, spread=spread)
    x, y = data.draw(corners), data.draw(corners)
    region = Polygon([(x, y), (x + 3.3, y), (x + 1 / 3, y + 7.7)])
    original = replace(
        plain,
        prediction=prediction,
        regions=data.draw(st.sampled_from([None, region, MultiPolygon([region]), Polygon()])),
        view_settings=data.draw(st.sampled_from([None, plain.view_settings, ViewSettings()])),
        reliability=data.draw(st.sampled_from([None, plain.reliability])),
    )
    file = save_result(tmp_path_factory.mktemp("any") / "any.h5ad", original)
    loaded, summary = load_result(file), read_result_summary(file)
    assert_same(original, loaded)
    assert summary.provenance == loaded.prediction.provenance
    assert (summary.n_spots, summary.n_genes) == loaded.prediction.values.shape
    scored = loaded.reliability
    assert summary.n_unreliable == (None if scored is None else scored.unreliable.sum())
    assert summary.mean_reliability == (None if scored is None else scored.score.mean())


def test_subset_of_another_program_is_loaded(tmp_path):
    original = result()
    save_result(tmp_path / "all.h5ad", original)
    data = anndata.read_h5ad(tmp_path / "all.h5ad")
    subset = data[[4, 0, 7], ["CD74"]].copy()
    subset.obs["cluster"] = ["a", "b", "a"]
    subset.write_h5ad(tmp_path / "some.h5ad", compression="gzip")
    loaded = load_result(tmp_path / "some.h5ad")
    rows = [4, 0, 7]
    assert loaded.prediction.panel.symbols == ("CD74",)
    assert to_bits(loaded.prediction.values) == to_bits(original.prediction.values[rows][:, 1:])
    assert to_bits(loaded.prediction.tokens) == to_bits(original.prediction.tokens[rows])
    assert loaded.prediction.target.grid.cells.tolist() == (
        original.prediction.target.grid.cells[rows].tolist()
    )
    assert loaded.reliability.reasons(1) == ("out of focus", "little tissue")


def test_qc_features_of_another_version_are_matched_by_name(tmp_path):
    original = result()
    file = save_result(tmp_path / "old.h5ad", original)
    content = document(file)
    content["evidence"] = ["older", *reversed(content["evidence"][1:])]
    rewrite(file, content)
    loaded = load_result(file).prediction.qc_features
    assert np.isnan(loaded[:, 0]).all()
    assert to_bits(loaded[:, 1:].copy()) == to_bits(
        original.prediction.qc_features[:, :0:-1].copy()
    )


def test_empty_or_non_json_result_is_not_saved(tmp_path):
    empty = result()
    empty = replace(empty, prediction=empty.prediction.take(np.zeros(11, bool)))
    with pytest.raises(OutputError, match=r"out\.h5ad was not written: nothing is predicted yet"):
        save_result(tmp_path / "out.h5ad", empty)
    not_json = replace(result(), card={"title": {1, 2}})
    with pytest.raises(OutputError, match="not JSON"):
        save_result(tmp_path / "out.h5ad", not_json)
    assert not list(tmp_path.iterdir())


# ---- bad files -------------------------------------------------------------------------


def document(file):
    with h5py.File(file, "r") as h5:
        return json.loads(h5["uns/napari_dkan/saved"][()])


def rewrite(file, content):
    with h5py.File(file, "r+") as h5:
        h5["uns/napari_dkan/saved"][()] = (
            content if isinstance(content, str) else json.dumps(content)
        )


@pytest.fixture(scope="module")
def good_file(tmp_path_factory):
    return save_result(tmp_path_factory.mktemp("result") / "result.h5ad", result()).read_bytes()


def claim_huge_array(h5):
    """Claim ten billion spots, of which nothing is stored."""
    del h5["X"]
    h5.create_dataset("X", (10**10, 250), "f4", chunks=(1000, 250))


def add_compression_bomb(h5):
    """Add a chunk of 88 bytes that inflates to 100 MiB."""
    del h5["X"]
    item = h5.create_dataset("X", (11, 2), "f4", chunks=(11, 2), compression="gzip")
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    item.id.write_direct_chunk((0, 0), packed)


def add_external_link(h5):
    del h5["X"]
    h5["X"] = h5py.ExternalLink("/etc/hostname", "X")


def add_external_storage(h5):
    del h5["X"]
    h5.create_dataset("X", (11, 2), "f4", external=[("/etc/hostname", 0, 88)])


def remove_column(h5):
    del h5["X"]
    h5["X"] = np.ones((11, 1), np.float32)


def change_dtype(h5):
    del h5["X"]
    h5["X"] = np.ones((11, 2), np.float64)


def duplicate_cell(h5):
    h5["obsm/dkan_cells"][1] = h5["obsm/dkan_cells"][0]


def move_cell_far_away(h5):
    h5["obsm/dkan_cells"][1] = 2**62


def remove_tokens(h5):
    del h5["obsm/dkan_tokens"]


def set_infinite_position(h5):
    h5["obsm/spatial"][0] = np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (claim_huge_array, "claims to hold"),
        (add_compression_bomb, "unpacks to more than it says"),
        (add_external_link, "refers to other files"),
        (add_external_storage, "refers to other files"),
        (remove_column, "is not float32 of shape"),
        (change_dtype, "is not float32 of shape"),
        (duplicate_cell, "a cell twice"),
        (move_cell_far_away, "larger than any slide"),
        (remove_tokens, "is damaged"),
        (set_infinite_position, "no finite position"),
    ],
)
def test_changed_file_is_rejected(good_file, change, message, tmp_path):
    file = tmp_path / "bad.h5ad"
    file.write_bytes(good_file)
    with h5py.File(file, "r+") as h5:
        change(h5)
    tracemalloc.start()
    with pytest.raises(ResultError, match=message) as error:
        load_result(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "bad.h5ad" in str(error.value) and "\n" not in str(error.value)
    assert peak < 64 << 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "newer napari-dkan"),
        ({"format": "1"}, "entry format"),
        ({"panel": 3}, "entry panel"),
        ({"panel": [{"symbol": "ERBB2", "ensembl": "", "name": "", "aliases": [1]}]}, "aliases"),
        ({"label_scale": {"target_sum": 1e4, "base": True, "smoothing": 3}}, "entry base"),
        ({"regions": {"type": "Point", "coordinates": [1, 2]}}, "no polygons"),
        ({"regions": {"type": "Polygon", "coordinates": [[[1, 2]]]}}, "is damaged"),
        ({"view": {"gene": "CD74"}}, "entry pinned"),
        ({"target": {"kind": "unknown"}}, "is damaged"),
        ({"slide": {"name": "x"}}, "entry path"),
        ("[" * 100_000, "is damaged"),
        ("[]", "no JSON object"),
    ],
)
def test_invalid_document_is_rejected(good_file, change, message, tmp_path):
    file = tmp_path / "bad.h5ad"
    file.write_bytes(good_file)
    rewrite(file, change if isinstance(change, str) else document(file) | change)
    with pytest.raises(ResultError, match=message) as error:
        load_result(file)
    assert "bad.h5ad" in str(error.value) and "\n" not in str(error.value)


def test_other_files_are_not_results(good_file, tmp_path):
    anndata.AnnData(np.ones((3, 2), np.float32)).write_h5ad(tmp_path / "other.h5ad")
    (tmp_path / "text.h5ad").write_text("not HDF5")
    (tmp_path / "truncated.h5ad").write_bytes(good_file[: len(good_file) // 2])
    (tmp_path / "empty.h5ad").write_bytes(b"")
    (tmp_path / "folder.h5ad").mkdir()
    for file in sorted(tmp_path.iterdir()):
        assert not is_saved_result(file)
        with pytest.raises(ResultError, match=file.name):
            load_result(file)
    assert not is_saved_result(tmp_path / "gone.h5ad")
    with pytest.raises(ResultError, match="There is no file"):
        load_result(tmp_path / "gone.h5ad")


def test_flipped_bytes_raise_result_errors_only(good_file, tmp_path):
    rng, file = np.random.default_rng(0), tmp_path / "flipped.h5ad"
    for _ in range(40):
        mutated = bytearray(good_file)
        for at in rng.integers(0, len(good_file), rng.integers(1, 20)):
            mutated[at] = rng.integers(256)
        file.write_bytes(mutated)
        with suppress(ResultError):
            load_result(file)


def test_many_regions_with_holes_roundtrip(tmp_path):
    """Outlines of a whole tissue have many parts with holes."""
    parts = [box(i * 10, 0, i * 10 + 8, 8).difference(box(i * 10 + 2, 2, i * 10 + 3, 3.1))
             for i in range(50)]  # fmt: skip
    original = result(regions=MultiPolygon(parts))
    assert_same(original, load_result(save_result(tmp_path / "parts.h5ad", original)))
