"""Stem: the sampler, calibration on drawn data, and what its spread says."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from napari_dkan.errors import CheckpointError
from napari_dkan.model.methods.method_configs import LinearConfig, StemConfig
from napari_dkan.model.methods.method_networks import create_network
from napari_dkan.model.methods.stem import Stem
from napari_dkan.model.network.ensemble import combine_members
from napari_dkan.model.network.linear_path import LinearPath
from napari_dkan.training.fit.method_modules import make_lightning_module
from napari_dkan.training.train_settings import TrainSettings

GENES, FEATURES = 6, 4
SHAPE = StemConfig(GENES, dim=16, grid=1, features=FEATURES, dropout=0.0, tokens=2, samples=16)
WEIGHTS = torch.randn(FEATURES, GENES, generator=torch.Generator().manual_seed(1)) / 2
Z_80 = 1.2816  # 80 % of a normal distribution lie within so many standard deviations


def draw(count: int, seed: int, shift: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw tile features, the mean and standard deviation of their labels, and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, FEATURES, generator=generator) + shift
    mean = torch.tanh(x) @ WEIGHTS
    deviation = (0.3 + 0.5 * torch.sigmoid(2 * x[:, :1])).expand(-1, GENES)
    return x, mean, deviation, mean + deviation * torch.randn(mean.shape, generator=generator)


def train_member(seed: int, steps: int = 140) -> Stem:
    """Train a network with the loss of the package on 1,000 drawn spots."""
    torch.manual_seed(seed)
    network = Stem(SHAPE)
    x, _, _, labels = draw(1000, 5)
    network.label_mean.copy_(labels.mean(dim=0))
    network.label_std.copy_(labels.std(dim=0))
    module = make_lightning_module(network, TrainSettings(method="stem", seed=seed))
    optimizer = torch.optim.AdamW(network.parameters(), lr=6e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (64,))
        fused = SimpleNamespace(z=network.image(x[rows]))
        loss = module.compute_method_loss(fused, None, network.from_label_scale(labels[rows]), None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@pytest.fixture(scope="module")
def members() -> list[Stem]:
    return [train_member(seed) for seed in (1, 2)]


def predict(network: Stem, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of spots with these tile features."""
    members = network.member_networks if network.config.members > 1 else [network]
    z = torch.cat([m.image(x) for m in members], dim=1)
    with torch.no_grad():
        values, spread = network.decode_with_spread(z)
    assert spread is not None
    return values, spread


def test_samples_of_a_known_distribution_have_its_mean_and_deviation(monkeypatch) -> None:
    """With the exact v of a normal distribution: few steps of first order miss one or the other."""
    network, mean, deviation = Stem(replace(SHAPE, tokens=0)), 1.5, 0.8

    def exact_velocity(x: Tensor, angle: Tensor, z: Tensor) -> Tensor:
        cosine, sine = angle.cos()[..., None], angle.sin()[..., None]
        surprise = (x - cosine * mean) / (cosine**2 * deviation**2 + sine**2)
        labels, noise = mean + cosine * deviation**2 * surprise, sine * surprise
        return cosine * noise - sine * labels

    monkeypatch.setattr(network, "predict_velocity", exact_velocity)
    values, spread = network.decode_with_spread(torch.zeros(1, SHAPE.dim))
    torch.testing.assert_close(values, torch.full_like(values, mean), rtol=0.03, atol=0)
    torch.testing.assert_close(spread, torch.full_like(spread, deviation), rtol=0.03, atol=0)


def test_intervals_are_calibrated_on_drawn_data(members: list[Stem]) -> None:
    x, mean, deviation, labels = draw(1000, 77)
    values, spread = predict(members[0], x)
    covered = ((labels - values).abs() < Z_80 * spread).float().mean()
    assert 0.76 < covered < 0.84
    assert (values - mean).square().mean() < 0.1 * mean.var()
    agreement = torch.corrcoef(torch.stack([spread.flatten(), deviation.flatten()]))[0, 1]
    assert agreement > 0.7  # wide where the labels are
    # the mean in one step, by which the disagreement of members is measured
    single = members[0].predict_auxiliary(SimpleNamespace(z=members[0].image(x)), None)["fused"]
    assert (single - mean).square().mean() < 0.1 * mean.var()


def test_spread_of_members_grows_off_the_training_distribution(members: list[Stem]) -> None:
    """A single network is sure of itself there too: what grows is the distance of the members."""
    ensemble = combine_members(members)
    near, far = (predict(ensemble, draw(300, 78, shift)[0])[1].mean() for shift in (0.0, 8.0))
    assert far > 1.4 * near


def test_spread_of_an_ensemble_is_within_and_between(members: list[Stem]) -> None:
    x = draw(3, 79)[0]
    z = torch.cat([m.image(x) for m in members], dim=1)
    each = [m.decode_with_spread(m.image(x)) for m in members]
    between = torch.stack([values for values, _ in each]).var(dim=0, correction=0)
    within = (each[0][1].square() + each[1][1].square()) / 2
    path = LinearPath(2 * SHAPE.dim, FEATURES, 1, GENES)
    path.share.fill_(-0.5)
    path.offset.fill_(3.0)
    network = combine_members(members, path)
    values, spread = network.decode_with_spread(torch.cat([z, torch.zeros(3, 1)], dim=1))
    torch.testing.assert_close(spread, 0.5 * (within + between).sqrt())
    torch.testing.assert_close(values, 3 - (each[0][0] + each[1][0]) / 4)
    genes = torch.tensor([4, 1])
    torch.testing.assert_close(network.decode_with_spread(
        torch.cat([z, torch.zeros(3, 1)], dim=1), genes)[1], spread[:, genes])  # fmt: skip
    # networks of one value: the distance of the members; a single one has no spread
    linear = [create_network(LinearConfig(GENES, dim=FEATURES, grid=1)) for _ in range(2)]
    values = torch.stack([m.decode(x) for m in linear])
    found = combine_members(linear).decode_with_spread(torch.cat([x, x], dim=1))[1]
    torch.testing.assert_close(found, values.std(dim=0, correction=0))
    assert linear[0].decode_with_spread(x)[1] is None


def test_a_tile_has_the_same_numbers_in_any_batch_and_run(members: list[Stem], monkeypatch) -> None:
    network = members[0]
    z = network.image(draw(40, 80)[0]).detach()
    with torch.no_grad():
        values, spread = network.decode_with_spread(z)
        order = torch.randperm(40)
        torch.testing.assert_close(network.decode(z[order]), values[order])
        torch.testing.assert_close(network.decode_with_spread(z[7:8])[1], spread[7:8])
        genes = torch.tensor([5, 0])
        torch.testing.assert_close(network.decode(z, genes), values[:, genes])
        monkeypatch.setattr("napari_dkan.model.methods.stem.MAX_ACTIVATIONS", 1500)
        torch.testing.assert_close(network.decode(z), values)
        assert network.decode(z[:0]).shape == (0, GENES)
    # seeds decide the starting noise and are the only thing that does
    noise = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        noise.append(Stem(SHAPE).noise)
    assert torch.equal(noise[0], noise[1]) and not torch.equal(noise[0], noise[2])
    torch.testing.assert_close(noise[0].mean(dim=0), torch.zeros(GENES))
    torch.testing.assert_close(noise[0].square().mean(dim=0), torch.ones(GENES))


def test_before_training_the_samples_are_the_labels_without_the_tile() -> None:
    network = Stem(SHAPE)
    network.label_mean.fill_(2.0)
    network.label_std.fill_(0.3)
    values, spread = network.decode_with_spread(torch.randn(2, SHAPE.dim))
    torch.testing.assert_close(values, torch.full((2, GENES), 2.0))
    torch.testing.assert_close(spread, torch.full((2, GENES), 0.3))


def test_with_a_token_of_each_gene_the_order_of_genes_has_no_effect() -> None:
    torch.manual_seed(0)
    network = Stem(replace(SHAPE, tokens=0)).eval()
    for parameter in network.parameters():  # those that start at zero too
        torch.nn.init.normal_(parameter, std=0.3)
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    x, z = torch.randn(2, 3, GENES), torch.randn(2, SHAPE.dim)
    angle = torch.tensor([[0.2, 0.8, 1.4]]).expand(2, -1)
    values = network.predict_velocity(x, angle, z)
    assert values.std() > 0.1 and (values[:, 0] - values[:, 1]).abs().min() > 1e-4
    network.genes.name.data = network.genes.name.data[order]
    shuffled = network.predict_velocity(x[..., order], angle, z)
    torch.testing.assert_close(shuffled, values[..., order])
    # one noise level for all and one of each copy are the same
    level = torch.full((1, 1), math.pi / 3)
    torch.testing.assert_close(
        network.predict_velocity(x, level, z), network.predict_velocity(x, level.expand(2, 3), z)
    )


def test_settings_of_the_paper_have_a_token_of_each_gene() -> None:
    from napari_dkan.training.network_shapes import make_network_config
    from napari_dkan.training.train_settings import SettingsPreset, make_preset_settings

    small = make_network_config(replace(TrainSettings(), method="stem"), 250)
    published = replace(make_preset_settings(SettingsPreset.published), method="stem")
    config = make_network_config(published, 250)
    assert isinstance(small, StemConfig) and isinstance(config, StemConfig)
    assert (small.tokens, config.tokens, config.blocks.depth) == (4, 0, 12)
    with pytest.raises(CheckpointError, match="pairs"):
        replace(small, samples=5)
