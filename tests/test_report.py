"""Report: self-contained, all text is escaped, and its numbers are those of the comparison."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from napari_dkan.cli import main
from napari_dkan.errors import OutputError, SpotsError
from napari_dkan.expression.panel import Gene, Panel
from napari_dkan.inference.map_colors import DEFAULT_COLORMAP, sample_colors
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_region
from napari_dkan.model import load_checkpoint
from napari_dkan.quality.comparison import compare_with_measured
from napari_dkan.quality.report import map_figures
from napari_dkan.quality.report.report_page import DISCLAIMER, write_report
from napari_dkan.quality.report.report_tables import (
    GENE_TABLE_COLUMNS,
    format_decimal,
    format_percent,
)
from napari_dkan.slide import PixelSize, open_slide
from napari_dkan.training.data.measured_section import make_measured_section
from napari_dkan.training.evaluation.evaluate_checkpoint import (
    evaluate_checkpoint,
    predict_measured_spots,
)

if TYPE_CHECKING:
    from napari_dkan.slide.slide import Slide


MARKUP = '"><script>alert(1)</script><img src="http://example.org/x">\u202e'
URLS = ("src", "href", "xlink:href", "action", "data", "poster", "srcset")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Page(HTMLParser):
    """Elements by name, texts, and the cells of its tables."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self.raw = path.read_text(encoding="utf-8")
        self.feed(self.raw)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def handle_starttag(self, name, attributes) -> None:
        self.count[name] = self.count.get(name, 0) + 1
        self.links += [value for key, value in attributes if key in URLS]
        self.handlers += [key for key, _ in attributes if key.startswith("on")]
        if name == "table":
            self._rows = self.tables.setdefault(dict(attributes)["class"], [])
        elif name == "tr":
            self._rows.append([])
        elif name in ("td", "th"):
            self._rows[-1].append("")

    def handle_data(self, data) -> None:
        self.words.append(data)
        if self._rows and self._rows[-1]:
            self._rows[-1][-1] += data

    def handle_endtag(self, name) -> None:
        if name == "table":
            self._rows = []


def make_section(genes) -> anndata.AnnData:
    """Counts at 36 spots, 140 um apart, on the tiny slide (1,600 px at 0.7 um/px)."""
    rng = np.random.default_rng(0)
    at = np.arange(36)
    data = anndata.AnnData(
        rng.poisson(5, (36, len(genes))).astype(np.float32) + 1,
        obs=pd.DataFrame({"array_col": at % 6, "array_row": at // 6}, index=[f"s{i}" for i in at]),
        var=pd.DataFrame(index=list(genes)),
    )
    data.obsm["spatial"] = np.stack([300 + 200.0 * (at % 6), 300 + 200.0 * (at // 6)], axis=1)
    data.uns = {"section": "tiny", "mpp": 0.7, "spot_pitch_um": 140.0, "spot_diameter_um": 100.0}
    return data


@pytest.fixture(scope="module")
def slide(tiny_slide_file):
    with open_slide(tiny_slide_file) as opened:
        yield opened


@pytest.fixture(scope="module")
def inputs(slide: Slide, tiny_checkpoint_file):
    """Inputs of a page; one gene and the titles contain markup."""
    model = load_checkpoint(tiny_checkpoint_file)
    genes = list(model.panel.genes)
    genes[-1] = Gene(MARKUP, "", MARKUP)
    card = {"title": MARKUP, MARKUP: {"deep": [MARKUP]}, "first_genes": ["ERBB2", MARKUP, 3]}
    card["per_gene_pcc"] = {"ERBB2": {"dkan": 0.5, "ridge": None}, MARKUP: {"dkan": MARKUP}}
    model = replace(model, panel=Panel(tuple(genes)), card=card)
    data = make_section([g.symbol for g in genes])
    data.uns["section"] = MARKUP
    measured = make_measured_section(data, model)
    predictor = Predictor(slide, model, 0.7, find_tissue_region(slide, 0.7))
    prediction = predict_measured_spots(predictor, measured, PixelSize(0.7, "entered by hand"))
    ridge = measured.labels.values[::-1]
    return model, measured, predictor, compare_with_measured(model, measured, prediction, ridge)


def write_page(path: Path, slide: Slide, inputs, **more) -> Page:
    model, _, _, comparison = inputs
    arguments = {"prediction": comparison.prediction, "comparison": comparison} | more
    assert write_report(path, slide=slide, checkpoint=model, **arguments) == path
    return Page(path)


def test_page_is_self_contained_and_text_is_escaped(tmp_path, slide: Slide, inputs) -> None:
    page = write_page(tmp_path / "page.html", slide, inputs, warnings=[MARKUP], command=MARKUP)
    assert page.links and all(link.startswith(("data:image/", "#")) for link in page.links)
    assert page.count["script"] == 1 and "img" not in page.count and not page.handlers
    assert "link" not in page.count and "iframe" not in page.count
    assert "@import" not in page.raw and "url(" not in page.raw
    shown = MARKUP.replace("\u202e", " ").strip()
    assert page.text.count(shown) > 10 and "\u202e" not in page.raw
    assert "default-src &#39;none&#39;" in page.raw
    assert page.text.count(DISCLAIMER) >= 2
    assert str(inputs[0].path.parent) not in page.raw  # paths are private
    assert (tmp_path / "page.html").stat().st_size < 3_000_000


def test_metrics_equal_comparison_and_evaluate(tmp_path, slide: Slide, inputs) -> None:
    model, measured, _, comparison = inputs
    page = write_page(tmp_path / "page.html", slide, inputs)
    metrics = evaluate_checkpoint(model, slide, measured, 0.7)["metrics"]["dkan"]
    wanted = [metrics[n] for n in ("pcc_all", "pcc_hpg", "pcc_heg", "pcc_hvg", "mse")]
    dkan = page.tables["summary"][1]
    plain = [*(format_decimal(v, 4) for v in wanted), str(len(comparison.panel))]
    share = format_percent(metrics["share_of_attainable"])
    partial = [format_decimal(metrics["depth_partial_pcc"], 4), share, "–"]
    assert dkan == ["DKAN", *partial, *plain]
    head, *rows = page.tables["genes sortable"][1:]
    headers = [c.header for c in GENE_TABLE_COLUMNS if c.header != "card"]  # not recorded
    assert head == ["gene", *headers]
    table = {g.symbol.replace("\u202e", " "): g for g in comparison.metrics_per_gene}
    assert {row[0] for row in rows} == set(table)
    for symbol, *row in rows:
        gene = table[symbol]
        partial = format_decimal(gene.partial, 2) if gene.is_judged else "cannot be judged"
        assert row[0] == partial and row[3] == format_decimal(gene.ceiling, 2)
        row = row[4:]
        assert row[0] == format_decimal(gene.pcc, 2) and row[3] == format_decimal(gene.mse, 3)
        assert row[4] == format_decimal(gene.ridge_pcc, 2) and row[7] == format_decimal(
            gene.expected_pcc, 2
        )
    order = [(table[row[0]].is_judged, table[row[0]].partial) for row in rows]
    assert order == sorted(order, reverse=True)
    assert comparison.summary.format_verdict() in page.text
    assert model.label_scale.name in page.text and "µm" in page.text


def test_page_without_measurements(tmp_path, slide: Slide, inputs) -> None:
    model, _, predictor, _ = inputs
    region = find_tissue_region(slide, 0.7)
    target = target_from_region(region, 140.0, 0.7, slide.width, slide.height)
    prediction = predict(predictor, target)
    page = write_page(
        tmp_path / "page.html",
        slide,
        inputs,
        prediction=prediction,
        comparison=None,
        genes=["her2"],
    )
    assert "Nothing was measured here" in page.text and "ERBB2, predicted" in page.text
    assert "measured, " not in page.text and "Where it is worst" not in page.text
    assert len(page.tables["genes sortable"]) == 1 + len(model.panel)
    assert all(link.startswith(("data:image/", "#")) for link in page.links)


def test_many_spots_are_drawn_as_an_image(tmp_path, slide: Slide, inputs, monkeypatch) -> None:
    vector = write_page(tmp_path / "vector.html", slide, inputs)
    monkeypatch.setattr(map_figures, "MAX_VECTOR_SPOTS", 10)
    raster = write_page(tmp_path / "raster.html", slide, inputs, colormap="viridis")
    lowest = {name: sample_colors(name, 64)[0] for name in (DEFAULT_COLORMAP, "viridis")}
    for page, shown, other in ((vector, DEFAULT_COLORMAP, "viridis"), (raster, "viridis", "magma")):
        assert lowest[shown] in page.raw and lowest[other] not in page.raw
    assert "image/png" in raster.raw and "image/png" not in vector.raw
    assert raster.tables["genes sortable"] == vector.tables["genes sortable"]


def test_bad_input_leaves_no_partial_page(tmp_path, slide: Slide, inputs, monkeypatch) -> None:
    path = tmp_path / "page.html"
    with pytest.raises(SpotsError, match="ERBB3 is not among the 6 genes"):
        write_page(path, slide, inputs, genes=["ERBB3", "ERBB2"])
    prediction = inputs[3].prediction
    empty = replace(prediction, tokens=np.full_like(prediction.tokens, np.nan))
    with pytest.raises(SpotsError, match="predict first"):
        write_page(path, slide, inputs, prediction=empty, comparison=None)
    path.write_text("the old one")

    def full(*_args, **_kwargs) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match=r"page\.html could not be written .No space left"):
        write_page(path, slide, inputs)
    monkeypatch.undo()
    assert path.read_text() == "the old one" and list(tmp_path.iterdir()) == [path]


def run_report_command(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["napari-dkan", "report", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        main()
    out = capsys.readouterr()
    return exit.value.code or 0, out.out, out.err


def test_report_command(data_dir: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    crop, out = data_dir / "her2st" / "crop", tmp_path / "page.html"
    files = ["--counts", crop / "C3_crop.tsv.gz", "--spots", crop / "C3_crop_selection.tsv"]
    arguments = [crop / "C3_crop.jpg", *files, "--genes", "ERBB2,cd74", "-o", out]
    code, output, err = run_report_command(monkeypatch, capsys, *arguments)
    assert code == 0, err
    assert "PCC-ALL" in output and f"written to {out}" in output
    page = Page(out)
    assert "CD74, residual" in page.text and "How far to trust it" in page.text
    assert str(data_dir) not in page.raw
    assert "read: C3_crop.tsv.gz; 67 spots read; " in page.text
    assert "image: C3_crop.jpg" in page.text and "genes are measured" in page.text
    code, _, err = run_report_command(
        monkeypatch, capsys, crop / "C3_crop.jpg", "--genes", "NOPE", "-o", out
    )
    assert code == 2 and "NOPE is not among the 250 genes" in err
    code, _, err = run_report_command(monkeypatch, capsys, crop / "C3_crop.jpg", "-o", out)
    assert code == 2 and "give it with --mpp" in err
    code, _, err = run_report_command(
        monkeypatch, capsys, "--section", f"{data_dir / 'her2st'}:X9", "-o", out
    )
    assert code == 2 and "has no section X9" in err
    code, _, err = run_report_command(monkeypatch, capsys, "-o", out)
    assert code == 2 and "Give a slide" in err


def test_page_prints(tmp_path, slide: Slide, inputs) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    write_page(tmp_path / "page.html", slide, inputs)
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'own'}"]
    printed = tmp_path / "page.pdf"
    page = (tmp_path / "page.html").as_uri()
    done = subprocess.run(
        [browser, *options, f"--print-to-pdf={printed}", page], capture_output=True, timeout=90
    )
    assert done.returncode == 0 and printed.read_bytes().startswith(b"%PDF")
