"""Where the real data is, and what a test without it says."""

from __future__ import annotations

import atexit
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# They register a device that is not the CPU, in a process of their own: `make device`.
collect_ignore = [] if os.environ.get("NAPARI_DKAN_TEST_DEVICE") else ["device"]

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
sys.path.append(str(ROOT / "tools"))  # synthetic_section draws small slides


def open_own_screen(size: str) -> None:
    """Open a virtual screen for this process: on one screen only one window has the focus."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", size, "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    atexit.register(server.terminate)
    with os.fdopen(read) as file:
        os.environ["DISPLAY"] = f":{file.readline().strip()}"
    os.environ.pop("XAUTHORITY", None)


# Set by tools/with-screen.sh; the workers of pytest-xdist run side by side.
if "PYTEST_XDIST_WORKER" in os.environ and "VIRTUAL_SCREEN" in os.environ:
    open_own_screen(os.environ["VIRTUAL_SCREEN"])

# What napari, torch and the tests before hold is looked at for garbage less often: 5 % of the time.
gc.set_threshold(50_000, 20, 50)

# The same cases on every run, and none that fails because a machine is busy.
settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is kept in the person's own cache of features."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_DKAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("NAPARI_DKAN_CACHE_GB", raising=False)
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real sections and gene tables; skips where they are absent."""
    folder = Path(os.environ.get("NAPARI_DKAN_DATA") or SHARED / "data")
    if not (folder / "her2st").is_dir():
        pytest.skip("needs the real data: set NAPARI_DKAN_DATA to a folder laid out like her2st")
    return folder


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """The published-layout fixture; skips where it is absent."""
    folder = SHARED / "parity"
    if not (folder / "official.ckpt").is_file():
        pytest.skip("needs the parity fixture in ../shared/parity")
    return folder


@pytest.fixture(scope="session")
def tiny_slide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic section, 1,600 px square at 0.7 um/px."""
    import tifffile
    from synthetic_section import draw_section

    image = draw_section(3, size_px=1600, mpp=0.7).image
    file = tmp_path_factory.mktemp("slide") / "drawn.ome.tif"
    size = {"PhysicalSizeX": 0.7, "PhysicalSizeXUnit": "µm"}
    size |= {"PhysicalSizeY": 0.7, "PhysicalSizeYUnit": "µm", "axes": "YXS"}
    tifffile.imwrite(file, image, tile=(256, 256), photometric="rgb", metadata=size)
    return file


@pytest.fixture(scope="session")
def tiny_checkpoint_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint with small random weights: numbers without meaning, quickly."""
    import torch

    from napari_dkan.expression.label_scale import LabelScale
    from napari_dkan.expression.panel import Gene, Panel
    from napari_dkan.model import DKAN, Checkpoint, DKANConfig, PatchGeometry, save_checkpoint
    from napari_dkan.model.encoders.stain_encoder import StainEncoder

    torch.manual_seed(5)
    panel = Panel(
        (
            Gene("ERBB2", "ENSG00000141736", "erb-b2 receptor tyrosine kinase 2", ("HER2", "NEU")),
            Gene("GATA3", "ENSG00000107485", "GATA binding protein 3"),
            Gene("CD74", "ENSG00000019582", "CD74 molecule", ("DHLAG",)),
            Gene("COL1A1", "ENSG00000108821", "collagen type I alpha 1 chain"),
            Gene("KRT8", "ENSG00000170421", "keratin 8"),
            Gene("MALAT1", "ENSG00000251562", "metastasis associated lung transcript 1"),
        )
    )
    encoder = StainEncoder.fit([torch.randint(0, 255, (80, 3, 56, 56), dtype=torch.uint8)], 16)
    config = DKANConfig(
        genes=len(panel), dim=16, text_dim=16, trunk="test_efficientnet", trunk_dim=256
    )
    network = DKAN(config, torch.randn(len(panel), 16)).eval()
    network.label_mean.copy_(torch.linspace(0.5, 3, len(panel)))
    file = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(
        file,
        Checkpoint(
            network=network,
            panel=panel,
            label_scale=LabelScale(),
            patch=PatchGeometry(px=56, um=112.0),
            spot_pitch_um=140.0,
            spot_diameter_um=100.0,
            encoder=encoder.spec,
            card={"title": "Random numbers for tests", "metrics": {}},
            encoder_tensors=encoder.tensors(),
        ),
    )
    return file


@pytest.fixture
def tiny_bundled_checkpoint(
    tiny_checkpoint_file: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch
) -> Path:
    """The small checkpoint as the one that commands take where none is named."""
    from napari_dkan.samples import bundled_checkpoints

    folder = tmp_path_factory.mktemp("bundled")
    file = folder / "her2-breast.safetensors"
    file.symlink_to(tiny_checkpoint_file)
    monkeypatch.setattr(bundled_checkpoints, "CHECKPOINT_FOLDER", folder)
    return file
