"""An h5ad with several sections, dropped on the window: one is shown, others are chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata
import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from .drop_files import drop

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def two_libraries(measured_file: Path) -> Path:
    data = anndata.read_h5ad(measured_file)
    for name in ("image", "mpp"):
        data.uns.pop(name)
    data.obs["library_id"] = np.where(data.obs["array_col"] < 3, "A", "B")
    file = measured_file.with_name("both.h5ad")
    data.write_h5ad(file)
    return file


def test_one_section_is_named_and_another_one_is_chosen(
    quality_widget, two_libraries, until, qtbot
) -> None:
    widget, session = quality_widget, quality_widget.session
    box = widget.measured_box
    assert not box.choice_label.isVisibleTo(widget)
    drop(session.viewer, two_libraries)
    until(lambda: widget.metrics.summary is not None)
    names = [box.section_combo.itemText(i) for i in range(box.section_combo.count())]
    assert names == ["both A", "both B (load)"]
    assert box.choice_label.text().startswith("both A is one of 2 sections in both.h5ad; choose")
    assert "21 spots read" in box.account_label.text()
    box.section_combo.setFocus()
    QTest.keyClick(box.section_combo, Qt.Key.Key_Down)
    until(lambda: widget.quality.model.section.name == "both B" and not widget.quality.busy)
    assert box.choice_label.text().startswith("both B is one of 2 sections")
    assert "28 spots read" in box.account_label.text()
    assert [s.name for s in widget.quality.model.sections] == ["both A", "both B"]


def test_section_without_a_slide_is_in_view(
    make_napari_viewer, two_libraries, until, monkeypatch, tiny_checkpoint_file
) -> None:
    from napari_dkan.viewer.panels.quality.quality_controller import get_quality_controller
    from napari_dkan.viewer.session.viewer_session import get_session

    viewer = make_napari_viewer()
    session = get_session(viewer)
    drop(viewer, two_libraries)
    quality = get_quality_controller(session)
    until(lambda: bool(quality.model.sections) and not quality.busy)
    (layer,) = viewer.layers
    low, high = layer.extent.world
    center, extent = viewer.scene.camera.center[-2:], high - low
    np.testing.assert_allclose(center, (low + high) / 2, rtol=0.05)
    assert viewer.scene.camera.zoom * extent.max() <= max(viewer.canvas.size)
    quality.close()
