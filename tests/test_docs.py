"""Every command and every block of Python in the documentation runs, or is listed with a reason."""

from __future__ import annotations

import contextlib
import re
import runpy
import shlex
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from napari.components import ViewerModel
from typer.testing import CliRunner

from napari_dkan.batch import local_runner
from napari_dkan.batch.batch_worker import run_job
from napari_dkan.batch.slide_job import JobFinished
from napari_dkan.cli import app, main
from napari_dkan.samples.bundled_checkpoints import find_bundled_checkpoint
from napari_dkan.training.baselines import BASELINES, NeuralStainLearning

from .docs_commands import PAGES, ROOT, Said, commands, mentioned, python_blocks
from .docs_folder import make_folder

LINK = re.compile(r"\]\(([^)#\s]+)")

# What is added to a command that trains, so that it takes seconds: it learns nothing.
TINY = ["members=1", "augmentation=null", "dim=16", "text_dim=8", "patch_px=32"]
TINY += ['trunk="test_efficientnet"', "trunk_dim=256", "epochs=1"]
SETTINGS = [word for setting in TINY for word in ("--set", setting)]
SHORT = {
    "train": SETTINGS,
    "crossval": SETTINGS,
    "zeroshot": [*SETTINGS, "--held-out", "4", "--draws", "1", "--epochs", "1"],
    "finetune": ["--epochs", "1"],
    "batch": ["--workers", "1", "--genes", "ERBB2"],
}

# Run with another value or source, which needs no network.
INSTEAD = {"--entrez --email you@example.org": "--tables TABLES"}

# Of the same command with the same options one is run; the others get a copy of what it wrote.
SLOW = {"train", "crossval", "zeroshot", "finetune", "reference", "evaluate", "report", "genes"}
SLOW |= {"batch", "doctor"}
HOW_MUCH = {"--sections", "--draws", "--epochs", "--set"}  # options that make it no other command

BUNDLED = find_bundled_checkpoint("her2-breast")  # not the small one, which the tests put there

# What cannot run in a test, by a part of the command, and why. Commands of ours are parsed.
NOT_RUN = {
    "https://": "needs a network",
    "s3://": "needs a network",
    "--scheduler tcp://": "needs a cluster; tests/test_batch_cluster.py has one",
    "--device cuda": "needs a GPU",
    "--data PUBLISHED": "needs the features published with DKAN",
    "--features features_uni_v1": "needs the weights of UNI",
    "lite0": "needs weights; tests/test_combined_encoder.py has encoders of parts",
    "python -m pytest": "the tests themselves",
    "--stain macenko": "slow; tests/test_stain_normalization.py trains with it",
    "dask ": "another program: needs a cluster",
    "vips ": "another program",
    "pip install": "changes the environment; CI does it",
    "conda ": "another program",
    "make ": "targets are looked up below",
    "python -m venv": "makes an environment; CI does it",
    "dkan/bin/": "in that environment",
}
PYTHON_NOT_RUN = {
    "dask_jobqueue": "needs a queue",
    "squidpy": "not among the requirements of the tests",
}


@pytest.fixture(autouse=True, scope="module")
def _quick():
    """One thread, a baseline that is fitted in one round, and a batch in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BASELINES, "nsl", NeuralStainLearning(epochs=1))
        patch.setattr(local_runner, "run_locally", run_here)
        yield
    torch.set_num_threads(threads)


def run_here(jobs, devices, max_retries, overwrite):
    for index, job in enumerate(jobs):
        outcome = run_job(replace(job, device="cpu"), lambda update: None, overwrite)
        yield JobFinished(index, outcome)


@pytest.fixture(scope="module")
def kept(data_dir: Path, parity_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    make_folder(folder, data_dir)
    for name in ("official.ckpt", "genes.npy", "gene_features.pt"):
        (folder / name).symlink_to(parity_dir / name)
    genes = ["genes", "build", "--panel", "panel.txt", "--tables", "TABLES"]
    with contextlib.chdir(folder):
        made = CliRunner().invoke(app, [*genes, "-o", "genes.safetensors"])
    assert made.exit_code == 0, made.output
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("written"))


@pytest.fixture
def folder(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bundled_checkpoint: Path
) -> Path:
    """A fresh copy to work in; each page starts with the same files."""
    shutil.copytree(kept, tmp_path / "work", symlinks=True)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@dataclass
class Written:
    """What slow commands wrote, by the command, the kind of its file and its options."""

    folder: Path
    files: dict[tuple[str, ...], Path | None] = field(default_factory=dict)

    def again(self, words: list[str]) -> bool:
        """Put there what such a command wrote before; False where none was run."""
        before = self.files.get(_shape(words))
        if before is not None:
            _copy(before, _out(words))
        return _shape(words) in self.files

    def keep(self, words: list[str]) -> None:
        name = self.folder / f"{len(self.files)}" if "-o" in words else None
        if name is not None:
            _copy(_out(words), name)
        self.files[_shape(words)] = name


def _shape(words: list[str]) -> tuple[str, ...]:
    options = {w for w in words if w.startswith("-")} - HOW_MUCH
    return (words[0], *(Path(w).suffix for w in words[1:2]), *sorted(options))


def _out(words: list[str]) -> Path:
    return Path(words[words.index("-o") + 1])


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)


def listed(said: Said, reasons: dict[str, str]) -> bool:
    return any(part in f"{said.text} " for part in reasons)


def pages_with(find) -> list:
    return [pytest.param(p, id=p.name) for p in PAGES if find(p)]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", pages_with(commands))
def test_commands(page: Path, folder: Path, written: Written, monkeypatch, capfd) -> None:
    for said in commands(page):
        program, *words = said.words
        if program == "napari-dkan":
            parse(words, said)
        if listed(said, NOT_RUN):
            continue
        if program == "napari-dkan":
            instead = said.text
            for part, other in INSTEAD.items():
                instead = instead.replace(part, other)
            words = shlex.split(instead, comments=True)[1:]
            if words[0] in SLOW and written.again(words):
                continue
            if "--zero-shot" in words:  # which needs a network that was trained on gene texts
                words += ["--checkpoint", str(BUNDLED)]
            run([*words, *shortened(words)], said, monkeypatch, capfd)
            if words[0] in SLOW:
                written.keep(words)
        elif program == "python":
            script_help(words, said, monkeypatch, capfd)
        else:
            pytest.fail(f"{said}\nis neither run nor listed in NOT_RUN")


def shortened(words: list[str]) -> list[str]:
    """What is added to a command; training measures nothing where no report is given."""
    unmeasured = words[0] == "train" and "--measured" not in words
    return [*SHORT.get(words[0], []), *(["--no-crossval"] if unmeasured else [])]


def run(words: list[str], said: Said, monkeypatch, capfd) -> None:
    monkeypatch.setattr(sys, "argv", ["napari-dkan", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capfd.readouterr()
    assert not ended.value.code, f"{said}\n{told.out[-2000:]}\n{told.err[-2000:]}"


def parse(words: list[str], said: Said) -> None:
    """The command and its options exist and take these values."""
    command, context, name = typer.main.get_command(app), None, "napari-dkan"
    try:
        while True:
            context = command.make_context(name, list(words), parent=context)
            if not words or not hasattr(command, "resolve_command"):
                return
            name, command, words = command.resolve_command(context, words)
    except Exception as error:  # whatever the parser has to say
        pytest.fail(f"{said}\n{error}")


def script_help(words: list[str], said: Said, monkeypatch, capfd) -> None:
    """The script is there, and its --help names the options that the page gives it."""
    script = ROOT / words[0]
    assert script.is_file(), said
    monkeypatch.syspath_prepend(script.parent)
    monkeypatch.setattr(sys, "argv", [words[0], "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    shown = capfd.readouterr().out
    assert not ended.value.code, said
    for option in (w for w in words if w.startswith("-")):
        assert option in shown, f"{said}\n{words[0]} has no {option}"


@pytest.mark.parametrize("page", pages_with(python_blocks))
def test_python(page: Path, folder: Path, monkeypatch, capfd) -> None:
    for said in python_blocks(page):
        code = compile(said.text, str(said), "exec")
        if listed(said, PYTHON_NOT_RUN):
            continue
        if "result.h5ad" in said.text:  # which a command of the page makes
            words = ["predict", "slide.ome.tif", "--genes", "ERBB2", "-o", "result.h5ad"]
            run(words, said, monkeypatch, capfd)
        names = {"__name__": "docs"}
        if "viewer." in said.text:  # what napari's console knows, and an image open there
            names |= {"viewer": ViewerModel(), "array": np.zeros((64, 64, 3), np.uint8)}
        exec(code, names)


@pytest.mark.parametrize("page", pages_with(mentioned))
def test_commands_in_sentences_exist(page: Path) -> None:
    known = typer.main.get_command(app).commands
    for text in mentioned(page):
        assert text.split()[0] in {*known, "COMMAND"}, f"{page.name}: napari-dkan {text}"


@pytest.mark.parametrize("page", [pytest.param(p, id=p.name) for p in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    said = [c.words for page in PAGES for c in commands(page) if c.words[0] == "make"]
    assert said and all(f"\n{target}:" in makefile for _, target, *_ in said)
