"""Views of a section, features relative to their slide, and settings given by name."""

from __future__ import annotations

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_dkan.errors import SpotsError
from napari_dkan.expression.label_scale import LabelScale
from napari_dkan.expression.panel import Panel
from napari_dkan.model.network.dkan_config import DKANConfig
from napari_dkan.model.network.dkan_network import DKAN
from napari_dkan.training.data.augmentation import (
    StainTransform,
    sample_jitter,
    sample_view_transforms,
)
from napari_dkan.training.data.prepared_section import (
    PreparedSection,
    encode_section,
    fit_section_encoder,
    prepare_section,
)
from napari_dkan.training.data.section_batches import SectionBatchDataset
from napari_dkan.training.train_settings import Augmentation, TrainSettings, apply_setting_changes

STILL = Augmentation(amount=0.0, colour=0.0, background=0.0)


def _pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def test_the_identity_transform_changes_no_pixel() -> None:
    random = np.random.default_rng(0)
    same = StainTransform.sample(STILL, random)(_pixels())
    assert np.abs(same.astype(int) - _pixels()).max() <= 1


@given(st.integers(0, 10_000))
def test_a_stain_transform_preserves_the_order_of_brightness(seed: int) -> None:
    restain = StainTransform.sample(
        replace(Augmentation(), background=0.0), np.random.default_rng(seed)
    )
    assert restain(np.full((1, 1, 3), 255, np.uint8)).min() == 255
    # one tissue in two thicknesses: twice the optical density
    thin = np.array([[[200, 150, 210]]], np.uint8)
    thick = (256 * ((thin.astype(float) + 1) / 256) ** 2 - 1).round().astype(np.uint8)
    assert restain(thick).astype(int).sum() < restain(thin).astype(int).sum()


def test_views_differ_and_are_reproducible() -> None:
    by = Augmentation(views=6)
    stains = [restain for restain, _ in sample_view_transforms(by, seed=1)]
    assert [s is None for s in stains] == [True, False, False, True, False, False]
    once, again = (
        [sample_jitter(by, 50, random) for _, random in sample_view_transforms(by, seed=1)]
        for _ in range(2)
    )
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.abs(a).max() <= by.jitter_um and a.std() > by.jitter_um / 3
    assert not np.allclose(once[0], once[1])
    assert not np.allclose(stains[1].matrix, stains[2].matrix)


class _Slide:
    """Noise, each place of its own."""

    width = height = 4000

    def read_patch(self, x: float, y: float, side: float, px: int) -> np.ndarray:
        random = np.random.default_rng([round(x), round(y)])
        return random.integers(60, 256, (px, px, 3), dtype=np.uint8)


def _section(augmentation: Augmentation | None) -> PreparedSection:
    counts = np.random.default_rng(0).poisson(3, (12, 5)).astype(np.float32)
    at = np.arange(12)
    data = anndata.AnnData(
        counts,
        obs=pd.DataFrame({"array_row": at // 4, "array_col": at % 4}, index=[str(i) for i in at]),
        var=pd.DataFrame(index=[f"G{i}" for i in range(5)]),
        obsm={"spatial": np.column_stack([at % 4, at // 4]) * 300.0 + 1500},
        uns={"section": "A", "mpp": 0.7, "spot_pitch_um": 200.0, "spot_diameter_um": 100.0},
    )
    panel = Panel.from_symbols(data.var_names)
    return prepare_section(
        data, _Slide(), panel, LabelScale(), 154.112, 56, augmentation=augmentation
    )


def test_only_training_uses_the_views() -> None:
    plain = _section(None)
    section = _section(Augmentation(views=3))
    torch.testing.assert_close(section.statistics, plain.statistics)
    assert len(section.views) == 3 and not plain.views
    moved = [v for v in section.views if not torch.equal(v.patches, section.patches)]
    assert len(moved) == 3
    encoder = fit_section_encoder([section], 8, 154.112)
    torch.testing.assert_close(
        encoder.project(plain.statistics),
        fit_section_encoder([plain], 8, 154.112).project(plain.statistics),
    )
    encoded = encode_section(section, encoder)
    own = {tuple(e.target_features[0].tolist()) for e in (encoded, *encoded.views)}
    epochs = SectionBatchDataset([encoded], batch_size=len(section), seed=0)
    seen = {tuple(b["slide_features"][0].tolist()) for _ in range(40) for b in epochs}
    assert seen == own and len(own) == 4


def _network(standardise: bool) -> DKAN:
    torch.manual_seed(0)
    config = DKANConfig(genes=3, dim=8, text_dim=8, trunk="test_vit", trunk_dim=64)
    return DKAN(replace(config, standardise=standardise), torch.randn(3, 8)).eval()


def test_predictions_are_robust_to_the_stain_of_a_slide() -> None:
    network = _network(standardise=True)
    random = torch.Generator().manual_seed(1)
    features = torch.randn(400, 25, 8, generator=random)
    moved = 1.6 * features + torch.linspace(-2, 2, 8)
    section = {
        "patches": torch.zeros(400, 3, 64, 64),
        "positions": torch.stack([torch.arange(400) // 20, torch.arange(400) % 20], dim=1),
        "neighbor_mask": torch.ones(400, 25),
    }

    def predicted(net: DKAN, f: torch.Tensor) -> torch.Tensor:
        return net.predict(slide_features=f[:, 12], neighbor_features=f, **section)["final"]

    def change(net: DKAN) -> float:
        before, after = predicted(net, features), predicted(net, moved)
        return float((after - before).std() / before.std())

    assert change(network) < 0.1 < change(_network(standardise=False))


def test_a_slide_of_one_spot_has_finite_features() -> None:
    network = _network(standardise=True)
    one = torch.full((1, 8), 3.0)
    assert torch.isfinite(network.standardize_by_slide(one, one)).all()
    assert torch.equal(_network(standardise=False).standardize_by_slide(one, one), one)


def test_settings_are_changed_by_name() -> None:
    settings = apply_setting_changes(
        TrainSettings(), ["lr=0.001", "standardise=false", "augmentation.views=6", "epochs=12"]
    )
    assert (settings.lr, settings.standardise, settings.epochs) == (0.001, False, 12)
    assert settings.augmentation is not None and settings.augmentation.views == 6
    assert apply_setting_changes(TrainSettings(), ["augmentation=null"]).augmentation is None


@pytest.mark.parametrize(
    "change", ["speed=3", "epochs=many", "epochs=2.5", "lr", "standardise=1", "members=null"]
)
def test_unknown_settings_are_errors(change: str) -> None:
    with pytest.raises(SpotsError, match="--set"):
        apply_setting_changes(TrainSettings(), [change])
