"""Auxiliary losses against literal forms, and what they leave as it is where they are off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from napari_dkan.errors import SpotsError
from napari_dkan.model.methods.method_configs import CONFIGS, LinearConfig
from napari_dkan.training.data.prepared_section import encode_section, fit_section_encoder
from napari_dkan.training.data.section_batches import make_section_batch
from napari_dkan.training.fit import fit_callback as progress
from napari_dkan.training.fit.auxiliary_losses import (
    BatchTokens,
    MirrorLoss,
    PairingLoss,
    ranking_loss,
)
from napari_dkan.training.fit.fit_model import fit_network
from napari_dkan.training.fit.method_modules import build_untrained_network, make_lightning_module
from napari_dkan.training.gene_text import GeneTextEmbeddings, make_random_gene_text
from napari_dkan.training.train_settings import (
    AuxiliaryWeights,
    TrainSettings,
    apply_setting_changes,
)

from .tiny_sections import PANEL, QUICK, tiny_section

NO_TEXT = make_random_gene_text(PANEL, 8, 1)
EMBEDDINGS = torch.randn(len(PANEL), 12, generator=torch.Generator().manual_seed(2))
TEXT = GeneTextEmbeddings(EMBEDDINGS, "test", "test").reduce(8)
SMALL = replace(QUICK, trunk="none", epochs=2, method="triplex")
ALL_ON = AuxiliaryWeights(ranking=0.3, mirror=0.2, pairing=0.1)


@pytest.fixture(scope="module")
def encoded():
    sections = [tiny_section(i) for i in range(2)]
    encoder = fit_section_encoder(sections, SMALL.dim, SMALL.patch_um)
    return [encode_section(s, encoder) for s in sections]


def draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [
        torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes
    ]


def assert_equal_with_gradient(found: Tensor, literal: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(found, literal)
    for one, other in zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(literal, inputs), strict=True
    ):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def test_ranking_is_the_literal_one() -> None:
    image, expression = inputs = draw((6, 4), (6, 9))
    spots, hinges = range(6), []
    for i in spots:
        others = [j for j in spots if j != i]
        for j in others:
            for k in others:
                wanted = cosine(expression[i], expression[j]) - cosine(expression[i], expression[k])
                found = cosine(image[i], image[j]) - cosine(image[i], image[k])
                if j != k:  # the more alike of two is more alike by at least as much
                    far = wanted - found if wanted > 0 else found - wanted
                    hinges.append(far.clamp_min(0))
    literal = torch.stack(hinges).mean()
    assert_equal_with_gradient(ranking_loss(image, expression, range(1, 5)), literal, inputs)
    # the same likenesses cost nothing, of whatever length, and the opposite ones do
    assert ranking_loss(3 * expression, expression, [1, 3]) < 1e-12
    assert ranking_loss(image, expression, [2]) > 0.01
    assert ranking_loss(image[:2], expression[:2], []) == 0


def test_mirror_is_the_literal_one() -> None:
    torch.manual_seed(3)
    loss = MirrorLoss(LinearConfig(genes=7, dim=5), None).double()
    z, tiles, labels = inputs = draw((4, 5), (4, 5), (4, 7))
    found = loss(BatchTokens(z, tiles, labels), torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(9)
    masks = [torch.rand(x.shape, generator=generator) < 0.75 for x in (tiles, labels)]
    image = [loss.align_image(z[i]) for i in range(4)]
    expression = [loss.align_expression(loss.expression(labels[i])) for i in range(4)]
    scale, literal = loss.log_scale.exp(), torch.zeros((), dtype=torch.float64)
    assert scale.item() == pytest.approx(1 / 0.07, rel=1e-6)
    for i in range(4):
        to_expression = [scale * cosine(image[i], e) for e in expression]
        to_image = [scale * cosine(e, expression[i]) for e in image]
        for logits in (to_expression, to_image):
            total = torch.stack([x.exp() for x in logits]).sum()
            literal = literal - 0.5 * (logits[i].exp() / total).log() / 8
    visible = torch.where(masks[1], torch.zeros_like(labels), labels)
    restored = [loss.restore_tiles(z), loss.restore_labels(loss.expression(visible))]
    for values, mask, given in zip((tiles, labels), masks, restored, strict=True):
        errors = [
            (given[i, n] - values[i, n]) ** 2
            for i in range(4)
            for n in range(values.shape[1])
            if mask[i, n]
        ]
        literal = literal + 0.1 * torch.stack(errors).mean()
    weights = dict(loss.named_parameters())
    assert_equal_with_gradient(found, literal, [*inputs, *weights.values()])


def test_pairing_is_the_literal_one() -> None:
    torch.manual_seed(3)
    loss = PairingLoss(LinearConfig(genes=len(PANEL), dim=5), TEXT).double()
    z, labels = inputs = draw((4, 5), (4, len(PANEL)))
    found = loss(BatchTokens(z, z, labels), torch.Generator().manual_seed(9))
    order = torch.randperm(len(PANEL), generator=torch.Generator().manual_seed(9)).tolist()
    image, names = [loss.image(t) for t in z], [loss.name(t) for t in loss.text]
    genes = range(len(PANEL))
    paired = [torch.stack([y[g] * names[g] for g in genes]).sum(dim=0) for y in labels]
    broken = [torch.stack([y[order[g]] * names[g] for g in genes]).sum(dim=0) for y in labels]
    scale, terms = loss.log_scale.exp(), []
    for i in range(4):
        positive = (scale * cosine(image[i], paired[i])).exp()
        texts = torch.stack([(scale * cosine(image[i], t)).exp() for t in [*paired, *broken]]).sum()
        tiles = torch.stack([(scale * cosine(t, paired[i])).exp() for t in image]).sum()
        terms += [-(positive / texts).log(), -(positive / tiles).log()]
    literal = torch.stack(terms).mean()
    assert_equal_with_gradient(found, literal, [*inputs, *loss.parameters()])
    with pytest.raises(SpotsError, match=r"pairing compares tiles.*--gene-text"):
        PairingLoss(LinearConfig(genes=len(PANEL), dim=5), NO_TEXT)


def compute_loss(encoded, settings: TrainSettings) -> tuple[Tensor, bool]:
    """Loss of a section, and whether the module's generator was used."""
    torch.manual_seed(5)
    network = build_untrained_network(encoded, TEXT, settings)
    module = make_lightning_module(network, settings, TEXT)
    before = module.generator.get_state()
    torch.manual_seed(6)
    loss = module.compute_loss(make_section_batch(encoded[0]))
    return loss.detach(), not torch.equal(before, module.generator.get_state())


@pytest.mark.parametrize("method", CONFIGS)
def test_every_method_adds_them_to_its_own_loss(encoded, method: str) -> None:
    settings = replace(SMALL, method=method)
    alone, _ = compute_loss(encoded, settings)
    with_half, with_all = (
        compute_loss(encoded, replace(settings, auxiliary=weights))[0] - alone
        for weights in (AuxiliaryWeights(ranking=0.15, mirror=0.1, pairing=0.05), ALL_ON)
    )
    assert with_half > 1e-3
    torch.testing.assert_close(with_all, 2 * with_half, rtol=1e-3, atol=1e-4)


def test_switched_off_nothing_is_added_drawn_or_stored(encoded) -> None:
    """Weights of short fits were compared with those of the version before: equal to the bit."""
    torch.manual_seed(5)
    network = build_untrained_network(encoded, TEXT, SMALL)
    module = make_lightning_module(network, SMALL)
    assert set(module.state_dict()) == {f"network.{n}" for n in network.state_dict()}
    assert len(list(module.parameters())) == len(list(network.parameters()))
    assert (
        not compute_loss(encoded, SMALL)[1]
        and compute_loss(encoded, replace(SMALL, auxiliary=ALL_ON))[1]
    )
    # run folders and reports of older versions have no entry for it
    assert "auxiliary" not in SMALL.to_json()


def test_a_fit_with_them_is_resumed_and_stores_the_network_only(
    encoded, tmp_path: Path, monkeypatch
) -> None:
    settings = replace(SMALL, auxiliary=ALL_ON, average=0.9)

    def fit(folder: str, changes: TrainSettings = settings) -> dict[str, Tensor]:
        fitted = fit_network(encoded, TEXT, changes, folder=tmp_path / folder)
        return fitted.network.state_dict()

    whole, without = fit("whole"), fit("without", replace(settings, auxiliary=AuxiliaryWeights()))
    assert whole.keys() == without.keys()
    assert (whole["head_fused.weight"] - without["head_fused.weight"]).abs().max() > 1e-5
    save = progress.FitCallback.on_train_epoch_end

    def save_and_stop(self, trainer, module):
        save(self, trainer, module)
        raise KeyError("the power went off")

    with monkeypatch.context() as patch:
        patch.setattr(progress.FitCallback, "on_train_epoch_end", save_and_stop)
        with pytest.raises(KeyError):
            fit("stopped")
    for again in (fit("stopped"), fit("whole")):  # resumed, and taken from the finished one
        assert again.keys() == whole.keys()
        for name, tensor in whole.items():
            assert torch.equal(tensor, again[name]), name


def test_settings_are_named_checked_and_written() -> None:
    settings = apply_setting_changes(TrainSettings(), ["auxiliary.ranking=0.1", "lr=0.001"])
    assert settings == replace(TrainSettings(), lr=0.001, auxiliary=AuxiliaryWeights(ranking=0.1))
    assert json.loads(json.dumps(settings.to_json()))["auxiliary"] == {"ranking": 0.1}
    with pytest.raises(SpotsError, match=r"rank=1 changes no setting.*are auxiliary\.ranking"):
        apply_setting_changes(TrainSettings(), ["auxiliary.rank=1"])
    for value in ("-1", "NaN"):
        with pytest.raises(SpotsError, match="auxiliary loss ranking is"):
            apply_setting_changes(TrainSettings(), [f"auxiliary.ranking={value}"])
