"""The panel in a real napari.Viewer, on a small slide with a small random checkpoint."""

from __future__ import annotations

import copy
import functools
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import napari.settings
import pytest

if TYPE_CHECKING:
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget
    from napari_dkan.viewer.panels.quality.quality_widget import QualityWidget


PATIENCE_MS = 60_000


@pytest.fixture(scope="session", autouse=True)
def torch_before_opengl() -> None:
    """Import torch as the plugin does: a plain import after a window was drawn can crash."""
    from napari_dkan.viewer.widgets.gl_compat import import_torch

    import_torch()


@pytest.fixture(scope="module", autouse=True)
def small_heap() -> Iterator[None]:
    """Exclude the objects of earlier files from garbage collection.

    napari collects garbage whenever a layer is removed, which visits every object. Counting those
    that are excluded visits them, too: once is enough.
    """
    gc.collect()
    gc.freeze()
    count = gc.get_freeze_count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "get_freeze_count", lambda: count)
        yield
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def manifests_parsed_once() -> Iterator[None]:
    """Cache parsed manifests: npe2 parses those of all plugins twice for each window."""
    from npe2.manifest import _bases

    parse = functools.cache(_bases._load_yaml_no_duplicates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            _bases, "_load_yaml_no_duplicates", lambda file: copy.deepcopy(parse(file.read()))
        )
        yield


@pytest.fixture(autouse=True)
def own_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Use a temporary history, cache and settings for every test."""
    folder = tmp_path / "config"
    monkeypatch.setattr(
        "napari_dkan.viewer.session.user_history.platformdirs.user_config_path",
        lambda *a, **k: folder,
    )
    monkeypatch.setenv("NAPARI_DKAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("napari.settings._CFG_PATH", str(folder / "settings.yaml"))
    napari.settings._clear_plugin_settings_cache()
    yield
    napari.settings._clear_plugin_settings_cache()


@pytest.fixture
def until(qtbot) -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool]) -> None:
        qtbot.waitUntil(condition, timeout=PATIENCE_MS)

    return wait


@pytest.fixture
def make_panel(
    make_napari_viewer, monkeypatch, tiny_checkpoint_file, until
) -> Iterator[Callable[..., PredictWidget]]:
    """A viewer with the panel docked and the small checkpoint loaded."""
    from napari_dkan.viewer.panels.predict.predict_widget import PredictWidget

    monkeypatch.setattr(
        "napari_dkan.viewer.panels.predict.model_box.list_bundled_checkpoints",
        lambda: [tiny_checkpoint_file],
    )
    panels = []

    def make(**kwargs) -> PredictWidget:
        viewer = make_napari_viewer(**kwargs)
        panel = PredictWidget(viewer)
        viewer.window.add_dock_widget(panel, name="DKAN: predict", area="right")
        panel.session.change_settings(store_tiles=False)
        panels.append(panel)
        until(lambda: panel.session.checkpoint is not None)
        return panel

    yield make
    for panel in panels:
        panel.shut_down()


@pytest.fixture
def panel(make_panel: Callable[..., PredictWidget], tiny_slide_file, until):
    """The panel with the small slide open and its tissue detected."""
    made = make_panel()
    made.session.viewer.open(tiny_slide_file, plugin="napari-dkan")
    until(lambda: made.session.slide is not None and made.session.slide.tissue is not None)
    until(lambda: not made.prefetcher.busy)
    return made


@pytest.fixture
def shown(make_panel: Callable[..., PredictWidget], tiny_slide_file, until, qtbot) -> PredictWidget:
    """A shown window with the whole slide in view."""
    panel = make_panel(show=True)
    viewer = panel.session.viewer
    viewer.open(tiny_slide_file, plugin="napari-dkan")
    viewer.reset_view()
    until(lambda: panel.session.slide.tissue is not None and not panel.prefetcher.busy)
    qtbot.wait(200)
    return panel


@pytest.fixture
def middle(panel: PredictWidget) -> tuple[float, float]:
    """A position on the tissue, (x, y) in level-0 px."""
    point = panel.session.slide.tissue.representative_point()
    return point.x, point.y


@pytest.fixture
def measured_file(tmp_path, tiny_slide_file) -> Path:
    """Simulated counts of a square array on the small slide, as an h5ad that names its image.

    Five genes are in the panel of the small checkpoint; its MALAT1 is not measured.
    """
    import anndata
    import numpy as np
    import pandas as pd

    genes = ["ERBB2", "GATA3", "CD74", "COL1A1", "KRT8", "ACTB"]
    at = np.stack(np.meshgrid(range(7), range(7)), axis=-1).reshape(-1, 2)
    counts = np.random.default_rng(1).poisson(3 + at.sum(axis=1)[:, None], (len(at), len(genes)))
    about = {"image": str(tiny_slide_file), "mpp": 0.7}
    about |= {"spot_pitch_um": 140.0, "spot_diameter_um": 100.0}
    names = [f"{x}x{y}" for x, y in at]
    data = anndata.AnnData(
        counts.astype(np.float32),
        obs=pd.DataFrame({"array_row": at[:, 1], "array_col": at[:, 0]}, index=names),
        var=pd.DataFrame(index=genes),
        obsm={"spatial": 150.0 + 200 * at},
        uns=about,
    )
    file = tmp_path / "D1.h5ad"
    data.write_h5ad(file)
    return file


@pytest.fixture
def rival_file(tmp_path, tiny_checkpoint_file) -> Path:
    """The small checkpoint with other weights."""
    import copy
    from dataclasses import replace

    import torch

    from napari_dkan.model import load_checkpoint, save_checkpoint

    first = load_checkpoint(tiny_checkpoint_file)
    network = copy.deepcopy(first.network)
    torch.manual_seed(6)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.2 * torch.randn_like(weights))
    file = tmp_path / "rival.safetensors"
    save_checkpoint(file, replace(first, network=network, card={"title": "The other"}))
    return file


@pytest.fixture
def quality_widget(panel: PredictWidget):
    """The quality control panel beside the Predict panel, without a section."""
    from napari_dkan.viewer.panels.quality.quality_widget import QualityWidget

    made = QualityWidget(panel.session.viewer)
    panel.session.viewer.window.add_dock_widget(made, name="DKAN: quality control", area="right")
    yield made
    made.shut_down()
    made.quality.close()


@pytest.fixture
def compared(quality_widget: QualityWidget, measured_file, until):
    """With a section loaded and compared."""
    quality_widget.quality.load([measured_file])
    until(lambda: quality_widget.metrics.summary is not None)
    return quality_widget
