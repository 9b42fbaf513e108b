"""The cache directory: keys, size limit, eviction and the command line."""

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

from .cache_files import KEY, MADE_BY, WIDTH, changed_key, fill, keys_of, load_indices, rows_of

# ---- keys ----------------------------------------------------------------------------


def test_digest_depends_on_everything_but_the_path():
    same_keys = [
        changed_key(path="elsewhere/C3.tif"),
        CacheKey(*_key_fields(), made_by=MADE_BY[::-1]),
    ]
    different_keys = [
        changed_key(slide="e"),
        changed_key(what="tokens"),
        changed_key(width=25),
        changed_key(mpp=0.51),
    ]
    assert {k.digest for k in same_keys} == {KEY.digest}
    assert len({k.digest for k in [KEY, *different_keys]}) == 5


def _key_fields():
    return KEY.slide, KEY.path, KEY.what, KEY.width


names = st.text(max_size=8)
values = st.text(max_size=8) | st.floats(allow_nan=False) | st.integers()


@given(names, names, names, st.integers(1, 4096), st.dictionaries(names, values, max_size=4))
def test_key_json_roundtrip(slide, path, what, width, made_by):
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
def test_other_json_is_rejected(text):
    try:
        key = CacheKey.from_json(text)
    except ValueError:
        return
    assert key.digest and CacheKey.from_json(key.to_json()) == key


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (
            changed_key(slide="new"),
            "C3.tif has changed since its features were stored; they are computed anew.",
        ),
        (
            changed_key(mpp=0.25),
            "What is stored of C3.tif was made with another pixel size (0.5, now 0.25); "
            "its features are computed anew.",
        ),
        (
            changed_key(encoder="uni", checkpoint="b" * 64, width=1024),
            "What is stored of C3.tif was made with another tile encoder (stain, now uni), "
            "checkpoint and feature length (24, now 1024); its features are computed anew.",
        ),
        (
            changed_key(halo_um=3, tissue="0123456789abcdef"),
            "What is stored of C3.tif was made with another halo um and tissue outline; "
            "its features are computed anew.",
        ),
        (changed_key(path="slides/C4.tif", slide="new"), ""),
        (changed_key(what="tokens"), ""),
        (KEY, ""),
    ],
)
def test_cache_miss_is_explained(tmp_path, key, sentence):
    fill(tmp_path)
    fill(tmp_path, key=CacheKey("x", "slides/Z.tif", "features", WIDTH, ()))
    assert open_cache_entry(key, tmp_path).note == sentence


# ---- size limit ---------------------------------------------------------------------


@pytest.fixture
def three_keys(tmp_path):
    """Keys of three entries that are not open, the least recently used first."""
    keys = [changed_key(path=f"{name}.tif", slide=name) for name in "ABC"]
    for age, key in zip((300, 200, 100), keys, strict=True):
        folder = fill(tmp_path, 2000, key=key).folder
        os.utime(folder / "used", (time.time() - age,) * 2)
    return keys


def list_slides(folder):
    return [s.slide_name for s in list_entries(folder)]


def test_least_recently_used_entries_are_evicted(tmp_path, three_keys):
    assert list_slides(tmp_path) == ["C.tif", "B.tif", "A.tif"]
    entry_size = list_entries(tmp_path)[0].size_bytes
    open_cache_entry(three_keys[0], tmp_path).load()  # marks it as used
    assert list_slides(tmp_path) == ["A.tif", "C.tif", "B.tif"]

    store = open_cache_entry(KEY, tmp_path, int(3.2 * entry_size))
    for start in range(0, 2000, 200):
        x = np.arange(start, start + 200)
        store.append(keys_of(x), rows_of(x))
    assert store.note == "" and list_slides(tmp_path) == ["C3.tif", "A.tif", "C.tif"]
    assert compute_cache_size(tmp_path) <= 3.4 * entry_size


def test_open_entries_are_not_evicted_and_the_limit_holds(tmp_path, three_keys):
    entry_size = list_entries(tmp_path)[0].size_bytes
    used = open_cache_entry(three_keys[0], tmp_path)
    store = open_cache_entry(KEY, tmp_path, int(1.5 * entry_size))
    for start in range(0, 2000, 200):
        x = np.arange(start, start + 200)
        store.append(keys_of(x), rows_of(x))
    assert set(list_slides(tmp_path)) == {"A.tif", "C3.tif"} and used.folder.exists()
    assert not store.is_writable and store.note.startswith("The cache is at its limit of ")
    assert compute_cache_size(tmp_path) < 1.7 * entry_size
    assert load_indices(tmp_path)


def test_nothing_is_evicted_when_the_limit_is_too_small(tmp_path, three_keys):
    assert not evict_entries(tmp_path, 1000, 2000, ())
    assert len(list_slides(tmp_path)) == 3


def test_limit_from_setting_and_environment_variable(tmp_path, monkeypatch):
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
    store = open_cache_entry(KEY, tmp_path)  # does not raise
    store.append(keys_of(np.arange(3)), rows_of(np.arange(3)))
    assert "'much'" in store.note and not store.folder.exists()


def test_clearing_removes_entries_only(tmp_path, three_keys):
    (tmp_path / "thesis.txt").write_text("precious")
    (tmp_path / ("0" * 20)).mkdir()  # has the name of an entry but no content
    size = compute_cache_size(tmp_path)
    assert clear_cache(tmp_path, "nobody.tif") == 0
    freed = clear_cache(tmp_path, "B.tif") + clear_cache(tmp_path, "C")
    assert list_slides(tmp_path) == ["A.tif"]
    freed += clear_cache(tmp_path)
    assert freed == size and compute_cache_size(tmp_path) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"thesis.txt", "0" * 20}


def test_entry_with_a_damaged_key_is_listed(tmp_path):
    store = fill(tmp_path)
    (store.folder / "key.json").write_text("{")
    assert list_slides(tmp_path) == ["unknown"] and load_indices(tmp_path) == set(range(40))
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
        captured = capsys.readouterr()
        return exit.value.code or 0, captured.out, captured.err

    return call


def test_command_line_shows_limits_and_clears(run):
    assert run("show")[1].splitlines() == [f"Folder: {get_cache_folder()}", "Size: 0 MB of 10 GB"]
    fill(get_cache_folder(), 1234)
    fill(get_cache_folder(), 5, key=changed_key(path="D.svs", what="tokens", slide="d"))
    _, output, _ = run("show")
    cells = [line.split() for line in output.splitlines()[2:]]
    assert cells[0] == ["slide", "what", "rows", "size", "used"]
    assert ["D.svs", "tokens", "5", "<", "1", "MB", "now"] in cells
    assert ["C3.tif", "features", "1,234", "<", "1", "MB", "now"] in cells

    code, _, error = run("clear", "--slide", "E.svs")
    assert code == 2
    assert error == ("napari-dkan: Nothing is kept of a slide E.svs; there is: C3.tif, D.svs.\n")
    assert run("clear", "--slide", "D.svs")[0] == 0 and list_slides(get_cache_folder()) == [
        "C3.tif"
    ]
    assert run("limit", "20")[1] == "The cache takes at most 20 GB.\n"
    assert list_slides(get_cache_folder()) == ["C3.tif"] and "of 20 GB" in run("show")[1]
    assert run("limit", "--", "-3")[0] == 2
    assert run("limit", "0")[0] == 0 and list_slides(get_cache_folder()) == []
    assert run("clear")[1] == "0 MB freed\n"


def test_formats_of_sizes_and_ages():
    sizes = [0, 5, 3 * 2**20, 1.24 * 2**30, 10 * 2**30]
    assert [format_size(s) for s in sizes] == ["0 MB", "< 1 MB", "3 MB", "1.2 GB", "10 GB"]
    ages = [3, 60, 7300, 3 * 86_400]
    texts = ["now", "1 minute ago", "2 hours ago", "3 days ago"]
    assert [format_age(a) for a in ages] == texts


def test_tests_do_not_use_the_users_cache():
    import platformdirs

    assert platformdirs.user_cache_path("napari-dkan") not in [
        get_cache_folder(),
        *get_cache_folder().parents,
    ]
