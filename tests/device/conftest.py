"""These tests run in a process of their own, on a device that is not the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_dkan.inference import device_choice, device_errors
from napari_dkan.inference.predict import find_tissue_region
from napari_dkan.inference.predictor import Predictor
from napari_dkan.model import Checkpoint, load_checkpoint
from napari_dkan.model.network.ensemble import Ensemble
from napari_dkan.model.network.linear_path import LinearPath
from napari_dkan.slide import open_slide
from napari_dkan.slide.slide import Slide

from . import pretend_device

MPP = 0.7
DEVICE = f"{pretend_device.NAME}:0"


@pytest.fixture(scope="session", autouse=True)
def _device() -> None:
    try:
        pretend_device.register()
    except ImportError:
        pytest.skip("needs a torch that registers devices in Python")


@pytest.fixture(autouse=True)
def _device_works() -> Iterator[None]:
    """Nothing fails after the test that makes it fail."""
    yield
    pretend_device.before_operation.clear()
    device_errors.lost_devices.clear()
    device_choice._problems.clear()


@pytest.fixture(scope="session")
def slide(tiny_slide_file: Path) -> Iterator[Slide]:
    with open_slide(tiny_slide_file) as opened:
        yield opened


@pytest.fixture(scope="session")
def tissue(slide: Slide):
    return find_tissue_region(slide, MPP)


@pytest.fixture(scope="session")
def single(tiny_checkpoint_file: Path) -> Checkpoint:
    """One network with a trunk."""
    return load_checkpoint(tiny_checkpoint_file)


@pytest.fixture(scope="session")
def ensemble(single: Checkpoint) -> Checkpoint:
    """Two networks and a linear path beside them."""
    config, draw = single.network.config, torch.Generator().manual_seed(1)
    path = LinearPath(2 * config.dim, config.feature_dim, 3, config.genes)
    for parameter in path.parameters():
        parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    members = [single.network, load_checkpoint(single.path).network]
    with torch.no_grad():
        members[1].head.bias.add_(0.5)
    return replace(single, network=Ensemble(members, path).eval(), sha256="")


@pytest.fixture(scope="session", params=["single", "ensemble"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def predictors(slide: Slide, tissue, checkpoint: Checkpoint) -> tuple[Predictor, Predictor]:
    """Of the device and of the CPU."""
    on_device, on_cpu = (Predictor(slide, checkpoint, MPP, tissue, d) for d in (DEVICE, "cpu"))
    return on_device, on_cpu


def assert_close(values: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="session")
def section(tiny_slide_file: Path, single: Checkpoint):
    """Counts on a grid of spots over the slide."""
    import anndata
    import pandas as pd

    draw, at, symbols = np.random.default_rng(0), np.arange(64), single.panel.symbols
    column, row = at % 8, at // 8
    level = 3 + 40 * draw.random((1, len(symbols))) * (1 + np.sin(column + row))[:, None]
    data = anndata.AnnData(
        draw.poisson(level).astype(np.float32) + 1,
        obs=pd.DataFrame({"array_col": column, "array_row": row}, index=[f"s{i}" for i in at]),
        var=pd.DataFrame(index=list(symbols)),
    )
    data.obsm["spatial"] = np.stack([130 + 180.0 * column, 130 + 180.0 * row], axis=1)
    data.uns = {"section": "drawn", "mpp": MPP, "spot_pitch_um": 126.0, "spot_diameter_um": 80.0}
    data.uns["image"] = str(tiny_slide_file)
    return data
