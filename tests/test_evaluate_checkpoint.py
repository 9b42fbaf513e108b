"""`evaluate`: the checkpoint's own numbers on any measured section, and bad input in a sentence."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from napari_dkan.cli import main
from napari_dkan.errors import SpotsError
from napari_dkan.expression.panel import Gene, Panel
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_spots
from napari_dkan.model import load_checkpoint, save_checkpoint
from napari_dkan.slide import open_slide
from napari_dkan.training.data.measured_section import make_measured_section, match_panel_columns
from napari_dkan.training.depth_metrics import depth_alone_pcc, depth_partial_pcc
from napari_dkan.training.evaluation.evaluate_checkpoint import evaluate_checkpoint
from napari_dkan.training.metrics import gene_pcc


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def call(monkeypatch, capsys):
    """Run `evaluate` in this process: (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["napari-dkan", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        out = capsys.readouterr()
        return exit.value.code or 0, out.out, out.err

    return run


def _section(genes: list[str], spots: int = 16) -> anndata.AnnData:
    """Counts at spots 140 um apart on the drawn slide (1,600 px at 0.7 um/px)."""
    rng = np.random.default_rng(0)
    at = np.arange(spots)
    data = anndata.AnnData(
        rng.poisson(5, (spots, len(genes))).astype(np.float32) + 1,
        obs=pd.DataFrame({"array_col": at % 4, "array_row": at // 4}, index=[f"s{i}" for i in at]),
        var=pd.DataFrame(index=genes),
    )
    data.obsm["spatial"] = np.stack([400 + 200.0 * (at % 4), 400 + 200.0 * (at // 4)], axis=1)
    data.uns = {"section": "drawn", "mpp": 0.7, "spot_pitch_um": 140.0, "spot_diameter_um": 100.0}
    return data


def test_metrics_equal_those_of_the_predictor(tiny_slide_file, tiny_checkpoint_file) -> None:
    model = load_checkpoint(tiny_checkpoint_file)
    measured = make_measured_section(_section(["OTHER", *model.panel.symbols]), model)
    with open_slide(tiny_slide_file) as slide:
        report = evaluate_checkpoint(model, slide, measured)
        target = target_from_spots(measured.labeled_spots(), slide.width, slide.height)
        predictor = Predictor(slide, model, 0.7, find_tissue_region(slide, 0.7))
        values = predict(predictor, target).values
    wanted = gene_pcc(values, measured.labels.values)
    for symbol, pcc in zip(model.panel.symbols, wanted, strict=True):
        assert report["per_gene_pcc"][symbol]["dkan"] == pytest.approx(pcc, abs=1e-4)
    assert report["metrics"]["dkan"]["pcc_all"] == pytest.approx(wanted.mean(), abs=1e-4)
    assert report["metrics"]["dkan"]["spots"] == 16 and report["genes_missing"] == []
    assert report["mpp_origin"] and report["seen_in_training"] is False
    depth = measured.labels.counts.depth
    partial = depth_partial_pcc(values, measured.labels.values, depth)
    for symbol, pcc in zip(model.panel.symbols, partial, strict=True):
        assert report["per_gene_depth_partial"][symbol]["dkan"] == pytest.approx(pcc, abs=1e-3)
    assert report["metrics"]["dkan"]["depth_partial_pcc"] == pytest.approx(partial.mean(), abs=1e-3)
    alone = report["metrics"]["depth_alone"]
    assert alone["depth_partial_pcc"] == 0 and alone["mse"] is None
    labels = measured.labels.values
    assert alone["pcc_all"] == pytest.approx(depth_alone_pcc(labels, depth).mean(), abs=1e-4)
    # the card of this checkpoint records no training counts
    assert report["shallow"] is None and report["metrics"]["dkan"]["deviance_explained"] is None


def test_a_shallow_section_is_told_so_before_its_scores(
    call, tiny_slide_file, tiny_checkpoint_file, tmp_path: Path
) -> None:
    model = load_checkpoint(tiny_checkpoint_file)
    symbols = model.panel.symbols
    record = {"median_panel_totals": {"A": 900, "B": 1200.0}}
    record["mean_profile"] = dict.fromkeys(symbols, 1 / len(symbols))
    deep = replace(model, card={**model.card, "training_data": record}, path=None, sha256="")
    counts, out = tmp_path / "counts.h5ad", tmp_path / "report.json"
    _section(list(symbols)).write_h5ad(counts)
    said_of = {}
    for total in (900, 90):  # the section has 37 counts a spot
        record["median_panel_totals"] = {"A": total, "B": 1200.0}
        file = tmp_path / f"{total}.safetensors"
        save_checkpoint(file, deep)
        code, said, err = call(
            *("--checkpoint", file, "--image", tiny_slide_file, "--counts", counts, "-o", out)
        )
        assert code == 0, err
        said_of[total] = said
        assert json.loads(out.read_text())["metrics"]["dkan"]["deviance_explained"] is not None
    warning = "37 panel counts a spot, 900 to 1,200 in the training sections"
    assert warning in said_of[900] and "panel counts a spot" not in said_of[90]
    assert said_of[900].index(warning) < said_of[900].index("PCC-ALL")


def test_unmeasured_genes_are_left_out_and_listed(tiny_checkpoint_file) -> None:
    model = load_checkpoint(tiny_checkpoint_file)
    measured = make_measured_section(_section(["GATA3", "KRT8", "ELSE"]), model)
    assert measured.panel.symbols == ("GATA3", "KRT8") and measured.panel_rows == (1, 4)
    assert measured.missing_genes == ("ERBB2", "CD74", "COL1A1", "MALAT1")
    # the library size is that of the genes that are there
    assert measured.labels.values.shape == (16, 2)
    with pytest.raises(SpotsError, match="measures none of the checkpoint's 6 genes"):
        make_measured_section(_section(["NONE", "OF", "THEM"]), model)
    with pytest.raises(SpotsError, match="single labelled spot"):
        make_measured_section(_section(["GATA3", "KRT8"], spots=1), model)


def test_genes_are_matched_by_id_and_unambiguous_alias() -> None:
    panel = Panel(
        (
            Gene("H3F3B", "ENSG1", aliases=("H3-3B",)),
            Gene("A", "ENSG2", aliases=("SHARED", "B")),
            Gene("B", "ENSG3", aliases=("SHARED",)),
            Gene("C", "ENSG4"),
        )
    )
    data = anndata.AnnData(
        np.ones((2, 4), np.float32), var=pd.DataFrame(index=["H3-3B", "SHARED", "B", "c4"])
    )
    assert match_panel_columns(panel, data) == ["H3-3B", None, "B", None]
    data.var["gene_ids"] = ["x", "y", "z", "ENSG4.7"]
    assert match_panel_columns(panel, data) == ["H3-3B", None, "B", "c4"]


def test_the_bundled_checkpoint_on_a_real_crop(call, data_dir: Path, tmp_path: Path) -> None:
    crop = data_dir / "her2st" / "crop"
    out = tmp_path / "report.json"
    code, said, err = call(
        *("--checkpoint", "bundled", "--image", crop / "C3_crop.jpg"),
        *("--counts", crop / "C3_crop.tsv.gz", "--spots", crop / "C3_crop_selection.tsv"),
        *("-o", out),
    )
    assert code == 0, err
    assert "dkan" in said and "PCC-ALL" in said
    report = json.loads(out.read_text())
    # in sample, so no measure of quality; but it must find the section again
    assert report["metrics"]["dkan"]["pcc_all"] > 0.4
    assert report["genes"] == 250 and report["mpp"] == pytest.approx(0.687, abs=0.01)
    assert str(data_dir) not in out.read_text()


def test_bad_input(call, tiny_slide_file, tiny_checkpoint_file, tmp_path: Path) -> None:
    model = load_checkpoint(tiny_checkpoint_file)
    out = tmp_path / "report.json"
    counts = tmp_path / "counts.h5ad"

    def refused(data: anndata.AnnData, *more) -> str:
        data.write_h5ad(counts)
        given = ["--checkpoint", tiny_checkpoint_file, "--image", tiny_slide_file]
        code, _, err = call(*given, "--counts", counts, "-o", out, *more)
        assert code == 2 and "Traceback" not in err and not out.exists()
        (line,) = [text for text in err.splitlines() if text.startswith("napari-dkan: ")]
        return line

    good = list(model.panel.symbols)
    of_another_slide = _section(good)
    of_another_slide.obsm["spatial"] = of_another_slide.obsm["spatial"] + 3000
    assert "16 of 16 spots lie outside the slide" in refused(of_another_slide)
    assert "none of the checkpoint's 6 genes" in refused(_section(["A", "B"]))
    assert "give --train-data" in refused(_section(good), "--baseline", "ridge")
    code, _, err = call("--checkpoint", "nothing", "--counts", counts, "-o", out)
    assert code == 2 and "nothing cannot be used as a checkpoint" in err
