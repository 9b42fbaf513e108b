"""Sections of another species: refused in the panel, and accepted there with one press."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import QPoint, Qt

from napari_dkan.viewer.panels.finetune.finetune_widget import FinetuneWidget

SHARED = ["ERBB2", "CD74"]  # of the six genes of the small checkpoint
MOUSE = ["Gata3", "Col1a1", "Krt8", "Malat1", "Actb", "Gapdh", "Epcam"]


@pytest.fixture
def mouse_file(measured_file, monkeypatch) -> Path:
    """A section whose names are those of mouse genes, of which two agree with the checkpoint."""
    monkeypatch.setattr("napari_dkan.training.data.measured_section.MIN_PANEL_SHARE", 0.5)
    data = anndata.read_h5ad(measured_file)
    counts = np.random.default_rng(2).poisson(4, (data.n_obs, len(SHARED + MOUSE)))
    mouse = anndata.AnnData(
        counts.astype(np.float32),
        obs=data.obs,
        var=pd.DataFrame(index=SHARED + MOUSE),
        obsm=dict(data.obsm),
        uns=dict(data.uns),
    )
    file = measured_file.with_name("M1.h5ad")
    mouse.write_h5ad(file)
    return file


def press(qtbot, checkbox) -> None:
    qtbot.mouseClick(
        checkbox, Qt.MouseButton.LeftButton, pos=QPoint(8, checkbox.rect().center().y())
    )


def test_refusal_says_what_the_names_look_like_and_one_press_accepts(
    quality_widget, panel, mouse_file, until, qtbot
) -> None:
    box = quality_widget.measured_box.few_genes_box
    assert not box.isVisibleTo(quality_widget)
    quality_widget.quality.load([mouse_file])
    until(lambda: box.isVisibleTo(quality_widget))
    refusal = box.refusal_label.text()
    assert refusal.startswith("M1 measures 2 of the checkpoint's 6 genes")
    assert "look like mouse or rat genes (capitalised), such as Gata3, Col1a1" in refusal
    everything = refusal + quality_widget.message_label.text() + panel.message_label.text()
    assert "--" not in everything and "few_genes" not in everything
    assert "DKAN: quality control" in panel.message_label.text()
    assert quality_widget.message_label.text() == ""  # the box says it
    assert quality_widget.quality.model.comparison is None
    assert box.accept_checkbox.text() == "Use the few genes of M1"

    press(qtbot, box.accept_checkbox)
    until(lambda: quality_widget.metrics.summary is not None)
    assert quality_widget.metrics.summary.n_genes == 2
    assert not box.refusal_label.isVisibleTo(quality_widget)
    assert box.accept_checkbox.isChecked() and box.accept_checkbox.isVisibleTo(quality_widget)
    assert quality_widget.message_label.text() == ""
    account = quality_widget.measured_box.account_label.text()
    assert "2 of the checkpoint's 6 genes are measured" in account

    press(qtbot, box.accept_checkbox)  # taken back
    until(lambda: box.refusal_label.text() == refusal)
    assert quality_widget.quality.model.comparison is None


def test_checkpoint_that_fits_needs_no_press(
    quality_widget, mouse_file, measured_file, until
) -> None:
    box = quality_widget.measured_box.few_genes_box
    quality_widget.quality.load([mouse_file])
    until(lambda: box.isVisibleTo(quality_widget))
    quality_widget.quality.load([measured_file])
    until(lambda: quality_widget.metrics.summary is not None)
    assert not box.isVisibleTo(quality_widget)
    account = quality_widget.measured_box.account_label.text()
    assert "5 of the checkpoint's 6 genes are measured" in account


def test_fine_tuning_refuses_and_accepts(
    quality_widget, panel, mouse_file, until, qtbot, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(
        "napari_dkan.viewer.panels.finetune.checkpoint_store.checkpoint_folder",
        lambda: tmp_path / "kept",
    )
    monkeypatch.setenv("FAKE_SPOTS", json.dumps({"M1": 49}))
    widget = FinetuneWidget(panel.session.viewer)
    panel.session.viewer.window.add_dock_widget(widget, name="DKAN: fine-tune", area="right")
    starts: list[list[str]] = []
    fake = Path(__file__).resolve().parent.parent / "fake_finetune.py"
    widget.controller.command = (sys.executable, str(fake), "well")
    monkeypatch.setattr(
        "napari_dkan.viewer.panels.finetune.finetune_controller.build_finetune_arguments",
        recording(starts),
    )
    try:
        quality_widget.quality.load([mouse_file])
        box = widget.sections_box.few_genes_box
        until(lambda: box.isVisibleTo(widget))
        qtbot.mouseClick(widget.run_box.start_button, Qt.MouseButton.LeftButton)
        assert not widget.controller.busy and starts == []
        message = widget.message_label.text()
        assert "tick above" in message and "--" not in message
        assert "look like mouse or rat genes" in box.refusal_label.text()
        assert not widget.notice_label.isVisibleTo(widget)
        press(qtbot, box.accept_checkbox)
        assert quality_widget.measured_box.few_genes_box.accept_checkbox.isChecked()
        qtbot.mouseClick(widget.run_box.start_button, Qt.MouseButton.LeftButton)
        until(lambda: not widget.controller.busy and not widget.controller.is_file_job_running)
        assert widget.controller.result is not None
        assert "--few-genes" in starts[0]
    finally:
        widget.shut_down()


def recording(starts: list[list[str]]):
    """Keep the arguments of the child, which are extended after they are made."""
    from napari_dkan.training.finetuning.finetune_process import build_finetune_arguments

    def build(*args):
        arguments = build_finetune_arguments(*args)
        starts.append(arguments)
        return arguments

    return build
