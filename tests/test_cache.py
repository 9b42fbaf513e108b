"""The cache of stores: what tells them apart, how large they may grow, the command line."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_dkan.cli import main
from napari_dkan.errors import CacheError
from napari_dkan.inference.cache.cache_directory import (
    clear_cache,
    compute_cache_size,
    evict_entries,
    format_age,
    format_size,
    get_cache_folder,
    get_cache_limit,
    list_entries,
    set_cache_limit,
)
from napari_dkan.inference.cache.cache_entry import open_cache_entry
from napari_dkan.inference.cache.cache_key import CacheKey

from .store_files import KEY, MADE_BY, WIDTH, fill, keys_of, loaded, other, rows_of

# ---- what a store is of --------------------------------------------------------------


def test_identity_is_what_the_numbers_depend_on():
    same = [other(path="elsewhere/C3.tif"), CacheKey(*_four(), made_by=MADE_BY[::-1])]
    differs = [other(slide="e"), other(what="tokens"), other(width=25), other(mpp=0.51)]
    assert {k.digest for k in same} == {KEY.digest}
    assert len({k.digest for k in [KEY, *differs]}) == 5


def _four():
    return KEY.slide, KEY.path, KEY.what, KEY.width


names = st.text(max_size=8)
values = st.text(max_size=8) | st.floats(allow_nan=False) | st.integers()


@given(names, names, names, st.integers(1, 4096), st.dictionaries(names, values, max_size=4))
def test_keys_come_back_from_their_text(slide, path, what, width, made_by):
    key = CacheKey(slide, path, what, width, tuple(made_by.items()))
    assert CacheKey.from_json(key.to_json()) == key


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
fields = st.fixed_dictionaries(
    dict.fromkeys(("slide", "path", "what", "width", "made_by"), json_values)
)


@given(st.text(max_size=20) | (json_values | fields).map(json.dumps))
def test_any_other_text_is_no_key(text):
    try:
        key = CacheKey.from_json(text)
    except ValueError:
        return
    assert key.digest and CacheKey.from_json(key.to_json()) == key


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (
            other(slide="new"),
            "C3.tif has changed since its features were stored; they are computed anew.",
        ),
        (
            other(mpp=0.25),
            "What is stored of C3.tif was made with another pixel size (0.5, now 0.25); "
            "its features are computed anew.",
        ),
        (
            other(encoder="uni", checkpoint="b" * 64, width=1024),
            "What is stored of C3.tif was made with another tile encoder (stain, now uni), "
            "checkpoint and feature length (24, now 1024); its features are computed anew.",
        ),
        (
            other(halo_um=3, tissue="0123456789abcdef"),
            "What is stored of C3.tif was made with another halo um and tissue outline; "
            "its features are computed anew.",
        ),
        (other(path="slides/C4.tif", slide="new"), ""),
        (other(what="tokens"), ""),
        (KEY, ""),
    ],
)
def test_a_mismatch_is_explained(tmp_path, now, sentence):
    fill(tmp_path)
    fill(tmp_path, key=CacheKey("x", "slides/Z.tif", "features", WIDTH, ()))
    assert open_cache_entry(now, tmp_path).note == sentence


# ---- how large it may grow -----------------------------------------------------------


@pytest.fixture
def three(tmp_path):
    """Three stores nobody has open, the first used longest ago."""
    keys = [other(path=f"{name}.tif", slide=name) for name in "ABC"]
    for age, key in zip((300, 200, 100), keys, strict=True):
        folder = fill(tmp_path, 2000, key=key).folder
        os.utime(folder / "used", (time.time() - age,) * 2)
    return keys


def slides(folder):
    return [s.slide_name for s in list_entries(folder)]


def test_what_was_used_longest_ago_makes_way(tmp_path, three):
    assert slides(tmp_path) == ["C.tif", "B.tif", "A.tif"]
    one = list_entries(tmp_path)[0].size_bytes
    open_cache_entry(three[0], tmp_path).load()  # looked at again
    assert slides(tmp_path) == ["A.tif", "C.tif", "B.tif"]

    store = open_cache_entry(KEY, tmp_path, int(3.2 * one))
    for start in range(0, 2000, 200):
        x = np.arange(start, start + 200)
        store.append(keys_of(x), rows_of(x))
    assert store.note == "" and slides(tmp_path) == ["C3.tif", "A.tif", "C.tif"]
    assert compute_cache_size(tmp_path) <= 3.4 * one


def test_what_is_in_use_stays_and_the_limit_holds(tmp_path, three):
    one = list_entries(tmp_path)[0].size_bytes
    used = open_cache_entry(three[0], tmp_path)
    store = open_cache_entry(KEY, tmp_path, int(1.5 * one))
    for start in range(0, 2000, 200):
        x = np.arange(start, start + 200)
        store.append(keys_of(x), rows_of(x))
    assert set(slides(tmp_path)) == {"A.tif", "C3.tif"} and used.folder.exists()
    assert not store.is_writable and store.note.startswith("The cache is at its limit of ")
    assert compute_cache_size(tmp_path) < 1.7 * one
    assert loaded(tmp_path)


def test_room_that_cannot_be_made_costs_nothing(tmp_path, three):
    assert not evict_entries(tmp_path, 1000, 2000, ())
    assert len(slides(tmp_path)) == 3


def test_the_limit_is_a_setting_and_a_variable(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_config_path", lambda *a, **k: tmp_path / "config")
    assert get_cache_limit() == 10 * 2**30
    set_cache_limit(2.5)
    assert get_cache_limit() == 2.5 * 2**30
    monkeypatch.setenv("NAPARI_DKAN_CACHE_GB", "0.5")
    assert get_cache_limit() == 2**29
    (tmp_path / "config" / "cache.json").write_text('{"limit_gib": "much"}')
    monkeypatch.delenv("NAPARI_DKAN_CACHE_GB")
    assert get_cache_limit() == 10 * 2**30
    for bad in (-1, float("nan"), float("inf")):
        with pytest.raises(CacheError, match="0 or more"):
            set_cache_limit(bad)
    monkeypatch.setenv("NAPARI_DKAN_CACHE_GB", "much")
    with pytest.raises(CacheError, match="'much'"):
        get_cache_limit()
    store = open_cache_entry(KEY, tmp_path)  # which ends no prediction
    store.append(keys_of(np.arange(3)), rows_of(np.arange(3)))
    assert "'much'" in store.note and not store.folder.exists()


def test_clearing_takes_stores_and_nothing_else(tmp_path, three):
    (tmp_path / "thesis.txt").write_text("precious")
    (tmp_path / ("0" * 20)).mkdir()  # named as a store, but none
    size = compute_cache_size(tmp_path)
    assert clear_cache(tmp_path, "nobody.tif") == 0
    freed = clear_cache(tmp_path, "B.tif") + clear_cache(tmp_path, "C")
    assert slides(tmp_path) == ["A.tif"]
    freed += clear_cache(tmp_path)
    assert freed == size and compute_cache_size(tmp_path) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"thesis.txt", "0" * 20}


def test_a_store_whose_description_is_lost_is_still_listed(tmp_path):
    store = fill(tmp_path)
    (store.folder / "key.json").write_text("{")
    assert slides(tmp_path) == ["unknown"] and loaded(tmp_path) == set(range(40))
    assert clear_cache(tmp_path) > 0 and not store.folder.exists()


# ---- the command line ----------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("NAPARI_DKAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("platformdirs.user_config_path", lambda *a, **k: tmp_path / "config")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["napari-dkan", "cache", *arguments])
        with pytest.raises(SystemExit) as exit:
            main()
        said = capsys.readouterr()
        return exit.value.code or 0, said.out, said.err

    return call


def test_the_command_line_shows_limits_and_clears(run):
    assert run("show")[1].splitlines() == [f"Folder: {get_cache_folder()}", "Size: 0 MB of 10 GB"]
    fill(get_cache_folder(), 1234)
    fill(get_cache_folder(), 5, key=other(path="D.svs", what="tokens", slide="d"))
    _, said, _ = run("show")
    cells = [line.split() for line in said.splitlines()[2:]]
    assert cells[0] == ["slide", "what", "rows", "size", "used"]
    assert ["D.svs", "tokens", "5", "<", "1", "MB", "now"] in cells
    assert ["C3.tif", "features", "1,234", "<", "1", "MB", "now"] in cells

    code, _, error = run("clear", "--slide", "E.svs")
    assert code == 2
    assert error == ("napari-dkan: Nothing is kept of a slide E.svs; there is: C3.tif, D.svs.\n")
    assert run("clear", "--slide", "D.svs")[0] == 0 and slides(get_cache_folder()) == ["C3.tif"]
    assert run("limit", "20")[1] == "The cache takes at most 20 GB.\n"
    assert slides(get_cache_folder()) == ["C3.tif"] and "of 20 GB" in run("show")[1]
    assert run("limit", "--", "-3")[0] == 2
    assert run("limit", "0")[0] == 0 and slides(get_cache_folder()) == []
    assert run("clear")[1] == "0 MB freed\n"


def test_words_for_sizes_and_ages():
    sizes = [0, 5, 3 * 2**20, 1.24 * 2**30, 10 * 2**30]
    assert [format_size(s) for s in sizes] == ["0 MB", "< 1 MB", "3 MB", "1.2 GB", "10 GB"]
    ages = [3, 60, 7300, 3 * 86_400]
    told = ["now", "1 minute ago", "2 hours ago", "3 days ago"]
    assert [format_age(a) for a in ages] == told


def test_tests_keep_away_from_the_persons_cache():
    import platformdirs

    assert platformdirs.user_cache_path("napari-dkan") not in [
        get_cache_folder(),
        *get_cache_folder().parents,
    ]
