"""Plain methods: each finds what it can see, and is what its source says it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_dkan.training.baselines import (
    BASELINES,
    NeuralStainLearning,
    PcaRidge,
    compute_optical_density,
    compute_stain_amounts,
)
from napari_dkan.training.data.prepared_section import (
    EncodedSection,
    encode_section,
    fit_section_encoder,
)
from napari_dkan.training.metrics import gene_pcc

from .tiny_sections import GENES, tiny_section


@pytest.fixture(scope="module")
def encoded() -> list[EncodedSection]:
    sections = [tiny_section(i, spots=80) for i in range(4)]
    encoder = fit_section_encoder(sections[:3], 64, 154.0)
    return [encode_section(s, encoder) for s in sections]


@pytest.mark.parametrize("name", ["ridge", "ridge_stain", "pca_ridge"])
def test_baselines_learn_a_rule_of_the_statistics(encoded: list[EncodedSection], name: str) -> None:
    predicted = BASELINES[name].fit(encoded[:3])(encoded[3])
    assert predicted.shape == (80, GENES)
    assert gene_pcc(predicted, encoded[3].section.labels.numpy()).mean() > 0.4
    mean = np.concatenate([e.section.labels.numpy() for e in encoded[:3]]).mean(axis=0)
    np.testing.assert_allclose(BASELINES["training_mean"].fit(encoded[:3])(encoded[3])[5], mean)


def test_pca_ridge_equals_the_hest_benchmark(encoded: list[EncodedSection]) -> None:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.concatenate([e.target_features.numpy() for e in encoded[:3]])
    y = np.concatenate([e.section.labels.numpy() for e in encoded[:3]])
    front = make_pipeline(StandardScaler(), PCA(20, random_state=1))
    ridge = Ridge(alpha=100 / (20 * GENES), fit_intercept=False).fit(front.fit_transform(x), y)
    wanted = ridge.predict(front.transform(encoded[3].target_features.numpy())) + y.mean(axis=0)
    got = PcaRidge(components=20).fit(encoded[:3])(encoded[3])
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    # more components than there are numbers is no error
    assert np.isfinite(BASELINES["pca_ridge"].fit(encoded[:1])(encoded[3])).all()


def test_stain_learning_unmixes_and_uses_colour_alone(encoded: list[EncodedSection]) -> None:
    stains = torch.tensor(((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)))
    unit = stains / stains.norm(dim=1, keepdim=True)
    amounts = compute_stain_amounts(
        unit[:2, None], stains[None]
    )  # one pixel of pure H, one of pure E
    torch.testing.assert_close(amounts[:, 0], torch.eye(2), atol=0.05, rtol=0)
    assert (
        compute_optical_density(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)).abs().max() == 0
    )

    def stained(number: int) -> EncodedSection:
        draw = torch.Generator().manual_seed(number)
        dose = torch.rand(80, 2, generator=draw)
        light = 255 * 10 ** -(dose @ unit[:2])
        patches = light.to(torch.uint8)[:, :, None, None].expand(-1, -1, 32, 32).contiguous()
        labels = torch.stack([dose[:, 0], dose[:, 1], dose[:, 0] - dose[:, 1]], dim=1)
        section = replace(encoded[0].section, patches=patches, labels=labels)
        return EncodedSection(section, encoded[0].neighbor_features)

    predict = NeuralStainLearning(epochs=20).fit([stained(0), stained(1)])
    test = stained(2)
    assert gene_pcc(predict(test), test.section.labels.numpy()).min() > 0.9
    assert np.mean((predict(test) - test.section.labels.numpy()) ** 2) < 0.02
