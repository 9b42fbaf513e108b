"""The doctor command: checks, their failures and the report."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_dkan.cli import main
from napari_dkan.doctor import compute_checks, environment_checks, reader_checks
from napari_dkan.doctor.check_result import CheckResult, CheckStatus, run_check, run_section
from napari_dkan.errors import SlideError


@pytest.fixture
def run(monkeypatch, capfd):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["napari-dkan", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        return exit.value.code or 0, capfd.readouterr().out

    return call


def test_intact_installation_passes_without_network(run, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    opened = []
    monkeypatch.setattr(socket, "create_connection", lambda *args, **more: opened.append(args))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: opened.append(args))
    code, out = run("doctor", "--json")
    found = {(f["section"], f["name"]): f for f in json.loads(out)}
    assert code == 0 and not opened
    assert all(f["state"] != "broken" for f in found.values())
    assert found["versions", "torch"]["said"].split("+")[0] == torch.__version__.split("+")[0]
    for precision in compute_checks.MATMUL_TOLERANCE:
        assert "right to" in found["devices", f"cpu {precision}"]["said"]
    for name in reader_checks.READER_CHECKS:
        assert found["readers", name]["state"] == "ok"
    assert "0.5 um/px" in found["readers", "OME-Zarr 0.5"]["said"]
    assert "SHA-256" in found["checkpoints", "her2-breast"]["said"]
    assert " to " in found["checkpoints", "synthetic, one tile on cpu"]["said"]
    if sys.platform.startswith("linux"):
        assert found["display", "display"]["state"] == "note"


def test_broken_checks_are_reported_and_the_report_continues(run, monkeypatch):
    def broken():
        yield CheckResult("one", "first", "well")
        raise RuntimeError("driver gone")

    def refuse():
        raise SlideError("A sentence.")

    sections = (
        ("one", broken),
        (
            "two",
            lambda: iter(
                [run_check("two", "thing", refuse), run_check("two", "other", lambda: "ok")]
            ),
        ),
        ("three", lambda: iter([CheckResult("three", "less", "no display", CheckStatus.note)])),
    )
    monkeypatch.setattr("napari_dkan.doctor.list_sections", lambda: sections)
    code, out = run("doctor")
    assert code == 1
    assert "! one    RuntimeError: driver gone" in out and "  first  well" in out
    assert "! thing  A sentence." in out and "  other  ok" in out and "- less  no display" in out
    assert out.endswith("2 of these are broken: one: one, two: thing.\n")
    monkeypatch.setattr("napari_dkan.doctor.list_sections", lambda: sections[2:])
    code, out = run("doctor")
    assert code == 0 and out.endswith("Nothing is broken.\n")


def test_wrong_matrix_product_is_reported(monkeypatch):
    real = torch.Tensor.__matmul__

    def wrong(self, other):
        made = real(self, other)
        return made if made.dtype == torch.float64 else made * 1.05

    monkeypatch.setattr(torch.Tensor, "__matmul__", wrong)
    for precision in compute_checks.MATMUL_TOLERANCE:
        found = run_check(
            "devices", "cpu", lambda p=precision: compute_checks.check_matmul("cpu", p)
        )
        assert found.state is CheckStatus.broken and "is off by" in found.said


def test_reader_with_wrong_pixels_is_reported(monkeypatch, tmp_path):
    path = tmp_path / "a.tif"
    reader_checks.write_tiff(path, "deflate")
    assert "2 level(s)" in reader_checks.check_slide_file(path)
    monkeypatch.setattr(
        reader_checks, "create_test_image", lambda: np.zeros((256, 256, 3), np.uint8)
    )
    with pytest.raises(ValueError, match="pixels are off by"):
        reader_checks.check_slide_file(path)


def test_missing_and_old_packages_are_reported(monkeypatch):
    wanted = ["numpy>=99", "nosuchpackage>=1", "torch>=2", "never>=1; extra == 'test'"]
    monkeypatch.setattr(environment_checks, "requires", lambda name: wanted)
    old, missing = environment_checks.check_requirements()
    assert "but >=99 is needed; pip install -U 'numpy>=99'" in old.said
    assert missing.said == "missing; pip install 'nosuchpackage>=1'"
    assert {old.state, missing.state} == {CheckStatus.broken}


def test_folders_are_checked_without_leaving_files(tmp_path, monkeypatch):
    there = environment_checks.check_folder("settings", tmp_path / "not/yet")
    assert there.state is CheckStatus.ok and "not made yet" in there.said
    assert not list(tmp_path.iterdir())

    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(environment_checks.tempfile, "TemporaryFile", refuse)
    found = environment_checks.check_folder("settings", tmp_path)
    assert found.state is CheckStatus.note and "Permission denied" in found.said


@pytest.mark.parametrize(
    ("code", "said", "state"),
    [
        ("import json; print('noise'); print(json.dumps({'renderer': 'x'}))", "x", CheckStatus.ok),
        ("import json; print(json.dumps({'error': 'no GL'}))", "no GL", CheckStatus.broken),
        ("import os; os.abort()", "the process that looked at it ended by", CheckStatus.broken),
        ("raise SystemExit('cannot open')", "code 1: cannot open", CheckStatus.broken),
    ],
)
def test_crash_of_the_display_probe_is_reported(code, said, state):
    (found,) = environment_checks.run_display_probe((sys.executable, "-c", code))
    assert said in found.said and found.state is state


def test_section_that_fails_at_its_start_is_reported():
    def broken():
        raise OSError("no")
        yield

    (found,) = run_section("devices", broken)
    assert found.state is CheckStatus.broken and Path(found.name).name == "devices"
