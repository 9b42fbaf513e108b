"""The command line: the same numbers as the panel, and bad input in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import anndata
import numpy as np
import pytest
from shapely.geometry import box, mapping

from napari_dkan.cli import main
from napari_dkan.errors import DkanError
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_region
from napari_dkan.model import describe_checkpoint, load_checkpoint
from napari_dkan.model.checkpoint.checkpoint_header import read_checkpoint_header
from napari_dkan.samples import find_bundled_checkpoint, list_bundled_checkpoints
from napari_dkan.slide import open_slide


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["napari-dkan", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        out = capsys.readouterr()
        return exit.value.code or 0, out.out, out.err

    return call


@pytest.fixture
def refused(run, tmp_path):
    """Run, expecting exit code 2, one sentence on stderr and no file."""

    def call(*arguments):
        before = set(tmp_path.rglob("*"))
        code, _, err = run(*arguments)
        assert code == 2 and "Traceback" not in err
        assert set(tmp_path.rglob("*")) == before
        (line,) = [text for text in err.splitlines() if text.startswith("napari-dkan: ")]
        return line

    return call


def test_predict_writes_an_anndata(run, tiny_slide_file, tiny_checkpoint_file, tmp_path):
    out = tmp_path / "results" / "tissue.h5ad"
    code, said, _ = run(
        "predict", tiny_slide_file, "--checkpoint", tiny_checkpoint_file, "--tissue", "-o", out
    )
    assert code == 0 and str(out) in said
    data = anndata.read_h5ad(out)
    checkpoint = load_checkpoint(tiny_checkpoint_file)
    assert list(data.var_names) == list(checkpoint.panel.symbols)
    assert data.var["gene_ids"]["ERBB2"] == "ENSG00000141736"
    record = data.uns["napari_dkan"]
    assert record["kind"] == "predicted" and record["checkpoint_sha256"] == checkpoint.sha256
    assert record["mpp"] == 0.7 and record["label_scale"] == checkpoint.label_scale.name
    (library,) = data.uns["spatial"].values()
    factors = library["scalefactors"]
    assert factors["spot_diameter_fullres"] == pytest.approx(112 / 0.7)
    picture = library["images"]["hires"]
    with open_slide(tiny_slide_file) as slide:
        assert picture.shape[1] == round(slide.width * factors["tissue_hires_scalef"])
        tissue = find_tissue_region(slide, 0.7)
        predictor = Predictor(slide, checkpoint, 0.7, tissue, "cpu")
        target = target_from_region(tissue, 140.0, 0.7, slide.width, slide.height)
        ours = predict(predictor, target)
    np.testing.assert_allclose(data.X, ours.values, atol=1e-6)  # what the panel calls
    np.testing.assert_array_equal(data.obsm["spatial"], target.spots.xy)
    assert not list(out.parent.glob(".writing-*"))


def test_regions_genes_and_dense_pitch(run, tiny_slide_file, tiny_checkpoint_file, tmp_path):
    regions = tmp_path / "regions.geojson"
    ring = box(50, 50, 1550, 1550) - box(700, 700, 900, 900)
    regions.write_text(json.dumps({"type": "Feature", "geometry": mapping(ring)}))
    sizes = {}
    for pitch in ("training", "dense"):
        out = tmp_path / f"{pitch}.h5ad"
        code, _, _ = run(
            "predict", tiny_slide_file, "--checkpoint", tiny_checkpoint_file,
            "--regions", regions, "--pitch", pitch, "--genes", "HER2, KRT8", "-o", out,
        )  # fmt: skip
        data = anndata.read_h5ad(out)
        assert code == 0 and list(data.var_names) == ["ERBB2", "KRT8"]
        sizes[pitch] = data.n_obs
    assert sizes["dense"] > 1.3 * sizes["training"]


def test_scanpy_draws_a_result_of_a_real_section(run, data_dir, tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    import scanpy

    out = tmp_path / "crop.h5ad"
    crop = data_dir / "her2st/crop"
    code, _, _ = run(
        "predict", crop / "C3_crop.jpg", "--spots", crop / "C3_crop_selection.tsv",
        "--genes", "ERBB2,CD74", "-o", out,
    )  # fmt: skip
    assert code == 0
    data = anndata.read_h5ad(out)
    assert data.n_obs == 67 and "10x" not in str(data.obs_names[0])
    assert data.uns["napari_dkan"]["mpp"] == pytest.approx(0.688, abs=0.01)
    assert data.uns["napari_dkan"]["mpp_origin"] == "spot array"
    with pytest.warns(FutureWarning):
        scanpy.pl.spatial(data, color="ERBB2", show=False)
    dots = matplotlib.pyplot.gcf().axes[0].collections
    matplotlib.pyplot.close("all")
    assert dots


def test_published_checkpoints_are_converted_and_described(run, parity_dir, tmp_path):
    out = tmp_path / "converted.safetensors"
    code, said, _ = run(
        "convert", parity_dir / "official.ckpt", "--genes", parity_dir / "genes.npy",
        "--gene-features", parity_dir / "gene_features.pt", "-o", out,
    )  # fmt: skip
    assert code == 0 and "10 genes" in said
    code, card, _ = run("info", out)
    assert code == 0 and "10:" in card and load_checkpoint(out).sha256 in card


def test_bundled_checkpoints_have_complete_cards(run):
    for path in list_bundled_checkpoints():
        code, card, _ = run("info", path)
        assert code == 0
        for word in ("Training data", "ridge", "pcc all", "Licence", "Splits"):
            assert word.lower() in card.lower(), (path.name, word)


def test_the_header_has_the_whole_card(tiny_checkpoint_file):
    for path in (tiny_checkpoint_file, *list_bundled_checkpoints()):
        described = describe_checkpoint(read_checkpoint_header(path))
        assert described == describe_checkpoint(load_checkpoint(path))


def test_light_commands_load_no_torch(tmp_path):
    """Nor does looking for results of an earlier batch, which needs no command to be run."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from napari_dkan.batch import existing_result, slide_job\n"
        "from napari_dkan.cli import main\n"
        "for words in ('--help', 'info bundled', 'cache show', 'encoders', 'train --help'):\n"
        "    sys.argv = ['napari-dkan', *words.split()]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as exit:\n"
        "        assert not exit.code, (words, exit.code)\n"
        "    heavy = {'torch', 'timm', 'lightning', 'scanpy', 'anndata'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
        "existing_result.find_existing_result(slide_job.SlideJob('a', Path('b')))\n"
        "assert 'napari_dkan.export.result_reader' in sys.modules\n"
        "heavy = {'torch', 'timm', 'lightning', 'scanpy', 'anndata'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    environment = os.environ | {"NAPARI_DKAN_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd="/", env=environment
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "info bundled",
        "evaluate --counts x.tsv --checkpoint bundled -o out.json",
        "report slide.tif --checkpoint bundled -o out.html",
        "finetune --data . --checkpoint bundled -o out.safetensors",
        "reference bundled --data . -o out.safetensors",
    ],
)
def test_the_word_bundled_is_a_checkpoint(run, words, tmp_path, monkeypatch):
    def refuse(path):
        raise DkanError(f"asked for {path}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("napari_dkan.model.load_checkpoint", refuse, raising=False)
    monkeypatch.setattr(
        "napari_dkan.model.checkpoint.checkpoint_header.read_checkpoint_header", refuse
    )
    code, _, err = run(*words.split())
    assert code == 2 and f"asked for {find_bundled_checkpoint('her2-breast')}" in err


@pytest.mark.parametrize("checkpoint", [(), ("--checkpoint", "bundled")])
def test_jobs_with_the_bundled_checkpoint_name_no_path(run, checkpoint, tmp_path, monkeypatch):
    """A worker on another machine has it in another folder."""
    jobs = []

    def refuse(job, *rest):
        jobs.append(job)
        raise DkanError("stop here")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("napari_dkan.batch.predict_slide.predict_slide", refuse)
    monkeypatch.setattr("napari_dkan.batch.predict_slide.validate_options", refuse)
    (tmp_path / "slide.tif").write_bytes(b"")
    for command in (("predict", "slide.tif"), ("batch", "slide.tif")):
        code, _, err = run(*command, *checkpoint, "-o", tmp_path / "out")
        assert code == 2 and "stop here" in err
    assert [job.checkpoint for job in jobs] == [None, None]


def test_bad_slides(refused, tiny_slide_file, tiny_checkpoint_file, tmp_path):
    out = ["--checkpoint", tiny_checkpoint_file, "-o", tmp_path / "x" / "out.h5ad"]
    whole = tiny_slide_file.read_bytes()
    files = {"notes.txt": b"hello", "cut.tif": whole[:5000], "empty.svs": b"", "cut.svs": whole[:9]}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert name in refused("predict", tmp_path / name, *out)
    assert "nowhere.svs" in refused("predict", tmp_path / "nowhere.svs", *out)


def test_bad_pixel_sizes(refused, tiny_slide_file, tiny_checkpoint_file, tmp_path):
    from PIL import Image

    plain = tmp_path / "plain.png"
    Image.new("RGB", (500, 400), "white").save(plain)
    out = ["--checkpoint", tiny_checkpoint_file, "-o", tmp_path / "out.h5ad"]
    assert "--mpp" in refused("predict", plain, *out)
    for absurd in ("0", "0.04", "21", "-1", "nan"):
        assert "0.05" in refused("predict", tiny_slide_file, "--mpp", absurd, *out)
    assert "No tissue" in refused("predict", plain, "--mpp", "0.5", *out)


def test_bad_places(refused, tiny_slide_file, tiny_checkpoint_file, tmp_path):
    out = ["--checkpoint", tiny_checkpoint_file, "-o", tmp_path / "out.h5ad"]
    spots, regions = tmp_path / "spots.csv", tmp_path / "regions.geojson"
    spots.write_text("x,y\n10,10\n99999,3\n")
    assert "spots.csv: 1 of 2 spots lie outside" in refused(
        "predict", tiny_slide_file, "--spots", spots, *out
    )
    spots.write_text("nothing,here\n")
    assert "spots.csv" in refused("predict", tiny_slide_file, "--spots", spots, *out)
    regions.write_text(json.dumps(mapping(box(0, 0, 30, 30))))
    assert "no tissue" in refused("predict", tiny_slide_file, "--regions", regions, *out)
    regions.write_text("{")
    assert "regions.geojson" in refused("predict", tiny_slide_file, "--regions", regions, *out)
    both = ["--regions", regions, "--tissue"]
    assert "one of" in refused("predict", tiny_slide_file, *both, *out)
    assert "NOGENE" in refused("predict", tiny_slide_file, "--genes", "CD74,NOGENE", *out)
    assert "tpu" in refused("predict", tiny_slide_file, "--device", "tpu", *out)


def test_bad_checkpoints(refused, tiny_slide_file, tiny_checkpoint_file, tmp_path):
    bad = tmp_path / "bad.safetensors"
    good = tiny_checkpoint_file.read_bytes()
    for content in (b"", b"\x80\x04\x95", good[:1000], good[:-10], b"PK\x03\x04" + good):
        bad.write_bytes(content)
        said = refused("predict", tiny_slide_file, "--checkpoint", bad, "-o", tmp_path / "o.h5ad")
        assert "bad.safetensors" in said
        assert "bad.safetensors" in refused("info", bad)


def test_a_full_disk_leaves_no_half_file(
    refused, run, tiny_slide_file, tiny_checkpoint_file, tmp_path, monkeypatch
):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    out = tmp_path / "out.h5ad"
    out.write_text("an older result")
    monkeypatch.setattr(anndata.AnnData, "write_h5ad", full)
    said = refused("predict", tiny_slide_file, "--checkpoint", tiny_checkpoint_file, "-o", out)
    assert "out.h5ad could not be written (No space left on device)" in said
    assert out.read_text() == "an older result"


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount for a small file system")
def test_a_full_file_system_is_an_error(tmp_path, tiny_slide_file, tiny_checkpoint_file, run):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        code, _, err = run(
            "predict", tiny_slide_file, "--checkpoint", tiny_checkpoint_file,
            "-o", small / "out.h5ad",
        )  # fmt: skip
        assert code == 2 and "could not be written" in err and "Traceback" not in err
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_converting_another_file_is_an_error(refused, tmp_path):
    file = tmp_path / "a.ckpt"
    file.write_bytes(b"nothing")
    out = tmp_path / "o.safetensors"
    said = refused("convert", file, "--genes", file, "--gene-features", file, "-o", out)
    assert "a.ckpt" in said
