"""HDF5 files are read by another process first: once for each state of a file."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

from napari_dkan import hdf5_validation as probe
from napari_dkan.hdf5_validation import validate_hdf5


@pytest.fixture
def asked(monkeypatch):
    """The paths that the child was asked about."""
    paths, ask = [], probe._query_child
    monkeypatch.setattr(
        probe, "_query_child", lambda path, patience: paths.append(path) or ask(path, 60)
    )
    return paths


def test_an_unchanged_file_is_read_through_once(tmp_path, asked):
    file = tmp_path / "a.h5"
    with h5py.File(file, "w") as made:
        made["values"] = np.arange(5)
    assert validate_hdf5(file) == validate_hdf5(str(file)) == ""
    assert asked == [str(file)]

    whole = file.read_bytes()
    file.write_bytes(whole[:-40])  # cut short
    assert "damaged" in validate_hdf5(file)

    file.write_bytes(b"\0" * len(whole))  # the size of the good one
    os.utime(file, ns=(1, 1))
    assert "damaged" in validate_hdf5(file)
    assert len(asked) == 3


def test_answers_do_not_pile_up(tmp_path, asked):
    for number in range(probe._MAX_CACHED_RESULTS + 5):
        (tmp_path / f"{number}.h5").write_bytes(b"no HDF5")
        assert validate_hdf5(tmp_path / f"{number}.h5") == "it is damaged or no HDF5 file"
    assert len(probe._cached_results) == probe._MAX_CACHED_RESULTS


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_a_child_that_never_answers_ends_itself(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "endless.h5")  # opening it waits for a writer that never comes
    monkeypatch.setattr(probe, "_ANSWER_TIMEOUT_S", 2.0)
    assert validate_hdf5(tmp_path / "endless.h5") == probe._CRASH_REASON
    (tmp_path / "a.h5").write_bytes(b"no HDF5")
    assert "damaged" in validate_hdf5(tmp_path / "a.h5")


def test_an_idle_child_that_went_is_replaced(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"no HDF5")
    (tmp_path / "b.h5").write_bytes(b"none either")
    assert "damaged" in validate_hdf5(tmp_path / "a.h5")
    probe._child.kill()
    probe._child.wait()
    assert "damaged" in validate_hdf5(tmp_path / "b.h5")
