"""The plugin works from a wheel, an sdist and an editable install alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from npe2 import PluginManifest
from packaging.requirements import Requirement

from napari_dkan.samples import get_synthetic_section

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "napari_dkan"
BUNDLE_LIMIT = 15_000_000

# What napari sees of an installed plugin: where it lies and what it offers.
DISCOVER = """
import json, napari_dkan
from npe2 import PluginManager
manager = PluginManager()
manager.discover(include_npe1=False)
manifest = manager.get_manifest("napari-dkan")
offers = manifest.contributions
print(json.dumps({
    "file": napari_dkan.__file__,
    "name": manifest.display_name,
    "version": manifest.package_version,
    "readers": [p for r in offers.readers for p in r.filename_patterns],
    "widgets": [w.display_name for w in offers.widgets],
    "samples": {s.key: s.display_name for s in offers.sample_data},
}))
"""


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, cwd="/", env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, kind: str, to: Path) -> Path:
    run(sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", to, source)
    (built,) = to.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked_sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(ROOT, "sdist", folder / "built")) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.glob("napari_dkan-*")
    return unpacked


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def discovered(**environment: str) -> dict:
    return json.loads(run(sys.executable, "-c", DISCOVER, **environment))


def install(wheel: Path, to: Path) -> dict:
    """Install beside the environment, so that this copy and not the checkout is found."""
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-index", "--no-deps"]
    run(*pip, "--target", to, wheel)
    seen = discovered(PYTHONPATH=str(to))
    assert Path(seen["file"]).is_relative_to(to)
    return seen


def check(seen: dict) -> None:
    assert seen["name"] == "napari-dkan"
    assert {"*.svs", "*.tif", "*.ndpi", "*.png", "*.zarr"} <= set(seen["readers"])
    assert "DKAN: predict" in seen["widgets"]
    assert seen["samples"] == {
        "her2-c3": "HER2+ breast, section C3",
        "synthetic": "Synthetic section (simulated)",
    }


def test_wheel(wheel: Path, tmp_path: Path) -> None:
    check(install(wheel, tmp_path))


def test_sdist(unpacked_sdist: Path, tmp_path: Path) -> None:
    manifest = (PACKAGE / "napari.yaml").read_bytes()
    for copy in ("napari.yaml", "src/napari_dkan/napari.yaml"):
        assert (unpacked_sdist / copy).read_bytes() == manifest
    check(install(build(unpacked_sdist, "wheel", tmp_path / "built"), tmp_path / "installed"))


def test_editable() -> None:
    seen = discovered()
    check(seen)
    assert Path(seen["file"]).is_relative_to(ROOT), "the tests run from an editable install"


def test_top_level_manifest_is_the_packages() -> None:
    assert (ROOT / "napari.yaml").resolve() == PACKAGE / "napari.yaml"


def test_every_command_exists() -> None:
    for command in PluginManifest.from_file(PACKAGE / "napari.yaml").contributions.commands:
        module, name = str(command.python_name).split(":")
        assert callable(getattr(__import__(module, fromlist=[name]), name)), command.id


def test_bundled_checkpoints_travel_and_stay_small(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {i.filename: i.file_size for i in archive.infolist()}
    weights = sorted((PACKAGE / "checkpoints").glob("*.safetensors"))
    assert weights, "no bundled checkpoint"
    for file in weights:
        assert packed[f"napari_dkan/checkpoints/{file.name}"] == file.stat().st_size
    assert sum(size for name, size in packed.items() if "checkpoints" in name) <= BUNDLE_LIMIT


def test_the_synthetic_section_travels(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    section = get_synthetic_section()
    for file in (section.image, section.counts, section.spots, section.root / "README.txt"):
        assert f"napari_dkan/{file.relative_to(PACKAGE).as_posix()}" in names
    assert "napari_dkan/quality/report/templates/report.html.j2" in names
    assert not [name for name in names if "stain_image" in name], "the drawing tool is not shipped"


def test_gene_sets_travel_with_their_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {n.removeprefix("napari_dkan/quality/sets/") for n in archive.namelist()}
    assert {"hallmark.v7.0.symbols.gmt.gz", "README.md"} <= names


def test_metadata(metadata: Message) -> None:
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert "Framework :: napari" in metadata.get_all("Classifier")
    for text in metadata.get_all("Requires-Dist"):
        wanted = Requirement(text)
        if wanted.marker and "extra" in str(wanted.marker):
            continue
        assert not wanted.name.lower().startswith(("pyqt", "pyside")), text
        assert not wanted.extras, text


def test_entry_points(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("entry_points.txt")]
        text = archive.read(name).decode()
    assert "napari-dkan = napari_dkan.cli:" in text
    assert "napari-dkan = napari_dkan:napari.yaml" in text
