"""Fine-tuning from the window: load, run, stop, save, reload, and everything that goes wrong."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from napari_dkan.viewer.finetune.tuning import State
from napari_dkan.viewer.finetune.widget import FineTuneWidget
from napari_dkan.viewer.memory import recent_checkpoints
from napari_dkan.viewer.quality.section import LoadedSection

if TYPE_CHECKING:
    from napari_dkan.slide.slide import Slide
    from napari_dkan.viewer.predict_widget import PredictWidget


FAKE = Path(__file__).resolve().parent.parent / "fake_tuning.py"
GENES = ("ERBB2", "GATA3", "CD74", "COL1A1", "KRT8", "MALAT1", "ACTB")
ACROSS = 1300  # px that the made-up array covers


def measured(slide: Slide, name="C3", spots=7) -> LoadedSection:
    """A square array of made-up counts on the small slide."""
    import anndata
    import pandas as pd

    at = np.stack(np.meshgrid(range(spots), range(spots)), axis=-1).reshape(-1, 2)
    counts = np.random.default_rng(1).poisson(3 + at.sum(axis=1)[:, None], (len(at), len(GENES)))
    names = [f"{x}x{y}" for x, y in at]
    obs = pd.DataFrame({"array_row": at[:, 1], "array_col": at[:, 0]}, index=names)
    pitch = ACROSS / (spots - 1)
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
    """Fine-tuned checkpoints of tests are not kept in the person's home."""
    folder = tmp_path / "kept"
    monkeypatch.setattr("napari_dkan.viewer.finetune.keeping.kept_folder", lambda: folder)
    return folder


@pytest.fixture
def widget(panel: PredictWidget, monkeypatch):
    """The widget beside the panel, a measured section loaded, its child a fake one."""
    monkeypatch.setenv("FAKE_SPOTS", json.dumps({"C3": 49, "C4": 49}))
    made = FineTuneWidget(panel.session.viewer)
    panel.session.viewer.window.add_dock_widget(made, name="DKAN: fine-tune", area="right")
    load(made, measured(panel.session.slide))
    behave(made, "well")
    yield made
    made.shut_down()


def load(widget: FineTuneWidget, *sections) -> None:
    """As if they had been read from files."""
    widget.quality.sections = [*widget.quality.sections, *sections]
    widget.quality.sections_changed.emit()


def behave(widget: FineTuneWidget, scenario: str) -> None:
    widget.tuning.command = (sys.executable, str(FAKE), scenario)


def begin(widget: FineTuneWidget, until) -> psutil.Process:
    """Press Start and wait for the first epoch; the child."""
    widget.run.start.click()
    until(lambda: bool(widget.tuning.curve))
    return psutil.Process(widget.tuning._process.pid)


def finish(widget: FineTuneWidget, until) -> None:
    until(lambda: not widget.tuning.busy and not widget.tuning._files.busy)


def test_a_better_checkpoint_is_selected_and_the_map_of_before_stays(
    widget: FineTuneWidget, panel: PredictWidget, middle, until, own_folder
):
    session, before = panel.session, panel.session.checkpoint
    panel.clicks.click(*middle)
    until(lambda: session.spot is not None)
    widget.run.start.click()
    assert not widget.run.start.isEnabled() and not widget.settings.isEnabled()
    finish(widget, until)
    assert widget.result.verdict.text().startswith("Better on 6 of 6 genes")
    assert session.checkpoint is widget.tuning.tuned is not before
    assert session.checkpoint.path == own_folder / "tiny-C3.safetensors"
    assert widget.result.tuned.isChecked() and not widget.result.before.isChecked()
    assert panel.model_box.choice.currentText() == "tiny-C3.safetensors"
    assert len(session.overlays) == 1
    table = widget.result.table.figures
    assert table.rowCount() == 6 and table.columnCount() == 5
    assert [e.number for e in widget.run.curve.epochs] == [1, 2, 3, 4, 5]
    widget.result.before.click()
    assert session.checkpoint is before and widget.result.before.isChecked()
    widget.result.tuned.click()
    assert session.checkpoint is widget.tuning.tuned


def test_what_did_not_help_leaves_the_old_one_selected(
    widget: FineTuneWidget, panel: PredictWidget, until, own_folder
):
    before = panel.session.checkpoint
    behave(widget, "worse")
    widget.run.start.click()
    finish(widget, until)
    assert "did not help" in widget.result.verdict.text()
    assert panel.session.checkpoint is before and widget.result.before.isChecked()
    assert not recent_checkpoints()
    widget.shut_down()
    assert not list(own_folder.iterdir())  # nobody wanted it


def test_saved_under_a_name_of_ones_own_and_loaded_again(
    widget: FineTuneWidget, panel: PredictWidget, until, tmp_path
):
    widget.run.start.click()
    finish(widget, until)
    kept = widget.tuning.kept
    widget.result.save_as(tmp_path / "mine")
    finish(widget, until)
    path = tmp_path / "mine.safetensors"
    assert panel.session.checkpoint.path == path and not kept.exists()
    assert path in recent_checkpoints()
    choice = panel.model_box.choice
    assert choice.currentText() == "mine.safetensors"
    assert str(path) in widget.message.text()
    panel.model_box.load(path)
    until(lambda: not panel.model_box._lane.busy)
    assert panel.session.checkpoint.panel.symbols[0] == "ERBB2" and not panel.session.alarming


def test_a_full_disk_while_saving_loses_nothing(
    widget: FineTuneWidget, panel: PredictWidget, until, tmp_path, monkeypatch
):
    widget.run.start.click()
    finish(widget, until)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        widget.result.save_as(tmp_path / "mine.safetensors")
        finish(widget, until)
    text = widget.message.text()
    assert "could not be written (No space left on device)" in text and "still kept" in text
    assert not list(tmp_path.glob("*mine*")) and widget.tuning.kept.is_file()
    widget.result.save_as(panel.session.checkpoint.path)  # where it is
    widget.result.save_as(widget.tuning.parent.path)
    assert "choose another name" in widget.message.text()
    widget.result.save_as(tmp_path / "mine.safetensors")
    finish(widget, until)
    assert panel.session.checkpoint.path == tmp_path / "mine.safetensors"


def test_a_result_that_the_child_could_not_write_is_saved_elsewhere(
    widget: FineTuneWidget, panel: PredictWidget, until, tmp_path, own_folder
):
    widget.run.start.click()
    until(lambda: widget.tuning.state is not State.IDLE)
    shutil.rmtree(own_folder)
    until(lambda: widget.tuning.state is State.UNSAVED)
    assert "could not be written" in widget.message.text()
    assert not widget.result.save.isHidden()
    widget.result.save_as(tmp_path / "rescued.safetensors")
    finish(widget, until)
    assert panel.session.checkpoint.path == tmp_path / "rescued.safetensors"


def test_pause_resume_and_stop(widget: FineTuneWidget, until):
    behave(widget, "long")
    child = begin(widget, until)
    widget.run.pause.click()
    until(lambda: widget.tuning.state is State.PAUSED)
    count = len(widget.tuning.curve)
    assert widget.run.pause.text() == "Resume" and "paused" in widget.run.state.text()
    widget.run.pause.click()
    until(lambda: len(widget.tuning.curve) > count)
    assert widget.run.pause.text() == "Pause"
    widget.run.stop.click()
    assert widget.tuning.state is State.STOPPING and not widget.run.stop.isEnabled()
    finish(widget, until)
    assert widget.tuning.result.better and not child.is_running()


def test_stop_before_anything_began(widget: FineTuneWidget, until):
    widget.run.start.click()
    widget.run.stop.click()
    finish(widget, until)
    assert widget.tuning.result is None or widget.tuning.result.better
    widget.run.start.click()  # and the next one runs
    finish(widget, until)
    assert widget.tuning.result.better


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("killed", "signal 9: probably out of memory"),
        ("traceback", "the numbers are odd"),
        ("refused", "only ten spots"),
        ("failed", "grew without bound"),
    ],
)
def test_a_child_that_dies_is_a_sentence_and_changes_nothing(
    widget: FineTuneWidget, panel: PredictWidget, until, scenario, said
):
    before = panel.session.checkpoint
    behave(widget, scenario)
    widget.run.start.click()
    finish(widget, until)
    text = widget.message.text()
    assert said in text and "Traceback" not in text and "Error(" not in text
    assert panel.session.checkpoint is before and widget.run.start.isEnabled()
    assert widget.result.isHidden()
    behave(widget, "garbage")
    widget.run.start.click()
    finish(widget, until)
    assert widget.tuning.result.better and widget.message.isHidden()


def test_the_best_so_far_of_a_killed_child_can_still_be_chosen(
    widget: FineTuneWidget, panel: PredictWidget, until
):
    before = panel.session.checkpoint
    behave(widget, "saved and killed")
    widget.run.start.click()
    finish(widget, until)
    assert "best so far was saved" in widget.message.text()
    assert panel.session.checkpoint is before and widget.result.before.isChecked()
    widget.result.tuned.click()
    assert panel.session.checkpoint is widget.tuning.tuned


def test_closing_the_widget_ends_the_child(
    widget: FineTuneWidget, panel: PredictWidget, until, qtbot, own_folder
):
    behave(widget, "deaf")
    child = begin(widget, until)
    panel.session.viewer.window.remove_dock_widget(widget)
    widget.close()
    assert not widget.tuning.busy and not child.is_running()
    assert widget.tuning._run.wait(0) and not list(own_folder.iterdir())
    qtbot.wait(50)
    again = FineTuneWidget(panel.session.viewer)  # the sections are still there
    assert again.sections.ticked() == tuple(widget.quality.sections)
    again.shut_down()


def test_closing_the_window_ends_the_child(widget: FineTuneWidget, panel: PredictWidget, until):
    behave(widget, "deaf")
    child = begin(widget, until)
    panel.session.viewer.close()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_section_that_is_removed_stops_the_run(widget: FineTuneWidget, until):
    behave(widget, "long")
    begin(widget, until)
    widget.quality.sections = []
    widget.quality.sections_changed.emit()
    assert widget.tuning.state is State.STOPPING and "C3 was removed" in widget.message.text()
    finish(widget, until)
    assert widget.tuning.result is not None and not widget.run.stop.isEnabled()


def test_a_slide_that_is_closed_stops_the_run(widget: FineTuneWidget, panel: PredictWidget, until):
    behave(widget, "long")
    begin(widget, until)
    panel.session.viewer.layers.remove(panel.session.slide.layer)
    assert "C3 was removed" in widget.message.text()
    finish(widget, until)


def test_the_map_of_the_shown_gene_follows_the_epochs(
    widget: FineTuneWidget, panel: PredictWidget, until
):
    behave(widget, "long")
    widget.live_map.setChecked(True)
    begin(widget, until)
    viewer, gene = panel.session.viewer, panel.session.gene
    until(lambda: any(f"{gene} fine-tuning, epoch" in la.name for la in viewer.layers))
    (layer,) = [la for la in viewer.layers if "fine-tuning, epoch" in la.name]
    assert layer.name.endswith(" - C3") and len(layer.data) == 48  # one spot has no value
    np.testing.assert_allclose(layer.scale, 0.7)
    panel.session.step_gene(1)
    until(lambda: layer.name.startswith(f"{panel.session.gene} fine-tuning"))
    viewer.layers.remove(layer)  # deleted by hand: it does not come back
    count = len(widget.tuning.curve)
    until(lambda: len(widget.tuning.curve) > count + 2)
    assert not [la for la in viewer.layers if "fine-tuning" in la.name]
    widget.run.stop.click()
    finish(widget, until)


def test_sections_that_are_not_ticked_are_only_measured(
    widget: FineTuneWidget, panel: PredictWidget, until, tmp_path
):
    load(widget, measured(panel.session.slide, "C4"))
    assert [s.name for s in widget.sections.ticked()] == ["C3"]
    assert [s.name for s in widget.sections.others()] == ["C4"]
    (section,) = widget.sections.ticked()
    widget.sections.tick(section, False)
    widget.run.start.click()
    assert "Tick a section" in widget.message.text() and not widget.tuning.busy
    widget.sections.tick(section)
    widget.run.start.click()
    finish(widget, until)
    assert widget.result.others.text().endswith("taught nothing: C4 0.50 -> 0.44")
    section.slide = None
    widget.run.start.click()
    assert "Open the slide of C3" in widget.message.text()


def test_held_out_spots_are_outlined_and_go_again(
    widget: FineTuneWidget, panel: PredictWidget, until
):
    layers = panel.session.viewer.layers
    count = len(layers)
    widget.preview.setChecked(True)
    until(lambda: len(layers) > count and not widget.preview.busy)
    outlined = len(layers[-1].data)
    widget.settings.share.setValue(50)
    until(lambda: not widget.preview.busy and len(layers[-1].data) != outlined)
    assert len(layers) == count + 1
    widget.preview.setChecked(False)
    assert len(layers) == count


@pytest.mark.timeout(480)
def test_a_real_run_on_a_small_slide(widget: FineTuneWidget, panel: PredictWidget, qtbot):
    """Read, learn, judge, write, load: nothing faked."""
    from napari_dkan.training.tuning.process import COMMAND

    widget.tuning.command = COMMAND
    widget.quality.sections = []
    load(widget, measured(panel.session.slide, spots=12))
    widget.sections.tick(widget.quality.sections[0])
    widget.settings.unit.setCurrentText("epochs")
    widget.settings.amount.setValue(2)
    widget.live_map.setChecked(True)
    widget.run.start.click()
    # another Python has to start, and it gives way to whatever else the machine does
    finish(widget, partial(qtbot.waitUntil, timeout=400_000))
    assert widget.tuning.result is not None, widget.message.text()
    assert [e.number for e in widget.tuning.curve] == [1, 2]
    assert "held-out spots" in widget.result.verdict.text()
    used = panel.session.checkpoint is widget.tuning.tuned
    assert used == widget.tuning.result.better
    assert widget.result.table.figures.rowCount() == 6
    assert widget.tuning.tuned.sha256 != widget.tuning.parent.sha256
    names = [la.name for la in panel.session.viewer.layers]
    assert f"{panel.session.gene} fine-tuning, epoch 2 - C3" in names
