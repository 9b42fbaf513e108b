"""The store of features: to the bit, whoever is killed, whatever is damaged or full."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sys
import time

import numpy as np
import pytest

from napari_dkan.inference.cache import cache_segments as merge
from napari_dkan.inference.cache import cache_segments as parts
from napari_dkan.inference.cache.cache_directory import clear_cache, list_entries
from napari_dkan.inference.cache.cache_entry import open_cache_entry
from napari_dkan.inference.cache.cache_key import CacheKey

from .store_files import KEY, MADE_BY, WIDTH, fill, go, keys_of, loaded, rows_of, writer

# ---- what goes in comes out ----------------------------------------------------------


def test_rows_come_back_to_the_bit(tmp_path):
    values = np.random.default_rng(1).integers(0, 2**32, (3000, WIDTH), np.uint32)
    values[1000:2000] = 0  # rows of zeros are rows
    rows = values.view(np.float32)  # all kinds of NaN and subnormal numbers as well
    keys = np.random.default_rng(2).integers(-(2**62), 2**62, (3000, 2))
    store = open_cache_entry(KEY, tmp_path)
    for start in range(0, 3000, 700):
        store.append(keys[start : start + 700], rows[start : start + 700])
    store.append(keys[:5], rows[:5])  # again: any of the two will do
    store.append(keys[:0], rows[:0])

    again = open_cache_entry(KEY, tmp_path)
    found_keys, found = again.load()
    order, wanted = np.lexsort(found_keys.T), np.lexsort(keys.T)
    assert found_keys.dtype == np.int64 and found.dtype == np.float32
    assert (found_keys[order] == keys[wanted]).all()
    assert found[order].tobytes() == rows[wanted].tobytes()
    assert again.note == "" and again.damaged_segments == 0
    with pytest.raises(ValueError, match="do not fit"):
        store.append(keys, rows[:, 1:])


def test_a_new_store_is_empty(tmp_path):
    store = open_cache_entry(KEY, tmp_path / "absent")
    keys, rows = store.load()
    assert keys.shape == (0, 2) and rows.shape == (0, WIDTH) and store.note == ""
    assert not (tmp_path / "absent").exists()  # looking leaves no traces


def test_many_small_parts_become_one(tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "MAX_SMALL_SEGMENTS", 8)
    store = open_cache_entry(KEY, tmp_path)
    for x in range(25):
        store.append(keys_of(np.array([x])), rows_of(np.array([x])))
    assert len(parts.list_segments(store.folder)) <= 8
    assert loaded(tmp_path) == set(range(25)) and list_entries(tmp_path)[0].row_count == 25


# ---- processes that are killed, and several at once ----------------------------------


def test_a_kill_at_any_moment_leaves_only_right_rows(tmp_path):
    chance = random.Random(7)
    writers = [writer(tmp_path, 100_000 * i, 5000) for i in range(10)]
    kept = set()
    for number, process in enumerate(writers):
        go(process)
        said = process.stdout.readline()  # it is at it
        time.sleep(chance.uniform(0, 0.25))
        process.kill()
        said += process.communicate()[0]
        lasts = [int(line) for line in said.split("\n")[:-1]]
        kept |= set(range(100_000 * number, lasts[-1] + 1))
        assert kept <= loaded(tmp_path)  # what was told as kept is there
    store = open_cache_entry(KEY, tmp_path)
    store.load()
    assert store.damaged_segments == 0 and store.note == ""


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    writers = [writer(tmp_path, 10_000 * i, 40) for i in range(2)]
    for process in writers:
        go(process)
    while any(process.poll() is None for process in writers):
        loaded(tmp_path)  # and whoever reads meanwhile sees right rows only
    assert all(process.wait() == 0 for process in writers)
    assert loaded(tmp_path) == {10_000 * i + x for i in range(2) for x in range(40 * 16)}


def test_what_a_killed_process_left_is_swept_after_a_day(tmp_path):
    folder = fill(tmp_path).folder
    for place, name in (
        (folder, ".writing-old"),
        (folder, ".writing-new"),
        (tmp_path, ".removed-old"),
    ):
        (place / name / "rows").mkdir(parents=True)
        (place / name / "rows" / "c.0.0").write_bytes(b"half")
        if name.endswith("old"):
            os.utime(place / name, (time.time() - 2 * parts.STALE_SECONDS,) * 2)
    assert loaded(tmp_path) == set(range(40))
    assert (folder / ".writing-new").exists() and not (folder / ".writing-old").exists()
    assert not (tmp_path / ".removed-old").exists()


# ---- damage --------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path):
    """A store of a good part (0 to 39) and one to be damaged (100 to 119), and its files."""
    fill(tmp_path)
    before = set(parts.list_segments(open_cache_entry(KEY, tmp_path).folder))
    store = fill(tmp_path, 20, 100)
    (part,) = set(parts.list_segments(store.folder)) - before
    return store, sorted(p for p in part.rglob("*") if p.is_file())


GOOD, ALL = set(range(40)), set(range(40)) | set(range(100, 120))


def test_a_part_with_a_lost_or_cut_file_is_left_out(tmp_path, damaged):
    store, files = damaged
    assert len(files) == 5
    for file in files:
        content = file.read_bytes()
        file.unlink()
        assert loaded(tmp_path) == GOOD, file
        for length in (0, 1, len(content) // 2, len(content) - 1):
            file.write_bytes(content[:length])
            assert loaded(tmp_path) == GOOD, (file, length)
        file.write_bytes(content)
        assert loaded(tmp_path) == ALL
    files[-1].write_bytes(b"")
    store.load()
    assert store.damaged_segments == 1
    assert store.note == "Some of what was stored of C3.tif is damaged and is computed anew."


def test_no_changed_byte_makes_a_wrong_row(tmp_path, damaged):
    _, files = damaged
    chance = random.Random(3)
    for file in files:
        content = file.read_bytes()
        for at in chance.sample(range(len(content)), 25):
            changed = bytearray(content)
            changed[at] ^= 1 << chance.randrange(8)
            file.write_bytes(changed)
            found = loaded(tmp_path)
            assert found == GOOD or (found == ALL and file.suffix == ".json"), (file, at)
        file.write_bytes(content)


def test_parts_of_another_store_or_of_nobody_are_left_out(tmp_path):
    store = fill(tmp_path)
    other = fill(tmp_path, 8, 500, CacheKey("0" * 64, KEY.path, KEY.what, WIDTH, MADE_BY))
    (foreign,) = parts.list_segments(other.folder)
    shutil.copytree(foreign, store.folder / foreign.name)
    (store.folder / "part-3-empty").mkdir()
    (store.folder / "part-file").write_text("no part")
    assert loaded(tmp_path) == GOOD


# ---- disks that cannot be written ----------------------------------------------------


def test_a_full_disk_ends_the_writing_and_is_told(tmp_path, monkeypatch):
    store = fill(tmp_path)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(parts, "_write_array", full)
        store.append(keys_of(np.arange(50, 60)), rows_of(np.arange(50, 60)))
    assert store.note == (
        f"The cache folder {tmp_path} cannot be written (No space left on device); "
        "features are kept for this session only."
    )
    assert not store.is_writable and not list(store.folder.glob(".*"))
    store.append(keys_of(np.arange(60, 70)), rows_of(np.arange(60, 70)))  # it has stopped
    assert loaded(tmp_path) == GOOD


def test_a_write_cut_short_by_the_system_leaves_nothing(tmp_path):
    """As a full disk, but for real: the system lets no file grow beyond 20 kB."""
    resource = pytest.importorskip("resource", reason="only where there are such limits")
    store = fill(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    x = np.arange(1000, 2000)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        store.append(keys_of(x), rows_of(x))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not store.is_writable and "cannot be written (File too large)" in store.note
    assert not list(store.folder.glob(".*")) and loaded(tmp_path) == GOOD


def test_a_folder_that_cannot_be_is_told(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    store = open_cache_entry(KEY, tmp_path / "cache")
    assert len(store.load()[0]) == 0
    store.append(keys_of(np.arange(3)), rows_of(np.arange(3)))
    assert "cannot be written (" in store.note and not store.is_writable
    assert list_entries(tmp_path / "cache") == [] and clear_cache(tmp_path / "cache") == 0


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_read(tmp_path):
    store = fill(tmp_path)
    store.folder.chmod(0o500)
    try:
        assert loaded(tmp_path) == GOOD
        store.append(keys_of(np.arange(50, 60)), rows_of(np.arange(50, 60)))
        assert "cannot be written (Permission denied)" in store.note
    finally:
        store.folder.chmod(0o700)


def test_a_store_that_was_cleared_meanwhile_starts_anew(tmp_path):
    store = fill(tmp_path)
    shutil.rmtree(tmp_path)
    x = np.arange(70, 80)
    store.append(keys_of(x), rows_of(x))
    assert store.note == "" and loaded(tmp_path) == set(range(70, 80))
    assert list_entries(tmp_path)[0].key == KEY


def test_without_zarr_nothing_is_kept(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setitem(sys.modules, "zarr", None)
    store = open_cache_entry(KEY, tmp_path)
    assert store.note == "The package zarr is missing; features are kept for this session only."
    store.append(keys_of(np.arange(3)), rows_of(np.arange(3)))
    assert len(store.load()[0]) == 0 and store.load()[1].shape == (0, WIDTH)
