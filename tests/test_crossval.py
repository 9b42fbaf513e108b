"""The runner: honest splits, full reports, and runs that can be stopped and gone on with."""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_dkan import atomic_write as files
from napari_dkan.cli import main
from napari_dkan.errors import OutputError, SpotsError
from napari_dkan.model import load_checkpoint
from napari_dkan.training.baselines import BASELINES
from napari_dkan.training.depth_reference import TrainingDepth
from napari_dkan.training.evaluation.crossval import cross_validate
from napari_dkan.training.evaluation.crossval_report import (
    REPORT_METRICS,
    average_metrics,
    build_crossval_report,
)
from napari_dkan.training.evaluation.crossval_result import CrossValidationResult, FoldResult
from napari_dkan.training.evaluation.folds import make_folds
from napari_dkan.training.fit import fit_callback as progress
from napari_dkan.training.fit.run_folder import RunFolder
from napari_dkan.training.gene_text import make_random_gene_text
from napari_dkan.training.train_settings import FoldUnit, ignore_log

from .tiny_sections import PANEL, QUICK, tiny_section

TEXT = make_random_gene_text(PANEL, 8, 1)
PLAIN = {name: BASELINES[name] for name in ("training_mean", "ridge")}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _run(
    folder: Path | None, resume: bool = False, log=ignore_log, **changes
) -> CrossValidationResult:
    settings = replace(QUICK, **changes)
    run = None
    if folder is not None:
        run = RunFolder.create_or_resume(folder, {"run": {"settings": asdict(settings)}}, resume)
    sections = [tiny_section(i) for i in range(3)]
    return cross_validate(sections, TEXT, settings, baselines=PLAIN, run=run, log=log)


@pytest.fixture(scope="module")
def undisturbed() -> CrossValidationResult:
    return _run(None)


def _same(one: CrossValidationResult, other: CrossValidationResult) -> None:
    assert one.epochs == other.epochs
    for a, b in zip(one.folds, other.folds, strict=True):
        assert a.fold == b.fold
        wanted, found = (  # but for the times
            {k: v for k, v in f.to_arrays().items() if not k.startswith("costs|")} for f in (a, b)
        )
        assert wanted.keys() == found.keys()
        for key, values in found.items():
            np.testing.assert_array_equal(values, wanted[key], err_msg=key)


def test_folds_by_section_have_no_validation_section_in_the_test() -> None:
    folds = make_folds([tiny_section(i) for i in range(4)])
    assert [f.test for f in folds] == [("S0",), ("S1",), ("S2",), ("S3",)]
    for fold in folds:
        assert set(fold.training).isdisjoint(fold.test) and len(fold.training) == 3
        assert (
            set(fold.validation) < set(fold.training) and len(fold.training_without_validation) == 2
        )
    assert len({f.validation for f in folds}) == 4
    with pytest.raises(SpotsError, match="at least 3 sections, not 2"):
        make_folds([tiny_section(0), tiny_section(1)])
    with pytest.raises(SpotsError, match="S1 is given twice"):
        make_folds([tiny_section(i) for i in (0, 1, 1)])


def test_folds_by_patient() -> None:
    def of(*patients: str):
        return [tiny_section(i, patient=p) for i, p in enumerate(patients)]

    for fold in make_folds(of("A", "A", "B", "C"), FoldUnit.patient):
        assert set(fold.test).isdisjoint(fold.training)
        assert set(fold.validation) < set(fold.training)
    assert make_folds(of("A", "A", "B", "C"), FoldUnit.patient)[0].validation == ("S2",)
    two = make_folds(of("A", "A", "B", "B"), FoldUnit.patient)
    assert [(f.test, f.validation) for f in two] == [
        (("S0", "S1"), ("S3",)),
        (("S2", "S3"), ("S1",)),
    ]
    with pytest.raises(SpotsError, match="all 3 are of patient A"):
        make_folds(of("A", "A", "A"), FoldUnit.patient)
    with pytest.raises(SpotsError, match="none is left to validate on"):
        make_folds(of("A", "A", "B"), FoldUnit.patient)
    with pytest.raises(SpotsError, match="which patient S1 is from"):
        make_folds(of("A", "", "B"), FoldUnit.patient)


def test_the_report_has_every_metric_of_every_method(undisturbed: CrossValidationResult) -> None:
    report = json.loads(json.dumps(build_crossval_report(undisturbed, PANEL, {"seeds": [2021]})))
    assert set(report["mean"]) == {"dkan", "training_mean", "ridge"}
    for method, mean in report["mean"].items():
        folds = [fold[method] for fold in report["folds"]]
        assert set(mean) == set(REPORT_METRICS) and all(
            set(f) == set(REPORT_METRICS) for f in folds
        )
        assert mean["mse"] == pytest.approx(np.mean([f["mse"] for f in folds]), abs=1e-4)
    assert report["mean"]["training_mean"]["pcc_all"] is None
    assert report["mean"]["training_mean"]["genes_without_pcc"] == len(PANEL)
    assert report["folds"][0]["dkan"]["spots"] == 24
    assert report["per_gene_pcc"]["GENE0"].keys() == {"dkan", "training_mean", "ridge"}
    assert (
        average_metrics([dict.fromkeys(REPORT_METRICS, 1.0), dict.fromkeys(REPORT_METRICS)])["mae"]
        == 1.0
    )


def test_a_resumed_run_gives_the_same_result(
    undisturbed: CrossValidationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        """The power went off."""

    before = progress.FitCallback.on_train_batch_start

    def stop(self, trainer, module, batch, index):
        if "S1" in str(self.folder) and trainer.current_epoch == 1 and index == 1:
            raise Stopped
        before(self, trainer, module, batch, index)

    folder = tmp_path / "a.run"
    with monkeypatch.context() as patch:
        patch.setattr(progress.FitCallback, "on_train_batch_start", stop)
        with pytest.raises(Stopped):
            _run(folder)
    assert [p.parent.name for p in folder.glob("folds/*/result.npz")] == ["S0"]
    with (folder / "folds/S1/seed-2021/choosing-epochs/curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["epoch"] for r in rows] == ["1"] and float(rows[0]["loss"]) > 0
    # without counts there is no depth to take out
    assert float(rows[0]["val_depth_partial_pcc"]) == float(rows[0]["val_pcc"])

    for done_before in ([True, False, False], [True, True, True]):
        lines: list[str] = []
        _same(_run(folder, resume=True, log=lines.append), undisturbed)
        assert ["(done before)" in line for line in lines] == done_before
    assert not list(folder.rglob("*.ckpt")) and len(list(folder.rglob("curve.csv"))) == 6


def test_a_run_resumes_after_a_full_disk(
    undisturbed: CrossValidationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = os.replace, [9]

    def full(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        with pytest.raises(OutputError, match="No space left on device"):
            _run(tmp_path / "a.run")
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".writing-")]
    _same(_run(tmp_path / "a.run", resume=True), undisturbed)


def test_a_run_folder_is_for_one_run(tmp_path: Path) -> None:
    config = {"run": {"settings": {"lr": 1.0, "dim": 4}, "panel": "x"}}
    folder = RunFolder.create_or_resume(tmp_path / "a", config)
    with pytest.raises(OutputError, match="a holds a run already; go on with it by --resume"):
        RunFolder.create_or_resume(tmp_path / "a", config)
    other = {"run": {"settings": {"lr": 2.0, "dim": 4}, "panel": "y"}}
    with pytest.raises(OutputError, match=r"other settings or data \(settings lr, panel\)"):
        RunFolder.create_or_resume(tmp_path / "a", other, resume=True)
    folder.fold_path("patient C").mkdir(parents=True)
    (folder.fold_path("patient C") / "result.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(OutputError, match=r"result.npz is damaged"):
        folder.load_result("patient C")


def test_results_round_trip_through_arrays() -> None:
    fold = make_folds([tiny_section(i) for i in range(3)])[0]
    labels = {"S|0": np.ones((2, 3), np.float32)}
    result = FoldResult(fold, {"dkan": {1: 4, 2: 5}}, labels, {"dkan": {1: labels, 2: labels}})
    again = FoldResult.from_arrays(fold, result.to_arrays())
    assert again.epochs == result.epochs and again.to_arrays().keys() == result.to_arrays().keys()


@pytest.fixture
def her2st(tmp_path: Path) -> Path:
    """Three made-up sections of 25 spots in the her2st layout."""
    from PIL import Image

    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    colours = rng.integers(90, 255, (30, 30, 3)).astype(np.uint8)
    image = Image.fromarray(colours).resize((900, 900))
    for name in ("X1", "X2", "Y1"):
        (root / "ST-imgs" / name[0] / name).mkdir(parents=True)
        image.save(root / "ST-imgs" / name[0] / name / "he.png")
        for folder in ("ST-cnts", "ST-spotfiles"):
            (root / folder).mkdir(exist_ok=True)
        cells = [(x, y) for x in range(5) for y in range(5)]
        spots = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"]
        counts = ["\t" + "\t".join(PANEL.symbols)]
        for x, y in cells:
            px, py = 160 + 143 * x, 160 + 143 * y
            spots.append(f"{x}\t{y}\t{x}\t{y}\t{px}\t{py}\t1")
            numbers = "\t".join(map(str, rng.poisson(3, len(PANEL))))
            counts.append(f"{x}x{y}\t{numbers}")
        (root / "ST-spotfiles" / f"{name}_selection.tsv").write_text("\n".join(spots) + "\n")
        (root / "ST-cnts" / f"{name}.tsv").write_text("\n".join(counts) + "\n")
    (root / "panel.txt").write_text("\n".join(PANEL.symbols))
    return root


@pytest.mark.timeout(300)
def test_crossval_and_train_commands(her2st: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def call(*arguments) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["napari-dkan", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        return exit.value.code or 0, capsys.readouterr().err

    out = tmp_path / "report.json"
    small = ["--set", "members=1", "--set", "augmentation=null", "--epochs", 1]
    asked = ["crossval", "--data", her2st, "-o", out, *small]
    panel = ["--panel", her2st / "panel.txt"]
    code, err = call(*asked, *panel)
    assert code == 0, err
    assert "X1, seed 2021, choosing epochs: epoch 1, validation depth-partial PCC" in err
    report = json.loads(out.read_text())
    assert set(report["mean"]) == {"dkan", *BASELINES, "depth_alone"}
    depth = report["mean"]["depth_alone"]
    assert depth["depth_partial_pcc"] == 0 and depth["mse"] is None and depth["pcc_all"] is not None
    assert 0 < report["mean"]["dkan"]["ceiling"] <= 1
    assert "depth-partial PCC dkan" in err
    assert [fold["test"] for fold in report["folds"]] == [["X1"], ["X2"], ["Y1"]]
    assert str(her2st.parent) not in out.read_text()
    run = tmp_path / "report.run"
    card = json.loads((run / "card.json").read_text())
    assert card["metrics"]["dkan"]["mse"] > 0 and (run / "config.json").is_file()

    code, err = call(*asked, *panel)
    assert code == 2 and "report.run holds a run already" in err
    code, err = call(*asked, *panel, "--resume", "--seeds", 7)
    assert code == 2 and "other settings or data" in err
    code, err = call(*asked, *panel, "--resume")
    assert code == 0 and "X1 (25 spots) (done before)" in err
    again = json.loads(out.read_text())
    assert again["mean"] == report["mean"]

    # a checkpoint takes the scores measured, but not those of other settings
    train = ["train", "--data", her2st, *panel, "-o", tmp_path / "made.safetensors"]
    code, err = call(*train, "--epochs", 2, "--measured", out)
    assert code == 2 and "measured with other settings or data" in err
    code, err = call(*train, *small, "--measured", out)
    assert code == 0, err
    made = load_checkpoint(tmp_path / "made.safetensors")
    assert made.card["metrics"]["dkan"] == report["pooled"]["dkan"]
    assert made.card["per_gene_pcc"].keys() == report["per_gene_pcc"].keys()
    assert made.card["metrics"]["ceiling"] == report["pooled"]["dkan"]["ceiling"]
    assert made.card["per_gene_depth_partial"]["GENE0"].keys() == {
        *("dkan", "ridge", "ceiling", "judged")
    }
    trained = TrainingDepth.from_card(made.card)
    assert trained is not None and set(trained.median_totals) == {"X1", "X2", "Y1"}
    assert sum(trained.mean_profile.values()) == pytest.approx(1, abs=1e-3)
    code, err = call(*train, *small, "--resume", "--measured", her2st / "panel.txt")
    assert code == 2 and "not the report of a cross-validation" in err

    fresh = ["--run", tmp_path / "other.run"]
    code, err = call(*asked, *fresh)
    assert code == 2 and "give one by --panel" in err
    code, err = call(*asked, *panel, *fresh, "--sections", "X1,X9,Y1")
    assert code == 2 and "X9" in err
    code, err = call(*asked, *panel, *fresh, "--seeds", "one")
    assert code == 2 and "--seeds takes whole numbers" in err
    (her2st / "panel.txt").write_text("GENE0 NOSUCHGENE")
    code, err = call(*asked, *panel, *fresh)
    assert code == 2 and "does not measure 1 of the panel's 2 genes (NOSUCHGENE)" in err
    assert not (tmp_path / "other.run").exists()
