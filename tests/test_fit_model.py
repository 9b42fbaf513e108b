"""One fit: it goes on where it stopped, and several processes can share it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_dkan.errors import CheckpointError, DkanError
from napari_dkan.training.data.prepared_section import encode_section, fit_section_encoder
from napari_dkan.training.fit import fit_callback as progress
from napari_dkan.training.fit.fit_model import (
    ExponentialMovingAverage,
    FittedNetwork,
    TrainingHardware,
    fit_network,
)
from napari_dkan.training.gene_text import make_random_gene_text
from napari_dkan.training.network_shapes import make_network_config
from napari_dkan.training.train_settings import Precision, make_preset_settings

from .tiny_sections import PANEL, QUICK, tiny_section

TEXT = make_random_gene_text(PANEL, 8, 1)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _fit(folder: Path | None, sections, devices: int = 1, **changes) -> FittedNetwork:
    encoder = fit_section_encoder(sections, 16, 154.0)
    settings = replace(QUICK, **changes)
    training = [encode_section(s, encoder) for s in sections]
    return fit_network(training, TEXT, settings, folder=folder, hardware=TrainingHardware(devices))


def test_a_finished_fit_is_not_run_again(tmp_path: Path) -> None:
    sections = [tiny_section(i) for i in range(2)]
    one, two = (_fit(tmp_path / "f", sections) for _ in range(2))
    assert one.epochs == two.epochs == 3
    for a, b in zip(
        one.network.state_dict().values(), two.network.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


def test_a_resumed_fit_restores_the_learning_rate(tmp_path: Path, monkeypatch) -> None:
    sections = [tiny_section(i) for i in range(2)]
    seen: list[int] = []
    before = progress.FitCallback.on_train_epoch_end

    def watch(self, trainer, module):
        seen.append(trainer.lr_scheduler_configs[0].scheduler.last_epoch)
        if len(seen) == 2:
            before(self, trainer, module)
            raise KeyError("the power went off")
        before(self, trainer, module)

    monkeypatch.setattr(progress.FitCallback, "on_train_epoch_end", watch)
    with pytest.raises(KeyError):
        _fit(tmp_path / "f", sections, epochs=4)
    _fit(tmp_path / "f", sections, epochs=4)
    assert seen == [1, 2, 3, 4]


def test_a_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        _fit(tmp_path, [tiny_section(i) for i in range(2)])
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="not of an interrupted training"):
        _fit(tmp_path, [tiny_section(i) for i in range(2)])


@pytest.mark.timeout(300)
def test_two_processes_train_together(tmp_path: Path) -> None:
    """They check themselves that they end with the same weights."""
    sections = [tiny_section(i) for i in range(3)]
    together = _fit(tmp_path / "f", sections, devices=2, epochs=2)
    assert together.epochs == 2
    alone = _fit(None, sections, epochs=2)
    weights = [f.network.head.weight for f in (together, alone)]
    assert torch.isfinite(weights[0]).all() and not torch.equal(*weights)


def test_missing_hardware_is_an_error() -> None:
    if torch.cuda.is_available():
        with pytest.raises(DkanError, match="GPUs, not 99"):
            TrainingHardware(99).trainer_options()
        return
    assert TrainingHardware().trainer_options()["precision"] == "32-true"
    assert (
        TrainingHardware(precision=Precision.bfloat16).trainer_options()["precision"]
        == "bf16-mixed"
    )
    with pytest.raises(DkanError, match="16 bits need a GPU"):
        TrainingHardware(precision=Precision.float16).trainer_options()


def test_the_published_network_has_the_published_size() -> None:
    from napari_dkan.model.network.dkan_network import DKAN

    config = make_network_config(make_preset_settings("published"), 250)
    with torch.device("meta"):
        network = DKAN(config, torch.empty(250, 1024))
    assert 228e6 < sum(p.numel() for p in network.parameters()) < 278e6
    assert (config.fusion.depth, config.global_.depth, config.neighbor.depth) == (1, 5, 4)


def test_the_moving_average_weights_old_weights_by_its_decay() -> None:
    mean, counter = torch.tensor([1.0, 3.0]), torch.tensor(4)
    current = [torch.tensor([0.0, 1.0]), torch.tensor(7)]
    ExponentialMovingAverage(0.9)([mean, counter], current, 1)
    torch.testing.assert_close(mean, torch.tensor([0.9, 2.8]))
    assert counter == 7  # integers, such as counts of batches, are not averaged


def test_a_fit_returns_the_moving_average_of_its_weights() -> None:
    """With a decay near 1 the average stays near the initial weights, with 0 it is off."""
    sections = [tiny_section(i) for i in range(2)]
    initial, averaged, last = (
        _fit(None, sections, epochs=2, **changes).network.head.weight.detach()
        for changes in ({"lr": 0.0, "average": 0.0}, {"average": 0.99}, {"average": 0.0})
    )
    assert (averaged - initial).abs().mean() < 0.5 * (last - initial).abs().mean()
