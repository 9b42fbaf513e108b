"""Training on labels without depth, and the linear path that restores the label scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_dkan.errors import SpotsError
from napari_dkan.expression.label_scale import LabelScale, PanelCounts
from napari_dkan.model.network.ensemble import Ensemble
from napari_dkan.training.data.prepared_section import (
    PreparedSection,
    encode_section,
    fit_section_encoder,
)
from napari_dkan.training.depth_metrics import regress_out_depth
from napari_dkan.training.fit import lightning_module
from napari_dkan.training.fit.depth_residuals import (
    fit_depth_path,
    fit_depth_slopes,
    remove_depth,
)
from napari_dkan.training.fit.fit_callback import EpochRecord, find_best_epoch
from napari_dkan.training.fit.fit_model import fit_model, fit_network
from napari_dkan.training.gene_text import make_random_gene_text
from tests.tiny_sections import GENES, PANEL, QUICK, tiny_section

RESIDUAL = replace(QUICK, depth_residual=True, depth_share=1.0)


def _with_counts(section: PreparedSection) -> PreparedSection:
    """Counts whose depth follows a statistic of the own tile, and labels that follow the depth."""
    level = section.statistics[:, 12, 0].numpy()
    draw = np.random.default_rng(len(section.name))
    counts = draw.poisson(np.outer(10 ** (1 + level), np.ones(GENES))).astype(np.float32) + 1
    panel = PanelCounts(counts, section.positions.numpy(), LabelScale(smoothing=1))
    slopes = np.linspace(-2, 2, GENES)
    labels = section.labels + torch.from_numpy(np.outer(panel.depth, slopes)).float()
    return replace(section, labels=labels, counts=panel)


@pytest.fixture(scope="module")
def sections() -> list[PreparedSection]:
    return [_with_counts(tiny_section(i, spots=48)) for i in range(1, 4)]


def test_residuals_have_no_depth_and_keep_the_mean(sections: list[PreparedSection]) -> None:
    residuals = remove_depth(sections)
    labels, left = (torch.cat([s.labels for s in g]) for g in (sections, residuals))
    torch.testing.assert_close(left.mean(dim=0), labels.mean(dim=0), atol=1e-4, rtol=0)
    for section in residuals:
        assert section.counts is not None
        depth = section.counts.depth - section.counts.depth.mean()
        assert np.abs(depth @ section.labels.numpy()).max() < 1e-3


def test_slopes_are_those_within_sections(sections: list[PreparedSection]) -> None:
    # another level of a section is not a slope
    moved = [replace(s, labels=s.labels + 5 * i) for i, s in enumerate(sections)]
    np.testing.assert_allclose(fit_depth_slopes(moved), fit_depth_slopes(sections), atol=1e-5)
    assert np.abs(fit_depth_slopes(sections) - np.linspace(-2, 2, GENES)).max() < 0.5


def test_without_counts_the_fix_is_named() -> None:
    with pytest.raises(SpotsError, match=r"S1.*depth_residual=false"):
        remove_depth([tiny_section(1)])


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_path_restores_that_share_of_the_depth(
    sections: list[PreparedSection], share: float
) -> None:
    model = fit_model(sections, make_random_gene_text(PANEL, 8, 1), RESIDUAL, 1)
    assert isinstance(model.network, Ensemble)
    encoded = [encode_section(s, model.encoder) for s in sections]
    members = model.network.member_networks

    def predict(path_share: float) -> np.ndarray:
        path = fit_depth_path(encoded, members, path_share)
        network = Ensemble(members, path).eval()
        return replace(model, network=network).predict(sections[0])

    none, some, whole = (predict(s) for s in (0.0, share, 1.0))
    np.testing.assert_allclose(some - none, share * (whole - none), atol=1e-4)
    counts = sections[0].counts
    assert counts is not None
    assert np.corrcoef((whole - none)[:, -1], counts.depth)[0, 1] > 0.5  # of the largest slope
    assert np.corrcoef((whole - none)[:, 0], counts.depth)[0, 1] < -0.5


def test_the_levels_are_those_of_the_labels(sections: list[PreparedSection]) -> None:
    model = fit_model(sections, make_random_gene_text(PANEL, 8, 1), RESIDUAL, 3)
    predicted = np.concatenate([model.predict(s) for s in sections])
    labels = np.concatenate([s.labels.numpy() for s in sections])
    spread = labels.std(axis=0)
    assert (np.abs(predicted.mean(axis=0) - labels.mean(axis=0)) < 0.5 * spread).all()


def test_a_ridge_in_the_mean_replaces_its_share(sections: list[PreparedSection]) -> None:
    encoder = fit_section_encoder(sections, QUICK.dim, QUICK.patch_um)
    encoded = [encode_section(s, encoder) for s in sections]
    model = fit_model(sections, make_random_gene_text(PANEL, 8, 1), RESIDUAL, 1)
    assert isinstance(model.network, Ensemble)
    members = model.network.member_networks
    alone = fit_depth_path(encoded, members, 0.0, ridge_share=1.0)
    mixed = fit_depth_path(encoded, members, 0.0, ridge_share=0.25)
    values = [
        replace(model, network=Ensemble(members, path).eval()).predict(sections[1])
        for path in (fit_depth_path(encoded, members, 0.0), mixed, alone)
    ]
    np.testing.assert_allclose(values[1], 0.75 * values[0] + 0.25 * values[2], atol=1e-4)


def test_an_epoch_that_only_learns_depth_is_not_chosen(
    sections: list[PreparedSection], monkeypatch: pytest.MonkeyPatch
) -> None:
    validation = sections[2]
    assert validation.counts is not None
    labels, depth = validation.labels.numpy(), validation.counts.depth
    rest = regress_out_depth(labels, depth)
    of_the_genes = rest + rest.std(axis=0) * np.random.default_rng(0).normal(size=rest.shape)
    of_depth = np.outer(depth, np.linspace(-2, 2, GENES))
    planned = [of_depth, of_the_genes, of_depth]
    monkeypatch.setattr(
        lightning_module,
        "predict_batch",
        lambda network, batch: torch.from_numpy(planned.pop(0)),
    )
    encoder = fit_section_encoder(sections[:2], QUICK.dim, QUICK.patch_um)
    training, held_out = (
        [encode_section(s, encoder) for s in group] for group in (sections[:2], [validation])
    )
    fitted = fit_network(training, make_random_gene_text(PANEL, 8, 1), QUICK, held_out)
    plain = [epoch.val_pcc for epoch in fitted.curve]
    assert plain[0] == plain[2] > plain[1] + 0.1
    partial = [epoch.val_partial for epoch in fitted.curve]
    assert partial[0] == partial[2] == 0 and partial[1] > 0.5
    assert fitted.best_epoch == 2
    earlier = [EpochRecord(1, 1.0, 0.2), EpochRecord(2, 1.0, 0.1)]  # of a version before
    assert find_best_epoch([*earlier, EpochRecord(3, 1.0, 0.15, 0.9)]) == 1
