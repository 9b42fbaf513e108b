"""HDF5 files are validated by a child process: once for each state of a file."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

from napari_dkan import hdf5_validation
from napari_dkan.hdf5_validation import Hdf5Validator


@pytest.fixture
def validator():
    validator = Hdf5Validator()
    yield validator
    if validator.child is not None:
        validator.child.kill()
        validator.child.communicate()


@pytest.fixture
def queries(monkeypatch):
    """The paths that were sent to the child."""
    paths, query_child = [], Hdf5Validator.query_child
    monkeypatch.setattr(
        Hdf5Validator,
        "query_child",
        lambda self, path, timeout: paths.append(path) or query_child(self, path, 60),
    )
    return paths


def test_an_unchanged_file_is_validated_once(tmp_path, validator, queries):
    file = tmp_path / "a.h5"
    with h5py.File(file, "w") as made:
        made["values"] = np.arange(5)
    assert validator.validate(file) == validator.validate(str(file)) == ""
    assert queries == [str(file)]

    content = file.read_bytes()
    file.write_bytes(content[:-40])  # cut short
    assert "damaged" in validator.validate(file)

    file.write_bytes(b"\0" * len(content))  # the size of the intact file
    os.utime(file, ns=(1, 1))
    assert "damaged" in validator.validate(file)
    assert len(queries) == 3


def test_cached_answers_are_limited(tmp_path, validator, queries):
    for number in range(hdf5_validation.MAX_CACHED_RESULTS + 5):
        (tmp_path / f"{number}.h5").write_bytes(b"no HDF5")
        assert validator.validate(tmp_path / f"{number}.h5") == "it is damaged or no HDF5 file"
    assert len(validator.cached_results) == hdf5_validation.MAX_CACHED_RESULTS


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_a_child_that_never_answers_ends_itself(tmp_path, validator):
    os.mkfifo(tmp_path / "endless.h5")  # opening it waits for a writer that never comes
    validator.answer_timeout_s = 2.0
    assert validator.validate(tmp_path / "endless.h5") == hdf5_validation.CRASH_REASON
    (tmp_path / "a.h5").write_bytes(b"no HDF5")
    assert "damaged" in validator.validate(tmp_path / "a.h5")


def test_an_idle_child_that_ended_is_replaced(tmp_path, validator):
    (tmp_path / "a.h5").write_bytes(b"no HDF5")
    (tmp_path / "b.h5").write_bytes(b"none either")
    assert "damaged" in validator.validate(tmp_path / "a.h5")
    validator.child.kill()
    validator.child.wait()
    assert "damaged" in validator.validate(tmp_path / "b.h5")
