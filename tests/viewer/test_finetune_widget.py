"""The fine-tuning panel: load, run, stop, save, reload, and failures."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from napari_dkan.viewer.panels.finetune.finetune_controller import FinetuneState
from napari_dkan.viewer.panels.finetune.finetune_result_box import make_finetune_table
from napari_dkan.viewer.panels.finetune.finetune_widget import FinetuneWidget
from napari_dkan.viewer.panels.quality.data.loaded_section import LoadedSection
from napari_dkan.viewer.session.user_history import list_recent_checkpoints

if TYPE_CHECKING:
    from napari_dkan.slide.slide import Slide
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


FAKE = Path(__file__).resolve().parent.parent / "fake_finetune.py"
GENES = ("ERBB2", "GATA3", "CD74", "COL1A1", "KRT8", "MALAT1", "ACTB")
ARRAY_SIZE_PX = 1300


def make_section(slide: Slide, name="C3", spots=7) -> LoadedSection:
    """Make a square array of random counts on the small slide."""
    import anndata
    import pandas as pd

    at = np.stack(np.meshgrid(range(spots), range(spots)), axis=-1).reshape(-1, 2)
    counts = np.random.default_rng(1).poisson(3 + at.sum(axis=1)[:, None], (len(at), len(GENES)))
    names = [f"{x}x{y}" for x, y in at]
    obs = pd.DataFrame({"array_row": at[:, 1], "array_col": at[:, 0]}, index=names)
    pitch = ARRAY_SIZE_PX / (spots - 1)
    xy = 150.0 + pitch * at
    size = {"spot_pitch_um": 0.7 * pitch, "spot_diameter_um": 100.0, "mpp": 0.7}
    about = {"section": name, "patient": "", "image": str(slide.slide.path), **size}
    data = anndata.AnnData(
        counts.astype(np.float32),
        obs=obs,
        var=pd.DataFrame(index=list(GENES)),
        obsm={"spatial": xy},
        uns=about,
    )
    return LoadedSection(name, data, slide.slide.path, xy, None, 0.7, slide, "by the files")


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    """Fine-tuned checkpoints of tests are not written to the user's home."""
    folder = tmp_path / "kept"
    monkeypatch.setattr(
        "napari_dkan.viewer.panels.finetune.checkpoint_store.checkpoint_folder", lambda: folder
    )
    return folder


@pytest.fixture
def widget(panel: PredictWidget, monkeypatch):
    """The widget next to the Predict panel, with a section and a fake process."""
    monkeypatch.setenv("FAKE_SPOTS", json.dumps({"C3": 49, "C4": 49}))
    made = FinetuneWidget(panel.session.viewer)
    panel.session.viewer.window.add_dock_widget(made, name="DKAN: fine-tune", area="right")
    add_sections(made, make_section(panel.session.slide))
    set_scenario(made, "well")
    yield made
    made.shut_down()


def add_sections(widget: FinetuneWidget, *sections) -> None:
    """Add sections as if they had been read from files."""
    widget.quality.model.sections = [*widget.quality.model.sections, *sections]
    widget.quality.model.sections_changed.emit()


def set_scenario(widget: FinetuneWidget, scenario: str) -> None:
    widget.controller.command = (sys.executable, str(FAKE), scenario)


def start_run(widget: FinetuneWidget, until) -> psutil.Process:
    """Press Start, wait for the first epoch and return the process."""
    widget.run_box.start_button.click()
    until(lambda: bool(widget.controller.epochs))
    return psutil.Process(widget.controller.process_id)


def wait_until_done(widget: FinetuneWidget, until) -> None:
    until(lambda: not widget.controller.busy and not widget.controller.is_file_job_running)


def test_better_checkpoint_is_selected(
    widget: FinetuneWidget, panel: PredictWidget, middle, until, own_folder
):
    session, before = panel.session, panel.session.checkpoint
    panel.click_predictor.predict_at(*middle)
    until(lambda: session.spot is not None)
    widget.run_box.start_button.click()
    assert not widget.run_box.start_button.isEnabled() and not widget.settings_box.isEnabled()
    wait_until_done(widget, until)
    assert widget.result_box.verdict_label.text().startswith("Better on 6 of 6 genes")
    assert session.checkpoint is widget.controller.tuned_checkpoint is not before
    assert session.checkpoint.path == own_folder / "tiny-C3.safetensors"
    assert (
        widget.result_box.tuned_radio.isChecked() and not widget.result_box.parent_radio.isChecked()
    )
    assert panel.model_box.checkpoint_combo.currentText() == "tiny-C3.safetensors"
    assert len(session.overlays) == 1
    table = widget.result_box.table.table_model
    assert table.rowCount() == 6 and table.columnCount() == 5
    assert [e.number for e in widget.run_box.learning_curve.epochs] == [1, 2, 3, 4, 5]
    widget.result_box.parent_radio.click()
    assert session.checkpoint is before and widget.result_box.parent_radio.isChecked()
    widget.result_box.tuned_radio.click()
    assert session.checkpoint is widget.controller.tuned_checkpoint


def test_worse_checkpoint_is_not_selected(
    widget: FinetuneWidget, panel: PredictWidget, until, own_folder
):
    before = panel.session.checkpoint
    set_scenario(widget, "worse")
    widget.run_box.start_button.click()
    wait_until_done(widget, until)
    assert "did not help" in widget.result_box.verdict_label.text()
    assert panel.session.checkpoint is before and widget.result_box.parent_radio.isChecked()
    assert not list_recent_checkpoints()
    label = widget.sections_box.trained_on_label
    assert label.isHidden()
    fingerprint = panel.session.slide.slide.fingerprint()
    known = {"training_data": {"slide_fingerprints": {"C3": fingerprint}}}
    panel.session.set_checkpoint(replace(before, card=known))
    assert not label.isHidden() and label.text().startswith("C3 was trained on")
    widget.shut_down()
    assert not list(own_folder.iterdir())  # the result is deleted


def test_result_is_saved_and_loaded_again(
    widget: FinetuneWidget, panel: PredictWidget, until, tmp_path
):
    widget.run_box.start_button.click()
    wait_until_done(widget, until)
    kept = widget.controller.checkpoint_path
    widget.result_box.save_as(tmp_path / "mine")
    wait_until_done(widget, until)
    path = tmp_path / "mine.safetensors"
    assert panel.session.checkpoint.path == path and not kept.exists()
    assert path in list_recent_checkpoints()
    choice = panel.model_box.checkpoint_combo
    assert choice.currentText() == "mine.safetensors"
    assert str(path) in widget.message_label.text()
    panel.model_box.load(path)
    until(lambda: not panel.model_box._runner.busy)
    assert (
        panel.session.checkpoint.panel.symbols[0] == "ERBB2"
        and not panel.session.message.is_warning
    )


def test_full_disk_while_saving_loses_nothing(
    widget: FinetuneWidget, panel: PredictWidget, until, tmp_path, monkeypatch
):
    widget.run_box.start_button.click()
    wait_until_done(widget, until)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        widget.result_box.save_as(tmp_path / "mine.safetensors")
        wait_until_done(widget, until)
    text = widget.message_label.text()
    assert "could not be written (No space left on device)" in text and "still kept" in text
    assert not list(tmp_path.glob("*mine*")) and widget.controller.checkpoint_path.is_file()
    widget.result_box.save_as(panel.session.checkpoint.path)  # where it is
    widget.result_box.save_as(widget.controller.parent_checkpoint.path)
    assert "choose another name" in widget.message_label.text()
    widget.result_box.save_as(tmp_path / "mine.safetensors")
    wait_until_done(widget, until)
    assert panel.session.checkpoint.path == tmp_path / "mine.safetensors"


def test_unsaved_result_is_saved_elsewhere(
    widget: FinetuneWidget, panel: PredictWidget, until, tmp_path, own_folder
):
    set_scenario(widget, "long")
    start_run(widget, until)
    shutil.rmtree(own_folder)
    widget.run_box.stop_button.click()
    until(lambda: widget.controller.state is FinetuneState.UNSAVED)
    assert "could not be written" in widget.message_label.text()
    assert not widget.result_box.save_button.isHidden()
    widget.result_box.save_as(tmp_path / "rescued.safetensors")
    wait_until_done(widget, until)
    assert panel.session.checkpoint.path == tmp_path / "rescued.safetensors"


def test_pause_resume_and_stop(widget: FinetuneWidget, until):
    set_scenario(widget, "long")
    child = start_run(widget, until)
    widget.run_box.pause_button.click()
    until(lambda: widget.controller.state is FinetuneState.PAUSED)
    count = len(widget.controller.epochs)
    assert (
        widget.run_box.pause_button.text() == "Resume"
        and "paused" in widget.run_box.status_label.text()
    )
    widget.run_box.pause_button.click()
    until(lambda: len(widget.controller.epochs) > count)
    assert widget.run_box.pause_button.text() == "Pause"
    widget.run_box.stop_button.click()
    assert (
        widget.controller.state is FinetuneState.STOPPING
        and not widget.run_box.stop_button.isEnabled()
    )
    wait_until_done(widget, until)
    assert widget.controller.result.better and not child.is_running()


def test_stop_before_the_process_starts(widget: FinetuneWidget, until):
    widget.run_box.start_button.click()
    widget.run_box.stop_button.click()
    wait_until_done(widget, until)
    assert widget.controller.result is None or widget.controller.result.better
    widget.run_box.start_button.click()  # and the next one runs
    wait_until_done(widget, until)
    assert widget.controller.result.better


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("killed", "signal 9: probably out of memory"),
        ("traceback", "the numbers are odd"),
        ("refused", "only ten spots"),
        ("failed", "grew without bound"),
    ],
)
def test_failed_process_shows_a_message_and_changes_nothing(
    widget: FinetuneWidget, panel: PredictWidget, until, scenario, message
):
    before = panel.session.checkpoint
    set_scenario(widget, scenario)
    widget.run_box.start_button.click()
    wait_until_done(widget, until)
    text = widget.message_label.text()
    assert message in text and "Traceback" not in text and "Error(" not in text
    assert panel.session.checkpoint is before and widget.run_box.start_button.isEnabled()
    assert widget.result_box.isHidden()
    set_scenario(widget, "garbage")
    widget.run_box.start_button.click()
    wait_until_done(widget, until)
    assert widget.controller.result.better and widget.message_label.isHidden()


def test_best_epoch_of_a_killed_process_can_be_chosen(
    widget: FinetuneWidget, panel: PredictWidget, until
):
    before = panel.session.checkpoint
    set_scenario(widget, "saved and killed")
    widget.run_box.start_button.click()
    wait_until_done(widget, until)
    assert "best so far was saved" in widget.message_label.text()
    assert panel.session.checkpoint is before and widget.result_box.parent_radio.isChecked()
    widget.result_box.tuned_radio.click()
    assert panel.session.checkpoint is widget.controller.tuned_checkpoint


def test_closing_the_widget_ends_the_process(
    widget: FinetuneWidget, panel: PredictWidget, until, qtbot, own_folder
):
    set_scenario(widget, "deaf")
    child = start_run(widget, until)
    panel.session.viewer.window.remove_dock_widget(widget)
    widget.close()
    assert not widget.controller.busy and not child.is_running()
    assert widget.controller.wait(0) and not list(own_folder.iterdir())
    qtbot.wait(50)
    again = FinetuneWidget(panel.session.viewer)  # the sections are still there
    assert again.sections_box.ticked_sections() == tuple(widget.quality.model.sections)
    again.shut_down()


def test_closing_the_window_ends_the_process(widget: FinetuneWidget, panel: PredictWidget, until):
    set_scenario(widget, "deaf")
    child = start_run(widget, until)
    panel.session.viewer.close()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_removed_section_stops_the_run(widget: FinetuneWidget, until):
    set_scenario(widget, "long")
    start_run(widget, until)
    widget.quality.model.sections = []
    widget.quality.model.sections_changed.emit()
    assert (
        widget.controller.state is FinetuneState.STOPPING
        and "C3 was removed" in widget.message_label.text()
    )
    wait_until_done(widget, until)
    assert widget.controller.result is not None and not widget.run_box.stop_button.isEnabled()


def test_closed_slide_stops_the_run(widget: FinetuneWidget, panel: PredictWidget, until):
    set_scenario(widget, "long")
    start_run(widget, until)
    panel.session.viewer.layers.remove(panel.session.slide.layer)
    assert "C3 was removed" in widget.message_label.text()
    wait_until_done(widget, until)


def test_live_map_follows_gene_and_epochs(widget: FinetuneWidget, panel: PredictWidget, until):
    set_scenario(widget, "long")
    widget.live_map.setChecked(True)
    start_run(widget, until)
    viewer, gene = panel.session.viewer, panel.session.gene
    until(lambda: any(f"{gene} fine-tuning, epoch" in la.name for la in viewer.layers))
    (layer,) = [la for la in viewer.layers if "fine-tuning, epoch" in la.name]
    assert "fine-tuning, epoch" in layer.name and len(layer.data) == 48  # one spot has no value
    np.testing.assert_allclose(layer.scale, 0.7)
    panel.session.step_gene(1)
    until(lambda: layer.name.startswith(f"{panel.session.gene} fine-tuning"))
    viewer.layers.remove(layer)  # deleted by hand: it does not come back
    count = len(widget.controller.epochs)
    until(lambda: len(widget.controller.epochs) > count + 2)
    assert not [la for la in viewer.layers if "fine-tuning" in la.name]
    widget.run_box.stop_button.click()
    wait_until_done(widget, until)


def test_unticked_sections_are_only_evaluated(
    widget: FinetuneWidget, panel: PredictWidget, until, tmp_path
):
    add_sections(widget, make_section(panel.session.slide, "C4"))
    assert [s.name for s in widget.sections_box.ticked_sections()] == ["C3"]
    assert [s.name for s in widget.sections_box.unticked_sections()] == ["C4"]
    (section,) = widget.sections_box.ticked_sections()
    widget.sections_box.set_ticked(section, False)
    widget.run_box.start_button.click()
    assert "Tick a section" in widget.message_label.text() and not widget.controller.busy
    widget.sections_box.set_ticked(section)
    widget.run_box.start_button.click()
    wait_until_done(widget, until)
    assert widget.result_box.other_sections_label.text().endswith("not trained on: C4 0.50 -> 0.44")
    section.slide = None
    widget.run_box.start_button.click()
    assert "Open the slide of C3" in widget.message_label.text()


def test_held_out_preview(widget: FinetuneWidget, panel: PredictWidget, until):
    layers = panel.session.viewer.layers
    count = len(layers)
    widget.held_out_preview.setChecked(True)
    until(lambda: len(layers) > count and not widget.held_out_preview.busy)
    outlined = len(layers[-1].data)
    widget.settings_box.hold_out_spin.setValue(50)
    until(lambda: not widget.held_out_preview.busy and len(layers[-1].data) != outlined)
    assert len(layers) == count + 1
    widget.held_out_preview.setChecked(False)
    assert len(layers) == count


@pytest.mark.timeout(480)
def test_real_run_on_a_small_slide(widget: FinetuneWidget, panel: PredictWidget, qtbot):
    """Read, train, evaluate, write and load without a fake process."""
    from napari_dkan.training.finetuning.finetune_process import FINETUNE_COMMAND

    widget.controller.command = FINETUNE_COMMAND
    widget.quality.model.sections = []
    add_sections(widget, make_section(panel.session.slide, spots=12))
    widget.sections_box.set_ticked(widget.quality.model.sections[0])
    widget.settings_box.unit_combo.setCurrentText("epochs")
    widget.settings_box.budget_spin.setValue(2)
    widget.live_map.setChecked(True)
    widget.run_box.start_button.click()
    # another Python has to start, and it gives way to whatever else the machine does
    wait_until_done(widget, partial(qtbot.waitUntil, timeout=400_000))
    assert widget.controller.result is not None, widget.message_label.text()
    # the heads, then the decoder; the closed-form fits were compared before
    assert [e.number for e in widget.controller.epochs] == [1, 2, 3, 4]
    assert "chosen inside the training spots" in widget.controller.start_event.plain
    assert "held-out spots" in widget.result_box.verdict_label.text()
    used = panel.session.checkpoint is widget.controller.tuned_checkpoint
    assert used == widget.controller.result.better
    assert widget.result_box.table.table_model.rowCount() == 6
    assert widget.controller.tuned_checkpoint.sha256 != widget.controller.parent_checkpoint.sha256
    names = [la.name for la in panel.session.viewer.layers]
    assert f"{panel.session.gene} fine-tuning, epoch 4" in names


def test_the_table_is_decided_beside_depth_and_marks_genes_that_cannot_be_judged() -> None:
    report = {
        "genes": [{"symbol": s, "before": 0.1, "after": 0.5, "ridge": 0.4} for s in ("A", "B")],
        "per_gene_depth_partial": {
            "A": {"before": 0.2, "after": 0.1, "ridge": 0.3, "ceiling": 0.6, "judged": True},
            "B": {"before": 0.2, "after": None, "ridge": 0.3, "ceiling": None, "judged": False},
        },
    }
    table = make_finetune_table(report)
    columns = {c.title: c for c in table.columns}
    assert [columns[t].format_value(0) for t in ("before", "after", "gain", "ceiling")] == [
        *("0.20", "0.10", "-0.100", "0.60")
    ]
    assert columns["PCC after"].format_value(0) == "0.50"
    mask = columns["after"].warning_mask
    assert mask is not None and mask.tolist() == [False, True]
    assert "Cannot be judged here" in table.tooltips[1] and not table.tooltips[0]
    del report["per_gene_depth_partial"]  # as in reports of 0.1.0
    old = make_finetune_table(report)
    assert [c.title for c in old.columns] == ["before", "after", "gain", "ridge"]
    assert old.columns[1].format_value(0) == "0.50"
