"""The slide of a measured section: which image of its file, in which frame, and micrometres."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_dkan.errors import SpotsError
from napari_dkan.expression.readers.single_section import read_single_section
from napari_dkan.inference.section_choices import SectionChoices, open_section_slide
from napari_dkan.inference.section_pixel_size import find_qupath_mpp
from napari_dkan.model import load_checkpoint
from napari_dkan.samples.bundled_checkpoints import find_bundled_checkpoint
from napari_dkan.slide import PixelSize
from napari_dkan.training.data.section_loading import read_section_data

from . import vendor_files
from .slide_files import halves, picture
from .test_files_tried_pixel_sizes import (
    TRUE_MPP,
    call,  # noqa: F401  (a fixture)
    hexagonal,
    refused,
    write_image,
    write_section,
)

# What is read is looked at, not what is predicted.
pytestmark = pytest.mark.usefixtures("tiny_bundled_checkpoint")


CORNER = (100, 60)  # of the scan area on the glass


def write_several_images(folder: Path) -> Path:
    """An OME-TIFF whose largest image is another section at another pixel size."""
    path = folder / "S.ome.tif"
    images = (("section A", picture(800, 900, seed=1), 1.0), ("section B", picture(512, 512), 2.0))
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, pixels, mpp in images:
            size = {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            metadata = {"Name": name, **size}
            writer.write(pixels, photometric="rgb", tile=(64, 64), metadata=metadata)
    return path


def write_scn(folder: Path) -> Path:
    levels = halves(picture(512, 512), 2)
    return vendor_files.scn(folder / "S.scn", levels, TRUE_MPP, 20, CORNER, (40, 30))


def move_spots(path: Path, by: tuple[int, int]) -> Path:
    data = anndata.read_h5ad(path)
    data.obsm["spatial"] = data.obsm["spatial"] + np.array(by)
    data.write_h5ad(path)
    return path


def scores(report: Path) -> dict:
    return json.loads(report.read_text())["per_gene_pcc"]


def panel_file(folder: Path) -> Path:
    path = folder / "panel.txt"
    symbols = load_checkpoint(find_bundled_checkpoint("her2-breast")).panel.symbols
    path.write_text("\n".join(symbols))
    return path


class TestImageName:
    def test_evaluate_takes_the_chosen_image(self, call, tmp_path):  # noqa: F811
        image, (counts, _) = write_several_images(tmp_path), write_section(tmp_path, "h5ad")
        out = tmp_path / "e.json"
        files = ["--image", image, "--counts", counts, "-o", out]
        assert refused(call("evaluate", *files), "disagree: 1 um/px")
        code, err = call("evaluate", *files, "--image-name", "section B")
        assert code == 0, err
        account = json.loads(out.read_text())["read_account"]
        assert account["image"].endswith("image section B") and account["mpp"] == 2.0
        code, err = call("evaluate", *files, "--image-name", "C")
        assert code and "no single image C; give one of 0: section A" in " ".join(err.split())

    def test_report_takes_the_chosen_image(self, call, tmp_path):  # noqa: F811
        image, (counts, _) = write_several_images(tmp_path), write_section(tmp_path, "h5ad")
        out = tmp_path / "r.html"
        for source in (["--counts", counts, "--image", image], ["--section", counts]):
            assert refused(call("report", *source, "-o", out), "disagree: 1 um/px")
            code, err = call("report", *source, "--image-name", "1", "-o", out)
            assert code == 0, err
            assert "image section B" in out.read_text()

    def test_finetune_takes_the_image_chosen_for_a_section(self, call, tmp_path):  # noqa: F811
        write_several_images(tmp_path)
        counts, _ = write_section(tmp_path, "h5ad")
        arguments = ["finetune", "--data", counts, "--epochs", 1, "-o", tmp_path / "o.safetensors"]
        assert refused(call(*arguments), "disagree: 1 um/px")
        code, err = call(*arguments, "--image-name", "S=1")
        assert code == 0, err
        code, err = call(*arguments, "--image-name", "T=1")
        assert code and "--image-name names T; the sections are S" in " ".join(err.split())

    def test_train_takes_the_chosen_image(self, call, tmp_path):  # noqa: F811
        write_several_images(tmp_path)
        counts, _ = write_section(tmp_path, "h5ad")
        arguments = [
            "train", "--data", counts, "--no-crossval", "--epochs", 1, "--panel",
            panel_file(tmp_path), "-o", tmp_path / "o.safetensors",
        ]  # fmt: skip
        assert refused(call(*arguments), "disagree: 1 um/px")
        code, err = call(*arguments, "--image-name", "section B")
        assert code == 0, err
        command = load_checkpoint(tmp_path / "o.safetensors").card["command"]
        assert "--image-name section B" in command


class TestWholeGlass:
    def test_evaluate_finds_the_spots_in_both_frames(self, call, tmp_path):  # noqa: F811
        image, (counts, _) = write_scn(tmp_path), write_section(tmp_path, "h5ad")
        files = ["--image", image, "--counts", counts]
        assert call("evaluate", *files, "-o", tmp_path / "scan.json")[0] == 0
        move_spots(counts, CORNER)
        options = ["--whole-glass", "-o", tmp_path / "glass.json"]
        assert call("evaluate", *files, *options)[0] == 0
        assert refused(
            call("evaluate", *files, "-o", tmp_path / "wrong.json"), "13 of 81 spots lie outside"
        )
        assert refused(
            call("evaluate", *files, "-o", tmp_path / "wrong.json"),
            "if they count from the corner of the glass: open the slide with --whole-glass",
        )
        scan, glass = (
            np.array([v["dkan"] for v in scores(tmp_path / f"{name}.json").values()], float)
            for name in ("scan", "glass")
        )
        # Not equal: tiles beside the scan are off the slide in one frame, white in the other.
        assert np.corrcoef(scan, glass)[0, 1] > 0.9

    @pytest.mark.parametrize("whole_glass", [False, True])
    def test_sections_are_opened_in_the_frame_that_is_chosen(self, whole_glass, tmp_path):
        write_scn(tmp_path)
        write_section(tmp_path, "h5ad")
        choices = SectionChoices(whole_glass=whole_glass)
        (data,) = read_section_data(tmp_path, None, choices)
        with open_section_slide(data.uns) as slide:
            assert slide.scan_origin == (CORNER if whole_glass else (0, 0))

    def test_finetune_on_the_glass(self, call, tmp_path):  # noqa: F811
        """Without the option, spots of the glass lie off the scan area."""
        write_scn(tmp_path)
        counts, _ = write_section(tmp_path, "h5ad")
        move_spots(counts, CORNER)
        arguments = ["finetune", "--data", counts, "--epochs", 1, "-o", tmp_path / "o.safetensors"]
        assert refused(
            call(*arguments),
            r"spots of S lie off its image \(512 x 512 px\); they fit if they count from the "
            "corner of the glass: give --whole-glass",
        )
        code, err = call(*arguments, "--whole-glass")
        assert code == 0, err


def write_qupath(path: Path, unit: str, mpp: float) -> Path:
    """The spots as QuPath exports detections."""
    obs, xy = hexagonal()
    table = pd.DataFrame({"Image": "S.tif", "Name": obs.index})
    table[f"Centroid X {unit}"], table[f"Centroid Y {unit}"] = (xy * mpp).T
    table = table.assign(array_row=obs.array_row.to_numpy(), array_col=obs.array_col.to_numpy())
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    elif path.suffix == ".xlsx":
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, index=False, sep="\t", encoding="utf-8")
    return path


class TestMicrometres:
    """QuPath's centroids in um are px times the pixel size that the file states."""

    @pytest.mark.parametrize(
        ("command", "name"),
        [
            *(("evaluate", name) for name in ("q.tsv.gz", "q.parquet")),
            ("report", "q.xlsx"),
            ("predict", "q.tsv"),
        ],
    )
    def test_the_pixel_size_of_the_slide_converts_them(self, name, command, call, tmp_path):  # noqa: F811
        image = write_image(tmp_path, "tiff", TRUE_MPP)
        counts, _ = write_section(tmp_path, "space ranger")
        spots = write_qupath(tmp_path / name, "µm", TRUE_MPP)
        outcome = run(call, command, image, counts, spots, tmp_path)
        assert outcome[0] == 0, outcome[1]
        if command == "evaluate":
            account = json.loads((tmp_path / "out").read_text())["read_account"]
            assert any("divided by 2 um/px" in note for note in account["notes"])
            assert (account["spots_read"], account["mpp"]) == (81, 2.0)

    @pytest.mark.parametrize("command", ["evaluate", "report", "predict"])
    def test_without_one_it_is_entered(self, command, call, tmp_path):  # noqa: F811
        image = write_image(tmp_path, "tiff", None)
        counts, _ = write_section(tmp_path, "space ranger")
        spots = write_qupath(tmp_path / "q.tsv", "µm", TRUE_MPP)
        outcome = run(call, command, image, counts, spots, tmp_path)
        assert refused(outcome, r"in micrometres \(Centroid X µm\).* states no pixel size .*--mpp")
        code, err = run(call, command, image, counts, spots, tmp_path, "--mpp", TRUE_MPP)
        assert code == 0, err

    def test_the_size_of_the_file_counts_and_not_the_entered_one(self):
        stated = PixelSize(0.5, "OME metadata")
        assert find_qupath_mpp(stated, 0.25) == find_qupath_mpp(stated, None) == 0.5
        assert find_qupath_mpp(None, 0.25) == 0.25 and find_qupath_mpp(None, None) is None
        assert find_qupath_mpp(PixelSize(0.5, "objective power"), 0.25) == 0.25

    @pytest.mark.parametrize("stated", [None, TRUE_MPP])
    def test_columns_of_an_h5ad(self, stated, tmp_path):
        counts, _ = write_section(tmp_path, "h5ad", stated=stated)
        data = anndata.read_h5ad(counts)
        xy = data.obsm["spatial"].copy()
        data.obsm["spatial"] = pd.DataFrame(
            xy[:, ::-1] * TRUE_MPP, index=data.obs_names,
            columns=["Centroid Y µm", "Centroid X µm"],
        )  # fmt: skip
        data.write_h5ad(counts)
        if stated is None:
            with pytest.raises(SpotsError, match=r"in micrometres \(Centroid X µm\)"):
                read_single_section(None, counts)
        read = read_single_section(None, counts, mpp=None if stated else TRUE_MPP)
        assert np.allclose(read.obsm["spatial"], xy)
        assert any("divided by 2 um/px" in note for note in read.uns["read_account"]["notes"])


def run(call, command, image, counts, spots, folder, *options):  # noqa: F811
    files = {
        "evaluate": ["--image", image, "--counts", counts],
        "report": ["--image", image, "--counts", counts],
        "predict": [image, "--genes", "ERBB2"],
    }
    out = folder / ("out.h5ad" if command == "predict" else "out")
    return call(command, *files[command], "--spots", spots, *options, "-o", out)


class TestTrainingSectionsOfEvaluate:
    def files(self, tmp_path: Path) -> list:
        """A slide to score that states no size, and training data that contradicts itself."""
        test, training = tmp_path / "test", tmp_path / "training"
        for folder in (test, training):
            folder.mkdir()
        image = write_image(test, "tiff", None)
        counts, _ = write_section(test, "h5ad", stated=TRUE_MPP)
        write_image(training, "tiff", 0.2)
        write_section(training, "h5ad")
        return [
            "evaluate", "--image", image, "--counts", counts, "--train-data", training,
            "--baseline", "ridge", "-o", tmp_path / "e.json",
        ]  # fmt: skip

    def test_mpp_is_of_the_slide_that_is_scored(self, call, tmp_path):  # noqa: F811
        outcome = call(*self.files(tmp_path), "--mpp", TRUE_MPP)
        assert refused(outcome, r"disagree: 0\.2 .*--train-mpp, or --train-mpp NAME=UM")

    def test_train_mpp_decides(self, call, tmp_path):  # noqa: F811
        code, err = call(*self.files(tmp_path), "--train-mpp", f"S={TRUE_MPP}")
        assert code == 0, err
        assert "ridge" in json.loads((tmp_path / "e.json").read_text())["metrics"]

    def test_train_mpp_names_sections_that_are_there(self, call, tmp_path):  # noqa: F811
        code, err = call(*self.files(tmp_path), "--train-mpp", "T=2")
        assert code and "--train-mpp names T; the sections are S" in " ".join(err.split())

    def test_their_images_and_frames_are_chosen(self, call, tmp_path):  # noqa: F811
        test, training = tmp_path / "test", tmp_path / "training"
        for folder in (test, training):
            folder.mkdir()
        image = write_image(test, "tiff", TRUE_MPP)
        counts, _ = write_section(test, "h5ad")
        write_scn(training)
        move_spots(write_section(training, "h5ad")[0], CORNER)
        out = tmp_path / "e.json"
        files = ["evaluate", "--image", image, "--counts", counts, "-o", out]
        train = ["--train-data", training, "--baseline", "ridge"]
        outcome = call(*files, *train)
        assert refused(outcome, "corner of the glass: give --train-whole-glass")
        code, err = call(*files, *train, "--train-whole-glass")
        assert code == 0, err
        assert "--train-whole-glass" in json.loads(out.read_text())["made"]["command"]
        outcome = call(*files, *train, "--train-image-name", "T=1")
        assert outcome[0] and "--train-image-name names T; the sections are S" in " ".join(
            outcome[1].split()
        )
        code, err = call(*files, "--train-whole-glass")
        assert code and "--train-whole-glass is of the sections of --train-data" in err
