"""Unwritable home folders, no network, several processes and unusual paths."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget


SCRIPT = Path(__file__).with_name("session_script.py")

# Folders below it can be made by nobody, root included.
NOWHERE = "/proc/self"


def start_session(slide: Path, checkpoint: Path, out: Path, home: str, **environment: str):
    """Start a session without the cache and the settings of the real home folder."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "NAPARI"))}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(slide), str(checkpoint), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=kept | {"HOME": home} | environment,
    )


def read_report(process) -> dict:
    """Wait for a session and return its report."""
    out, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors[-3000:]
    line = next(line for line in out.splitlines() if line.startswith("VISIT "))
    return json.loads(line.removeprefix("VISIT "))


@pytest.mark.timeout(420)
@pytest.mark.skipif(not Path(NOWHERE).is_dir(), reason="needs a folder that root cannot write")
def test_several_processes_without_network_and_without_a_home(
    tiny_slide_file, tiny_checkpoint_file, tmp_path
):
    """Two share a home and a cache, one of them with another binding of Qt.

    The third has a home and a cache where nothing can be written; but for napari's own icons and
    settings, without which it does not start.
    """
    home = tmp_path / "home"
    home.mkdir()
    inputs = tiny_slide_file, tiny_checkpoint_file
    sessions = [
        start_session(*inputs, tmp_path / "a.h5ad", str(home)),
        start_session(*inputs, tmp_path / "b.h5ad", str(home), QT_API="pyqt6"),
        start_session(
            *inputs,
            tmp_path / "c.h5ad",
            NOWHERE,
            XDG_CACHE_HOME=str(tmp_path / "icons"),
            NAPARI_CONFIG=str(tmp_path / "settings.yaml"),
            NAPARI_DKAN_CACHE=f"{NOWHERE}/cache",
        ),
    ]
    first, second, without_home = (read_report(process) for process in sessions)
    for each in (first, second, without_home):
        assert each["calls"] == []
        assert each["tiles"] > 3 and each["sum"] == pytest.approx(first["sum"], rel=1e-5)
    assert (first["qt"], second["qt"]) == ("PySide6", "PyQt6")
    assert first["remembers"] == second["remembers"] == 0.5
    assert without_home["remembers"] is None
    assert "cannot be written" in without_home["message"]
    histories = list(home.rglob("memory.json"))
    assert len(histories) == 1 and json.loads(histories[0].read_text())["mpp"] == {"slide": 0.5}


LONG = "s" * 120


@pytest.mark.parametrize(
    "name",
    ["a folder with spaces/a slide", "Präparat-№7/日本語のスライド", f"{LONG}/{LONG}", "-x/--help"],
    ids=["spaces", "not ASCII", "long", "dashes"],
)
def test_unusual_paths(
    name,
    make_panel: Callable[..., PredictWidget],
    tiny_slide_file,
    tiny_checkpoint_file,
    tmp_path,
    until,
):
    """Open, predict at a click, save and open again."""
    from napari_dkan.export.result_reader import load_result
    from napari_dkan.export.saved_result import SavedResult, SlideRecord, save_result

    slide = tmp_path / f"{name}.ome.tif"
    slide.parent.mkdir(parents=True)
    shutil.copy(tiny_slide_file, slide)
    checkpoint = slide.parent / f"{name.split('/')[0]}.safetensors"
    shutil.copy(tiny_checkpoint_file, checkpoint)
    if name.startswith("s"):
        assert len(str(slide)) > 250
    panel = make_panel()
    session = panel.session
    session.viewer.open(slide, plugin="napari-dkan")
    panel.model_box.load(checkpoint)
    until(lambda: session.checkpoint.path == checkpoint)
    until(lambda: session.slide.tissue is not None)
    place = session.slide.tissue.representative_point()
    panel.click_predictor.predict_at(place.x, place.y)
    until(lambda: session.spot is not None)
    record = SlideRecord.from_slide(session.slide.slide, session.slide.mpp, "OME metadata")
    out = slide.with_name(slide.name.replace(".ome.tif", ".h5ad"))
    save_result(
        out, SavedResult(session.spot, record, session.checkpoint.card), session.slide.slide
    )
    assert load_result(out).slide_record.path == str(slide)
    assert [p.name for p in out.parent.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("home", [NOWHERE, None], ids=["read-only", "none"])
def test_command_line_needs_no_home(home, tiny_slide_file, tiny_checkpoint_file, tmp_path):
    if home and not Path(home).is_dir():
        pytest.skip("needs a folder that root cannot write")
    out = tmp_path / "out.h5ad"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "NAPARI", "HOME"))}
    where = {"HOME": home} if home else {"NAPARI_DKAN_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "napari_dkan", "predict", str(tiny_slide_file)]
    command += ["--checkpoint", str(tiny_checkpoint_file), "-o", str(out)]
    done = subprocess.run(command, env=kept | where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert out.is_file() and "spots x 6 genes written" in done.stdout
    assert ("cannot be written" in done.stderr) == (home is not None)
    assert "Traceback" not in done.stderr
