"""Cache entries: bit-exact rows, killed and concurrent writers, damage and full disks."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sys
import time

import numpy as np
import pytest

from napari_dkan.inference.cache import cache_segments
from napari_dkan.inference.cache.cache_directory import clear_cache, list_entries
from napari_dkan.inference.cache.cache_entry import open_cache_entry
from napari_dkan.inference.cache.cache_key import CacheKey

from .cache_files import (
    KEY,
    MADE_BY,
    WIDTH,
    fill,
    keys_of,
    load_indices,
    release_writer,
    rows_of,
    start_writer,
)

# ---- round trip ---------------------------------------------------------------------


def test_rows_roundtrip_to_the_bit(tmp_path):
    values = np.random.default_rng(1).integers(0, 2**32, (3000, WIDTH), np.uint32)
    values[1000:2000] = 0
    rows = values.view(np.float32)  # all kinds of NaN and subnormal numbers as well
    keys = np.random.default_rng(2).integers(-(2**62), 2**62, (3000, 2))
    store = open_cache_entry(KEY, tmp_path)
    for start in range(0, 3000, 700):
        store.append(keys[start : start + 700], rows[start : start + 700])
    store.append(keys[:5], rows[:5])  # duplicate keys
    store.append(keys[:0], rows[:0])

    reopened = open_cache_entry(KEY, tmp_path)
    found_keys, found_rows = reopened.load()
    order, expected_order = np.lexsort(found_keys.T), np.lexsort(keys.T)
    assert found_keys.dtype == np.int64 and found_rows.dtype == np.float32
    assert (found_keys[order] == keys[expected_order]).all()
    assert found_rows[order].tobytes() == rows[expected_order].tobytes()
    assert reopened.note == "" and reopened.damaged_segments == 0
    with pytest.raises(ValueError, match="do not fit"):
        store.append(keys, rows[:, 1:])


def test_new_entry_is_empty(tmp_path):
    store = open_cache_entry(KEY, tmp_path / "absent")
    keys, rows = store.load()
    assert keys.shape == (0, 2) and rows.shape == (0, WIDTH) and store.note == ""
    assert not (tmp_path / "absent").exists()


def test_small_segments_are_merged(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_segments, "MAX_SMALL_SEGMENTS", 8)
    store = open_cache_entry(KEY, tmp_path)
    for x in range(25):
        store.append(keys_of(np.array([x])), rows_of(np.array([x])))
    assert len(cache_segments.list_segments(store.folder)) <= 8
    assert load_indices(tmp_path) == set(range(25)) and list_entries(tmp_path)[0].row_count == 25


# ---- processes that are killed, and several at once ----------------------------------


def test_killed_writer_leaves_only_correct_rows(tmp_path):
    rng = random.Random(7)
    writers = [start_writer(tmp_path, 100_000 * i, 5000) for i in range(10)]
    reported = set()
    for number, process in enumerate(writers):
        release_writer(process)
        output = process.stdout.readline()
        time.sleep(rng.uniform(0, 0.25))
        process.kill()
        output += process.communicate()[0]
        last_indices = [int(line) for line in output.split("\n")[:-1]]
        reported |= set(range(100_000 * number, last_indices[-1] + 1))
        assert reported <= load_indices(tmp_path)
    store = open_cache_entry(KEY, tmp_path)
    store.load()
    assert store.damaged_segments == 0 and store.note == ""


def test_concurrent_writers_lose_nothing(tmp_path):
    writers = [start_writer(tmp_path, 10_000 * i, 40) for i in range(2)]
    for process in writers:
        release_writer(process)
    while any(process.poll() is None for process in writers):
        load_indices(tmp_path)  # checks the rows
    assert all(process.wait() == 0 for process in writers)
    assert load_indices(tmp_path) == {10_000 * i + x for i in range(2) for x in range(40 * 16)}


def test_stale_folders_are_removed_after_a_day(tmp_path):
    folder = fill(tmp_path).folder
    for parent, name in (
        (folder, ".writing-old"),
        (folder, ".writing-new"),
        (tmp_path, ".removed-old"),
    ):
        (parent / name / "rows").mkdir(parents=True)
        (parent / name / "rows" / "c.0.0").write_bytes(b"half")
        if name.endswith("old"):
            os.utime(parent / name, (time.time() - 2 * cache_segments.STALE_SECONDS,) * 2)
    assert load_indices(tmp_path) == set(range(40))
    assert (folder / ".writing-new").exists() and not (folder / ".writing-old").exists()
    assert not (tmp_path / ".removed-old").exists()


# ---- damage --------------------------------------------------------------------------


@pytest.fixture
def damaged_segment(tmp_path):
    """An entry with a good segment (0 to 39), and the files of another one (100 to 119)."""
    fill(tmp_path)
    before = set(cache_segments.list_segments(open_cache_entry(KEY, tmp_path).folder))
    store = fill(tmp_path, 20, 100)
    (segment,) = set(cache_segments.list_segments(store.folder)) - before
    return store, sorted(p for p in segment.rglob("*") if p.is_file())


GOOD, ALL = set(range(40)), set(range(40)) | set(range(100, 120))


def test_segment_with_a_missing_or_truncated_file_is_ignored(tmp_path, damaged_segment):
    store, files = damaged_segment
    assert len(files) == 5
    for file in files:
        content = file.read_bytes()
        file.unlink()
        assert load_indices(tmp_path) == GOOD, file
        for length in (0, 1, len(content) // 2, len(content) - 1):
            file.write_bytes(content[:length])
            assert load_indices(tmp_path) == GOOD, (file, length)
        file.write_bytes(content)
        assert load_indices(tmp_path) == ALL
    files[-1].write_bytes(b"")
    store.load()
    assert store.damaged_segments == 1
    assert store.note == "Some of what was stored of C3.tif is damaged and is computed anew."


def test_flipped_bits_never_give_a_wrong_row(tmp_path, damaged_segment):
    _, files = damaged_segment
    rng = random.Random(3)
    for file in files:
        content = file.read_bytes()
        for position in rng.sample(range(len(content)), 25):
            changed = bytearray(content)
            changed[position] ^= 1 << rng.randrange(8)
            file.write_bytes(changed)
            indices = load_indices(tmp_path)
            assert indices == GOOD or (indices == ALL and file.suffix == ".json"), (file, position)
        file.write_bytes(content)


def test_foreign_segments_are_ignored(tmp_path):
    store = fill(tmp_path)
    other_entry = fill(tmp_path, 8, 500, CacheKey("0" * 64, KEY.path, KEY.what, WIDTH, MADE_BY))
    (foreign,) = cache_segments.list_segments(other_entry.folder)
    shutil.copytree(foreign, store.folder / foreign.name)
    (store.folder / "part-3-empty").mkdir()
    (store.folder / "part-file").write_text("not a segment")
    assert load_indices(tmp_path) == GOOD


# ---- disks that cannot be written ----------------------------------------------------


def test_full_disk_disables_writing(tmp_path, monkeypatch):
    store = fill(tmp_path)

    def raise_disk_full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("zarr.Group.create_array", raise_disk_full)
        store.append(keys_of(np.arange(50, 60)), rows_of(np.arange(50, 60)))
    assert store.note == (
        f"The cache folder {tmp_path} cannot be written (No space left on device); "
        "features are kept for this session only."
    )
    assert not store.is_writable and not list(store.folder.glob(".*"))
    store.append(keys_of(np.arange(60, 70)), rows_of(np.arange(60, 70)))  # ignored
    assert load_indices(tmp_path) == GOOD


def test_interrupted_write_leaves_nothing(tmp_path):
    """The system limits files to 20 kB, as a full disk would."""
    resource = pytest.importorskip("resource", reason="no file size limits on this system")
    store = fill(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    x = np.arange(1000, 2000)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        store.append(keys_of(x), rows_of(x))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not store.is_writable and "cannot be written (File too large)" in store.note
    assert not list(store.folder.glob(".*")) and load_indices(tmp_path) == GOOD


def test_invalid_folder_disables_writing(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    store = open_cache_entry(KEY, tmp_path / "cache")
    assert len(store.load()[0]) == 0
    store.append(keys_of(np.arange(3)), rows_of(np.arange(3)))
    assert "cannot be written (" in store.note and not store.is_writable
    assert list_entries(tmp_path / "cache") == [] and clear_cache(tmp_path / "cache") == 0


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_read(tmp_path):
    store = fill(tmp_path)
    store.folder.chmod(0o500)
    try:
        assert load_indices(tmp_path) == GOOD
        store.append(keys_of(np.arange(50, 60)), rows_of(np.arange(50, 60)))
        assert "cannot be written (Permission denied)" in store.note
    finally:
        store.folder.chmod(0o700)


def test_removed_entry_is_created_again(tmp_path):
    store = fill(tmp_path)
    shutil.rmtree(tmp_path)
    x = np.arange(70, 80)
    store.append(keys_of(x), rows_of(x))
    assert store.note == "" and load_indices(tmp_path) == set(range(70, 80))
    assert list_entries(tmp_path)[0].key == KEY


def test_without_zarr_nothing_is_stored(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setitem(sys.modules, "zarr", None)
    store = open_cache_entry(KEY, tmp_path)
    assert store.note == "The package zarr is missing; features are kept for this session only."
    store.append(keys_of(np.arange(3)), rows_of(np.arange(3)))
    assert len(store.load()[0]) == 0 and store.load()[1].shape == (0, WIDTH)
