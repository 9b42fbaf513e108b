"""Pixel sizes that contradict each other: refused by name, and decided by the one entered."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from napari_dkan.cli import main
from napari_dkan.errors import SlideError, SpotsError
from napari_dkan.expression.readers.discovery import read_sections
from napari_dkan.inference.section_choices import SectionChoices
from napari_dkan.inference.section_pixel_size import section_size_claims
from napari_dkan.model import load_checkpoint
from napari_dkan.samples.bundled_checkpoints import find_bundled_checkpoint
from napari_dkan.slide import PixelSize, open_slide
from napari_dkan.slide.pixel_size import ENTERED_ORIGINS, SizeClaim, resolve_pixel_size

from .section_files import write_tenx
from .slide_files import ome_zarr, picture

# What is read is looked at, not what is predicted.
pytestmark = pytest.mark.usefixtures("tiny_bundled_checkpoint")


TRUE_MPP = 2.0  # by the array: 100 um are 50 px
BOTH = r"The pixel sizes of \S+ disagree: 0\.2 um/px \(.+\) and 2 um/px \(spot array\); .*--mpp"

sizes = st.floats(0.06, 19)


class TestRule:
    @given(sizes, sizes)
    def test_two_sizes_agree_within_a_tenth(self, a, b):
        def resolve(entered=None):
            claims = [SizeClaim(b, "spot array")]
            return resolve_pixel_size("x.tif", PixelSize(a, "TIFF resolution"), claims, entered)

        if max(a, b) <= 1.1 * min(a, b):
            assert resolve() == PixelSize(a, "TIFF resolution")
        else:
            with pytest.raises(SlideError, match=r"TIFF resolution.*spot array.*--mpp"):
                resolve()
        assert resolve(0.5) == PixelSize(0.5, "entered by hand")

    @given(sizes, sizes, st.sampled_from(ENTERED_ORIGINS))
    def test_a_size_that_was_entered_decides(self, a, b, origin):
        claims = [SizeClaim(b, "spot array")]
        assert resolve_pixel_size("x", PixelSize(a, origin), claims) == PixelSize(a, origin)
        claims = [SizeClaim(a, origin), SizeClaim(b, "spot array")]
        assert resolve_pixel_size("x", None, claims) == PixelSize(a, origin)

    @given(sizes)
    def test_an_estimate_is_replaced(self, a):
        estimate, claims = PixelSize(0.5, "objective power"), [SizeClaim(a, "spot array")]
        assert resolve_pixel_size("x", estimate, claims) == PixelSize(a, "spot array")
        assert resolve_pixel_size("x", estimate) == estimate

    def test_origins_of_readers_and_slides_are_the_same(self):
        from napari_dkan.expression.readers.metadata import entered_origin

        assert all(entered_origin({"mpp_origin": origin}) == origin for origin in ENTERED_ORIGINS)

    @pytest.mark.parametrize(
        ("words", "match"),
        [
            (["x"], "takes 0.5 or NAME=0.5, not x"),
            (["0.5", "0.6"], "twice for all sections"),
            (["A=0.5", "A=0.6"], "twice for A"),
            (["A=300"], "cannot be right"),
        ],
    )
    def test_wrong_words(self, words, match):
        with pytest.raises((SpotsError, SlideError), match=match):
            SectionChoices.parse(words)

    def test_a_section_that_is_not_there_is_named(self):
        entered = SectionChoices.parse(["0.5", "A=0.6"])
        assert (entered.mpp.default, entered.mpp.by_section) == (0.5, {"A": 0.6})
        with pytest.raises(SpotsError, match="--mpp names A; the sections are B, C"):
            entered.check_names(["B", "C"])


def hexagonal() -> tuple[pd.DataFrame, np.ndarray]:
    """Array coordinates and positions of a Visium array at 2 um/px on a slide of 512 px."""
    row, column = np.mgrid[0:9, 0:18]
    on = (row + column) % 2 == 0
    row, column = row[on], column[on]
    xy = np.column_stack([40 + column * 25.0, 40 + row * 50.0 * np.sqrt(3) / 2])
    names = [f"{'ACGT'[i % 4]}{i:03d}-1" for i in range(len(row))]
    return pd.DataFrame({"array_row": row, "array_col": column}, index=names), xy


def write_image(folder: Path, kind: str, mpp: float | None = 0.2) -> Path:
    """A slide whose file states this pixel size."""
    pixels = picture(512, 512)
    if kind == "zarr":
        path = ome_zarr(folder / "S.zarr", [pixels], version="0.4")
        settings = json.loads((path / ".zattrs").read_text())
        scale = settings["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]
        scale["scale"] = [mpp, mpp, 1.0]
        (path / ".zattrs").write_text(json.dumps(settings))
        return path
    path = folder / ("S.ome.tif" if kind == "ome-tiff" else "S.tif")
    if kind == "ome-tiff":
        metadata = {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
        tifffile.imwrite(path, pixels, photometric="rgb", metadata=metadata)
    else:
        resolution = {} if mpp is None else {"resolution": (1e4 / mpp,) * 2}
        tifffile.imwrite(
            path, pixels, photometric="rgb", metadata=None, resolutionunit="CENTIMETER",
            **resolution,
        )  # fmt: skip
    return path


def write_section(folder: Path, kind: str, stated: float | None = None) -> tuple[Path, Path | None]:
    """Counts, and spots where they are apart, of a section with the bundled panel's genes."""
    obs, xy = hexagonal()
    genes = load_checkpoint(find_bundled_checkpoint("her2-breast")).panel.symbols
    counts = np.random.default_rng(0).poisson(3, (len(obs), len(genes))).astype(np.float32) + 1
    if kind == "h5ad":
        data = anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=list(genes)))
        data.obsm["spatial"] = xy
        if stated is not None:
            data.uns["mpp"] = stated
        data.write_h5ad(folder / "S.h5ad")
        return folder / "S.h5ad", None
    write_tenx(folder / "filtered_feature_bc_matrix.h5", counts, list(obs.index), list(genes))
    (folder / "spatial").mkdir()
    table = obs.assign(in_tissue=1, pxl_row_in_fullres=xy[:, 1], pxl_col_in_fullres=xy[:, 0])
    table.insert(0, "in_tissue", table.pop("in_tissue"))
    positions = folder / "spatial" / "tissue_positions.csv"
    table.to_csv(positions, index_label="barcode")
    if stated is not None:
        factors = {"microns_per_pixel": stated}
        (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    return folder / "filtered_feature_bc_matrix.h5", positions


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command in this process: (exit code, stderr)."""

    def run(*arguments) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["napari-dkan", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        return exit.value.code or 0, capsys.readouterr().err

    return run


def refused(outcome: tuple[int, str], match: str = BOTH) -> bool:
    import re

    code, err = outcome
    assert code and re.search(match, " ".join(err.split())), err
    assert "Traceback" not in err
    return True


class TestCommands:
    @pytest.mark.parametrize("image", ["tiff", "ome-tiff", "zarr"])
    @pytest.mark.parametrize("section", ["h5ad", "space ranger"])
    def test_evaluate(self, image, section, call, tmp_path):
        path = write_image(tmp_path, image)
        counts, spots = write_section(tmp_path, section)
        files = ["--counts", counts, *([] if spots is None else ["--spots", spots])]
        out = tmp_path / "e.json"
        assert refused(call("evaluate", "--image", path, *files, "-o", out))
        assert not out.exists()

    @pytest.mark.parametrize("section", ["h5ad", "space ranger"])
    def test_what_the_section_states_counts_too(self, section, call, tmp_path):
        path = write_image(tmp_path, "tiff", None)
        counts, spots = write_section(tmp_path, section, stated=0.2)
        files = ["--counts", counts, *([] if spots is None else ["--spots", spots])]
        assert refused(call("evaluate", "--image", path, *files, "-o", tmp_path / "e.json"))

    def test_report(self, call, tmp_path):
        path = write_image(tmp_path, "tiff")
        counts, _ = write_section(tmp_path, "h5ad")
        out = tmp_path / "r.html"
        assert refused(call("report", "--image", path, "--counts", counts, "-o", out))

    @pytest.mark.parametrize("section", ["h5ad", "space ranger"])
    def test_predict_at_spots(self, section, call, tmp_path):
        path = write_image(tmp_path, "tiff")
        counts, spots = write_section(tmp_path, section, stated=TRUE_MPP)
        outcome = call("predict", path, "--spots", spots or counts, "-o", tmp_path / "p.h5ad")
        assert refused(outcome, r"disagree: 0\.2 um/px \(TIFF resolution\) and 2 um/px")

    @pytest.mark.parametrize("section", ["h5ad", "space ranger"])
    @pytest.mark.parametrize("command", ["finetune", "crossval"])
    def test_training(self, section, command, call, tmp_path):
        folder = tmp_path / "data" if section == "h5ad" else tmp_path / "data" / "S"
        folder.mkdir(parents=True)
        write_image(folder, "tiff")
        write_section(folder, section)
        panel = tmp_path / "panel.txt"
        symbols = load_checkpoint(find_bundled_checkpoint("her2-breast")).panel.symbols
        panel.write_text("\n".join(symbols))
        more = ["--panel", panel] if command == "crossval" else []
        outcome = call(command, "--data", tmp_path / "data", "-o", tmp_path / "out.json", *more)
        assert refused(outcome)
        assert "NAME=UM" in " ".join(outcome[1].split())

    def test_one_that_is_entered_decides(self, call, tmp_path):
        path = write_image(tmp_path, "tiff")
        counts, _ = write_section(tmp_path, "h5ad")
        out = tmp_path / "e.json"
        code, err = call(
            "evaluate", "--image", path, "--counts", counts, "--mpp", 2.0, "-o", out
        )  # fmt: skip
        assert code == 0, err
        report = json.loads(out.read_text())
        assert (report["mpp"], report["mpp_origin"]) == (2.0, "entered by hand")


class TestSections:
    def test_the_array_is_kept_where_it_contradicts(self, tmp_path):
        write_section(tmp_path, "h5ad", stated=0.2)
        (data,) = read_sections(tmp_path)
        assert section_size_claims(data.uns) == [
            SizeClaim(0.2, "h5ad metadata"),
            SizeClaim(pytest.approx(TRUE_MPP, rel=0.01), "spot array"),
        ]

    def test_entered_sizes_reach_the_section(self, tmp_path):
        from napari_dkan.training.data.section_loading import read_section_data

        write_section(tmp_path, "h5ad", stated=0.2)
        (data,) = read_section_data(tmp_path, None, SectionChoices.parse(["S=1.9"]))
        assert (data.uns["mpp"], data.uns["mpp_origin"]) == (1.9, "entered by hand")

    def test_a_file_of_a_size_that_was_entered_is_not_refused(self, tmp_path):
        path, _ = write_section(tmp_path, "h5ad", stated=0.2)
        data = anndata.read_h5ad(path)
        data.uns["mpp_origin"] = "entered by hand"
        data.write_h5ad(path)
        (read,) = read_sections(tmp_path)
        with open_slide(write_image(tmp_path, "tiff", 0.5)) as slide:
            claims = section_size_claims(read.uns)
            size = resolve_pixel_size(slide.label, slide.pixel_size, claims)
        assert size == PixelSize(0.2, "entered by hand")

    def test_her2st_agrees_with_itself(self, data_dir):
        crop = data_dir / "her2st" / "crop"
        from napari_dkan.expression.readers.single_section import read_stated_mpp

        mpp, origin = read_stated_mpp(crop / "C3_crop_selection.tsv")
        assert (mpp, origin) == (pytest.approx(0.6874, rel=0.02), "spot array")
        sections = read_sections(data_dir / "her2st")
        assert sections and all("mpp_array" not in data.uns for data in sections)
