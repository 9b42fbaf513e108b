"""What a reader says about what it read, left out and chose."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from napari_dkan.batch.predict_slide import predict_slide
from napari_dkan.batch.slide_job import SlideJob
from napari_dkan.cli import app, main
from napari_dkan.expression.readers.read_account import ReadAccount, account_of, set_account
from napari_dkan.expression.readers.single_section import read_single_section
from napari_dkan.model import load_checkpoint
from napari_dkan.samples.bundled_checkpoints import find_bundled_checkpoint

from .slide_files import picture
from .test_files_tried_pixel_sizes import TRUE_MPP, write_image, write_section
from .test_files_tried_slides import write_ome_tiff

TEXTS = st.text(st.characters(exclude_characters="/", exclude_categories=("C",)), min_size=1)
LEFT_OUT = st.dictionaries(TEXTS, st.integers(1, 10**9)).map(lambda d: tuple(d.items()))
ACCOUNTS = st.builds(
    ReadAccount,
    file=TEXTS,
    spots_read=st.integers(0, 10**6),
    spots_left_out=LEFT_OUT,
    genes_read=st.integers(0, 10**6),
    genes_left_out=LEFT_OUT,
    image=TEXTS,
    image_among=st.lists(TEXTS, max_size=3).map(tuple),
    notes=st.lists(TEXTS, max_size=3, unique=True).map(tuple),
)


@given(ACCOUNTS)
def test_account_survives_json(account: ReadAccount) -> None:
    assert ReadAccount.from_dict(json.loads(json.dumps(account.to_dict()))) == account
    assert account.merge(ReadAccount()) == ReadAccount().merge(account) == account


def test_account_survives_h5ad(tmp_path: Path) -> None:
    account = (
        ReadAccount("a.h5", 3, mpp=0.5, mpp_origin="scale factors")
        .leave_out_spots("not in tissue", 2)
        .leave_out_spots("not in tissue", 1)
        .leave_out_genes("of type CRISPR/Guide", 4)
        .leave_out_genes("of type Custom", 0)
        .add_note("one", "", "one")
    )
    assert account.spots_left_out == (("not in tissue", 3),)
    assert account.genes_left_out == (("of type CRISPR or Guide", 4),)
    assert account.notes == ("one",)
    for kept in (account, ReadAccount()):
        data = anndata.AnnData(np.zeros((1, 1), np.float32))
        set_account(data, kept)
        data.write_h5ad(tmp_path / "a.h5ad")
        assert account_of(anndata.read_h5ad(tmp_path / "a.h5ad")) == kept
    assert account_of(anndata.AnnData(np.zeros((1, 1), np.float32))) == ReadAccount()


def test_merged_accounts_keep_what_the_first_states() -> None:
    first = ReadAccount("a", image="a.tif", spots_left_out=(("off", 1),), notes=("x",))
    second = ReadAccount("b", 5, (("off", 2), ("twice", 1)), mpp=0.5, mpp_origin="b", notes=("y",))
    merged = first.merge(second)
    assert merged == ReadAccount(
        "a", 5, (("off", 3), ("twice", 1)), 0, (), 0.5, "b", "a.tif", (), ("x", "y")
    )


def test_account_is_told_in_lines() -> None:
    account = ReadAccount(
        "a.h5",
        1,
        (("not in tissue", 12),),
        3,
        (("of type Antibody Capture", 2),),
        0.5,
        "TIFF tags",
        "a.tif",
        ("a.tif", "b.tif"),
        ("c.h5 was skipped: damaged",),
    )
    assert account.lines() == (
        "read: a.h5",
        "1 spot read; left out: 12 not in tissue",
        "3 genes read; left out: 2 of type Antibody Capture",
        "pixel size: 0.5 um (TIFF tags)",
        "image: a.tif (of 2: a.tif, b.tif)",
        "note: c.h5 was skipped: damaged",
    )
    assert ReadAccount().lines() == ()
    assert ReadAccount(spots_left_out=(("not in tissue", 2),)).lines() == (
        "0 spots read; left out: 2 not in tissue",
    )


def test_section_accounts_for_its_spots(tmp_path: Path) -> None:
    (tmp_path / "counts.csv").write_text(",ERBB2,ERBB2,GAPDH\na,1,2,3\nb,1,0,2\nc,0,1,1\n")
    (tmp_path / "spots.csv").write_text("id,x,y\na,100,100\nd,200,100\n")
    data = read_single_section(None, tmp_path / "counts.csv", tmp_path / "spots.csv")
    account = account_of(data)
    assert (account.spots_read, account.genes_read) == (1, 2) == data.shape
    assert dict(account.spots_left_out) == {"without counts": 1, "with counts but no position": 2}
    assert account.file == str(tmp_path / "counts.csv") and account.mpp is None
    assert account.notes == ("1 gene was added to another of the same symbol",)


@pytest.mark.usefixtures("tiny_bundled_checkpoint")
def test_command_prints_what_it_read(tmp_path, data_dir, capsys, monkeypatch) -> None:
    crop = data_dir / "her2st/crop"
    report = tmp_path / "report.json"
    arguments = [
        "evaluate", "--image", crop / "C3_crop.jpg", "--counts", crop / "C3_crop.tsv.gz",
        "--spots", crop / "C3_crop_selection.tsv", "-o", report,
    ]  # fmt: skip
    said = {}
    for name, extra in (("quiet", []), ("verbose", ["-v"])):
        monkeypatch.setattr(sys, "argv", ["napari-dkan", *map(str, arguments), *extra])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        said[name] = capsys.readouterr().err
    assert "spots read" not in said["quiet"]
    assert "67 spots read" in said["verbose"] and said["verbose"].count("spots read") == 1
    assert "slide: C3_crop.jpg, " in said["verbose"]
    account = ReadAccount.from_dict(json.loads(report.read_text())["read_account"])
    assert account.spots_read == 67 and account.image == "C3_crop.jpg" and account.mpp
    assert account.file == "C3_crop.tsv.gz"
    assert any("genes are measured" in note for note in account.notes)


READING_COMMANDS = (
    *("predict", "batch", "train", "crossval", "evaluate", "report"),
    *("zeroshot", "reference", "finetune"),
)


def test_every_command_that_reads_has_verbose() -> None:
    runner = CliRunner()
    for name in READING_COMMANDS:
        help_text = runner.invoke(app, [name, "--help"], env={"COLUMNS": "200"}).stdout
        assert "--verbose" in help_text and "-v" in help_text


def test_result_keeps_what_was_read(tiny_slide_file, tiny_checkpoint_file, tmp_path) -> None:
    spots = tmp_path / "spots.csv"
    spots.write_text("# R\nid,x,y,selected\na,300,300,1\nb,500,500,1\nc,700,700,0\n")
    job = SlideJob(
        str(tiny_slide_file), tmp_path / "out.h5ad", checkpoint=tiny_checkpoint_file, spots=spots
    )
    predict_slide(job)
    account = account_of_result(tmp_path / "out.h5ad")
    assert account.file == "spots.csv" and account.spots_read == 2 and account.mpp == 0.7
    assert account.notes == ("spots.csv: 1 comment line was skipped",)


def test_result_without_spots_keeps_what_was_read(tiny_checkpoint_file, tmp_path) -> None:
    path = write_ome_tiff(tmp_path / "a.ome.tif", scan=picture(900, 900))
    regions = tmp_path / "regions.geojson"
    ring = [[40, 30], [340, 30], [340, 330], [40, 330], [40, 30]]
    regions.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    job = SlideJob(
        str(path), tmp_path / "out.h5ad", checkpoint=tiny_checkpoint_file, tissue_only=False,
        regions=regions, store=False, device="cpu",
    )  # fmt: skip
    predict_slide(job)
    assert account_of_result(job.out).lines() == (
        "read: a.ome.tif",
        "pixel size: 0.5 um (OME metadata)",
        "image: a.ome.tif, image tissue (of 2: macro image, tissue)",
        "note: predicted inside the regions of regions.geojson",
    )


def call_main(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["napari-dkan", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code


def test_trained_checkpoints_and_reports_keep_what_was_read(tmp_path, monkeypatch, capsys) -> None:
    image = write_image(tmp_path, "tiff", TRUE_MPP)
    counts, _ = write_section(tmp_path, "h5ad")
    panel = tmp_path / "panel.txt"
    symbols = load_checkpoint(find_bundled_checkpoint("her2-breast")).panel.symbols
    panel.write_text("\n".join(symbols[:4]))
    trained, tuned = tmp_path / "t.safetensors", tmp_path / "f.safetensors"
    said = {}
    for name, arguments in {
        "train": ["--data", counts, "--panel", panel, "--no-crossval", "--epochs", 1,
                  "-o", trained],
        "finetune": ["--data", counts, "--checkpoint", trained, "--epochs", 1, "-o", tuned,
                     "--report", tmp_path / "f.json"],
        "evaluate": ["--image", image, "--counts", counts, "--checkpoint", tuned,
                     "--train-data", counts, "-o", tmp_path / "e.json"],
    }.items():  # fmt: skip
        call_main(monkeypatch, name, *arguments, "-v")
        said[name] = capsys.readouterr().err
    assert "S.h5ad on S.tif: pixel size: 2 um (TIFF resolution); image" in said["evaluate"]
    assert "entered by hand" not in said["evaluate"]
    fit = "pixel size: 2 um (spot array); image: S.tif"  # a section's own comes first
    for name in ("train", "finetune"):
        assert f"S.h5ad on S.tif: {fit}" in said[name] and "81 spots read" in said[name]
    accounts = [
        load_checkpoint(trained).card["training_data"]["read_accounts"],
        load_checkpoint(tuned).card["fine_tuning"]["read_accounts"],
        json.loads((tmp_path / "f.json").read_text())["read_accounts"],
        json.loads((tmp_path / "e.json").read_text())["train_read_accounts"],
    ]
    for by_section in accounts:
        account = ReadAccount.from_dict(by_section["S"])
        assert (account.file, account.spots_read, account.mpp_origin, account.image) == (
            "S.h5ad", 81, "spot array", "S.tif",
        )  # fmt: skip
    tuned_on = ReadAccount.from_dict(accounts[1]["S"])
    assert "4 of the checkpoint's 4 genes are measured" in tuned_on.notes
    call_main(monkeypatch, "info", trained)
    shown = capsys.readouterr().out
    assert "file: S.h5ad; spots read: 81; genes read: 250; mpp: 2; mpp origin: spot array" in shown
    assert str(tmp_path) not in json.dumps(accounts)


def test_page_of_a_slide_says_what_was_read(
    tiny_slide_file, tiny_checkpoint_file, tmp_path, monkeypatch, capsys
) -> None:
    out = tmp_path / "r.html"
    call_main(
        monkeypatch,
        "report",
        tiny_slide_file,
        "--checkpoint",
        tiny_checkpoint_file,
        "-o",
        out,
        "-v",
    )
    lines = f"pixel size: 0.7 um (OME metadata); image: {tiny_slide_file.name}"
    assert lines in capsys.readouterr().err
    assert f"read: {tiny_slide_file.name}; {lines}" in out.read_text()


def account_of_result(path: Path) -> ReadAccount:
    return ReadAccount.from_dict(anndata.read_h5ad(path).uns["napari_dkan"]["read_account"])


def test_slide_of_an_account_states_the_image_among_others() -> None:
    account = ReadAccount("a.h5", image="/x/a.tif", mpp=1.0, mpp_origin="spot array")
    told = account.take_slide("s.zarr", 0.5, "OME metadata", "scan", ["macro", "scan"]).lines()
    assert told[-2:] == (
        "pixel size: 0.5 um (OME metadata)",
        "image: s.zarr, image scan (of 2: macro, scan)",
    )
    assert account.take_slide("s.tif", None, "", "", ()).lines()[-1] == "image: s.tif"
