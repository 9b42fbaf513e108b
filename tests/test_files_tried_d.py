"""Files that are skipped are named, with the reason."""

from __future__ import annotations

import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from napari_dkan.batch.job_list import build_job_list
from napari_dkan.batch.slide_job import SlideJob
from napari_dkan.errors import SpotsError
from napari_dkan.export.export_formats import write_result
from napari_dkan.expression.readers.discovery import find_sections, read_sections
from napari_dkan.expression.readers.layouts.h5ad_sections import read_h5ad_section
from napari_dkan.expression.readers.read_account import account_of

from .known_section import CONTAINERS, KnownSection
from .result_files import result

ROOT = Path(__file__).resolve().parent.parent


def write_section(path: Path) -> Path:
    data = anndata.AnnData(
        np.ones((4, 2), np.float32),
        obs=pd.DataFrame(index=list("abcd")),
        var=pd.DataFrame(index=["ERBB2", "GATA3"]),
        obsm={"spatial": np.array([[0, 0], [0, 9], [9, 0], [9, 9.0]])},
    )
    data.write_h5ad(path)
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("B2.rds", "it is an R object; write it as h5ad"),
        ("B2.h5Seurat", "it is a Seurat file; write it as h5ad"),
        ("B2.loom", "it is a loom file; write it as h5ad"),
        ("._A1.h5ad", "its name begins with a dot"),
    ],
)
def test_skipped_file_beside_sections_is_named(tmp_path: Path, name: str, reason: str) -> None:
    write_section(tmp_path / "A1.h5ad")
    (tmp_path / name).write_bytes(b"x")
    (data,) = read_sections(tmp_path)
    assert account_of(data).notes[-1] == f"{name} was skipped: {reason}"


def test_sections_of_a_second_layout_are_named(tmp_path: Path) -> None:
    (tmp_path / "st").mkdir()
    write_section(tmp_path / "st" / "T1.h5ad")
    write_section(tmp_path / "A1.h5ad")
    (data,) = read_sections(tmp_path)
    assert data.uns["section"] == "T1"
    assert "A1 (h5ad) was skipped: the folder is read as HEST-1k" in account_of(data).notes


@pytest.mark.parametrize("layout", ["h5ad", "HEST", "SpatialData", "10x h5"])
@pytest.mark.parametrize("suffix", [".h5ad", ".spatialdata.zarr"])
def test_predictions_are_no_sections(tmp_path: Path, layout: str, suffix: str) -> None:
    root = CONTAINERS[layout](KnownSection(), tmp_path)
    root = tmp_path if layout in ("h5ad", "SpatialData") else root
    folder = root / "st" if layout == "HEST" and suffix == ".h5ad" else root
    saved = folder / f"measured{suffix}"  # the content decides, not the name
    write_result(saved, result())
    (data,) = read_sections(root)
    assert data.uns["section"] == "s"
    reason = "it is a prediction that napari-dkan saved, and not measured"
    assert f"{saved.name} was skipped: {reason}" in account_of(data).notes
    with pytest.raises(SpotsError, match=f"holds no sections.*{saved.name} was skipped: {reason}"):
        find_sections(saved)
    if suffix == ".h5ad":
        with pytest.raises(SpotsError, match=f"{saved.name} has no counts: {reason}"):
            read_h5ad_section(saved)


def test_subfolder_without_counts_is_named(tmp_path: Path) -> None:
    for name in ("S1", "S2"):
        (tmp_path / name / "outs").mkdir(parents=True)
    (tmp_path / "S1/outs/filtered_feature_bc_matrix.h5").touch()
    (entry,) = find_sections(tmp_path)
    with pytest.raises(SpotsError, match="spatial"):  # the note does not hide what is wrong
        entry.read()
    from napari_dkan.expression.readers.skipped_files import describe_skipped

    assert describe_skipped(tmp_path, [entry]) == (
        "S2 was skipped: it has no filtered_feature_bc_matrix of Space Ranger",
    )


def test_folder_without_sections_says_what_is_in_it(tmp_path: Path) -> None:
    for name in ("a.rds", "counts.tsv.gz", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(SpotsError) as error:
        find_sections(tmp_path)
    assert "a.rds was skipped: it is an R object" in str(error.value)
    assert "counts.tsv.gz was skipped: it is no section by itself" in str(error.value)
    assert "notes.txt" not in str(error.value)
    for i in range(9):
        (tmp_path / f"b{i}.rds").touch()
    with pytest.raises(SpotsError, match="6 more were skipped"):
        find_sections(tmp_path)


def test_batch_names_the_files_that_are_no_slides(tmp_path: Path, tiny_slide_file: Path) -> None:
    (tmp_path / "s.tif").write_bytes(tiny_slide_file.read_bytes())
    for name in ("b.txt", "a.xlsx"):
        (tmp_path / name).write_text("x")
    jobs = build_job_list([str(tmp_path)], tmp_path / "out", SlideJob("", tmp_path / "out"))
    assert len(jobs.jobs) == 1
    assert jobs.notes == (f"{tmp_path}: 2 files are no slide and left out (a.xlsx, b.txt).",)


def test_every_kind_on_the_page_has_a_test() -> None:
    page = (ROOT / "docs/files-tried.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    rows = [line for line in page.splitlines() if re.match(r"\|(?! kind | \| test |---)", line)]
    assert len(named) == len(rows) > 30
    for file, name in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^ *(def|class) {name}\b", text, re.MULTILINE), f"{file}::{name}"
