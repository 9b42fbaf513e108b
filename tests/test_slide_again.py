"""The slide of a saved result is found by what it is, wherever it lies now."""

from __future__ import annotations

import shutil
import socket
from dataclasses import replace

import numpy as np
import pytest

from napari_dkan.export.saved_result import (
    SavedResult,
    SlideRecord,
    find_result_slide,
    open_matching_slide,
)
from napari_dkan.expression.label_scale import LabelScale
from napari_dkan.expression.panel import Panel
from napari_dkan.inference.prediction import Prediction
from napari_dkan.inference.target import Target, TargetKind
from napari_dkan.slide import open_slide
from napari_dkan.spatial.spots import Spots


@pytest.fixture
def saved(tiny_slide_file):
    with open_slide(tiny_slide_file) as slide:
        record = SlideRecord.from_slide(slide, 0.7, "a test")
    target = Target(TargetKind.POINTS, Spots(np.array([[10.0, 20.0]])))
    panel = Panel.from_symbols(["ERBB2"])
    return SavedResult(Prediction.create_empty(target, panel, LabelScale(), {}), record, {})


def at(saved, path):
    return replace(saved, slide_record=replace(saved.slide_record, path=path))


def test_it_is_found_where_it_was_and_beside_the_result(
    saved: SavedResult, tmp_path, tiny_slide_file
):
    nowhere = tmp_path / "nowhere" / "result.h5ad"
    with find_result_slide(saved, nowhere) as slide:
        assert slide.path == tiny_slide_file.absolute()
    result = tmp_path / "result.h5ad"
    shutil.copy(tiny_slide_file, tmp_path / "drawn.ome.tif")
    for was in ("/gone/drawn.ome.tif", "C:\\slides\\drawn.ome.tif", "drawn.ome.tif/"):
        with find_result_slide(at(saved, was), result) as slide:
            assert slide.path == tmp_path / "drawn.ome.tif", was
        assert find_result_slide(at(saved, was), nowhere) is None


def test_what_only_has_its_name_is_not_it(saved: SavedResult, tmp_path):
    (tmp_path / "drawn.ome.tif").write_bytes(b"II*\0 nothing")
    assert find_result_slide(at(saved, "/gone/drawn.ome.tif"), tmp_path / "result.h5ad") is None
    other = replace(saved, slide_record=replace(saved.slide_record, fingerprint="0" * 64))
    assert open_matching_slide(other, saved.slide_record.path) is None
    for odd in ("", "x" * 5000, "nul\0l", "/"):
        assert find_result_slide(at(saved, odd), tmp_path / "result.h5ad") is None


def test_no_address_is_opened_unasked(saved: SavedResult, tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    for address in ("https://example.org/drawn.ome.zarr", "s3://bucket/drawn.ome.zarr"):
        assert find_result_slide(at(saved, address), tmp_path / "result.h5ad") is None
