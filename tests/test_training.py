"""Training: losses against their plain forms, honest scores, and one small run end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from napari_dkan.errors import SpotsError
from napari_dkan.expression.label_scale import labels_from_section
from napari_dkan.expression.panel import Panel, read_panel
from napari_dkan.model import load_checkpoint, save_checkpoint
from napari_dkan.model.ridge_regression import compute_multi_scale_features
from napari_dkan.training.baselines import fit_ridge, fit_ridge_cv
from napari_dkan.training.data.prepared_section import (
    PreparedSection,
    encode_section,
    fit_section_encoder,
    prepare_section,
)
from napari_dkan.training.data.section_batches import SectionBatchDataset
from napari_dkan.training.data.section_loading import DEFAULT_LABEL_SCALE
from napari_dkan.training.fit.fit_model import fit_network
from napari_dkan.training.fit.losses import (
    compute_adaptive_weights,
    correlation_loss,
    info_nce_loss,
    supervised_loss,
)
from napari_dkan.training.gene_text import make_random_gene_text, read_gene_text
from napari_dkan.training.metrics import gene_pcc
from napari_dkan.training.prediction_scores import score_predictions
from napari_dkan.training.train import train_on_sections
from napari_dkan.training.train_settings import TrainSettings


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Networks this small lose more to threads waiting for each other than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


QUICK = TrainSettings(
    epochs=2,
    patience=1,
    dim=16,
    text_dim=8,
    batch=32,
    trunk="test_vit",
    trunk_dim=64,
    patch_px=64,
    members=1,
    augmentation=None,
)


def _leaf(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_chunked_info_nce_is_exact_in_value_and_gradient(block: int) -> None:
    a, b = _leaf(200, 12, seed=0), _leaf(200, 12, seed=1)
    logits = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / 0.1
    plain = F.cross_entropy(logits, torch.arange(200))
    wanted = torch.autograd.grad(3 * plain, (a, b))
    loss = info_nce_loss(a, b, 0.1, block)
    got = torch.autograd.grad(3 * loss, (a, b))
    assert loss.item() == pytest.approx(plain.item(), abs=1e-5)  # it sums up in float32
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_a_detached_teacher_gets_no_gradient_from_its_students() -> None:
    final, head, labels = _leaf(4, 3, seed=0), _leaf(4, 3, seed=1), _leaf(4, 3, seed=2)
    loss = supervised_loss(final, [head], labels.detach(), alpha=0.3)
    by_final, by_head = torch.autograd.grad(loss, (final, head))
    torch.testing.assert_close(by_final, 2 * (final - labels) / 12)
    torch.testing.assert_close(by_head, 2 * (0.3 * (head - final) + 0.7 * (head - labels)) / 12)


def test_an_attached_teacher_gets_the_published_gradient() -> None:
    final, head, labels = _leaf(4, 3, seed=0), _leaf(4, 3, seed=1), _leaf(4, 3, seed=2)
    loss = supervised_loss(final, [head], labels.detach(), alpha=0.3, detach=False)
    (by_final,) = torch.autograd.grad(loss, final)
    torch.testing.assert_close(by_final, 2 * (final - labels + 0.3 * (final - head)) / 12)


def test_the_correlation_loss_is_one_minus_the_mean_correlation() -> None:
    predicted, labels = _leaf(60, 5, seed=0), _leaf(60, 5, seed=1)
    wanted = 1 - gene_pcc(predicted.detach().numpy(), labels.detach().numpy()).mean()
    assert correlation_loss(predicted, labels).item() == pytest.approx(wanted, abs=1e-4)
    # level and scale of a gene do not matter; a constant gene has no gradient that explodes
    assert correlation_loss(3 * labels + 2, labels).item() == pytest.approx(0, abs=1e-3)
    flat = torch.zeros(60, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(correlation_loss(flat, labels.detach()), flat)
    assert torch.isfinite(gradient).all()


def test_adaptive_weights_are_inverse_to_the_losses() -> None:
    weights = compute_adaptive_weights([torch.tensor(2.0), torch.tensor(6.0)], [1.0, 3.0])
    assert [float(w) for w in weights] == pytest.approx([0.5, 0.5])


def test_a_constant_gene_has_no_correlation_and_is_counted() -> None:
    rng = np.random.default_rng(0)
    measured = {"A": rng.normal(size=(30, 60)), "B": rng.normal(size=(20, 60))}
    measured["A"][:, 4] = 1.0
    predicted = {n: m + rng.normal(size=m.shape) for n, m in measured.items()}
    predicted["B"][:, 7] = 0.0
    measured["B"][:, 4] = 2.0
    pcc = gene_pcc(predicted["A"], measured["A"])
    assert np.isnan(pcc[4]) and np.isnan(pcc).sum() == 1
    assert pcc[0] == pytest.approx(np.corrcoef(predicted["A"][:, 0], measured["A"][:, 0])[0, 1])

    scores = score_predictions(predicted, measured)
    summary = scores.to_summary()
    assert summary["gene_section_pairs_without_pcc"] == 3
    assert summary["genes_without_pcc"] == 1  # gene 4 in both; gene 7 has one in A
    assert summary["pcc_all"] == pytest.approx(np.nanmean(scores.pcc_per_gene), abs=1e-4)
    assert summary["mse"] == pytest.approx(1.0, abs=0.1)
    assert summary["pcc_hpg"] > summary["pcc_all"]
    mean = {n: np.tile(m.mean(0), (len(m), 1)) for n, m in measured.items()}
    assert score_predictions(mean, measured).to_summary()["pcc_all"] is None


def test_ridge_finds_a_linear_rule_and_cross_validates_its_penalty() -> None:
    rng = np.random.default_rng(0)
    rule = rng.normal(size=(12, 5))
    xs = [rng.normal(size=(60, 12)) for _ in range(3)]
    ys = [x @ rule + 0.1 * rng.normal(size=(60, 5)) + 3 for x in xs]
    assert gene_pcc(fit_ridge(xs[0], ys[0], 1.0).predict(xs[1]), ys[1]).min() > 0.99
    # labels that have nothing to do with the inputs ask for the strongest penalty more than these
    assert fit_ridge_cv(xs, ys).penalty == 30.0


def test_multi_scale_means_exclude_tiles_off_the_slide() -> None:
    features = np.arange(25, dtype=float)[None, :, None]
    mask = np.ones((1, 25), dtype=bool)
    assert compute_multi_scale_features(features, mask).tolist() == [[12.0, 12.0, 12.0]]
    mask[0, :10] = False  # the two upper rows
    assert compute_multi_scale_features(features, mask).tolist() == [[12.0, 14.5, 17.0]]


@pytest.fixture(scope="module")
def panel(data_dir: Path) -> Panel:
    return Panel.from_symbols(read_panel(data_dir / "genes" / "panel_her2st_250.txt").symbols[:40])


class _Picture:
    """A slide in memory."""

    def __init__(self, path: Path) -> None:
        self.image = Image.open(path).convert("RGB")
        self.width, self.height = self.image.size

    def read_patch(self, x: float, y: float, side: float, px: int) -> np.ndarray:
        left, top = round(x - side / 2), round(y - side / 2)
        cut = self.image.crop((left, top, left + round(side), top + round(side)))
        return np.asarray(cut.resize((px, px), Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def sections(data_dir: Path, panel: Panel) -> list[PreparedSection]:
    """The crop of section C3, its 67 spots dealt out to three small sections."""
    import anndata

    data = anndata.read_h5ad(data_dir / "her2st" / "crop" / "C3_crop.h5ad")
    uns = {"mpp": 0.6874, "spot_pitch_um": 200.0, "spot_diameter_um": 100.0}
    slide = _Picture(data_dir / "her2st" / "crop" / "C3_crop.jpg")
    out = []
    for i in range(3):
        part = data[i::3].copy()
        part.obs = part.obs.rename(columns={"array_x": "array_col", "array_y": "array_row"})
        part.uns.update(uns, section=f"part {i + 1}")
        out.append(
            prepare_section(part, slide, panel, DEFAULT_LABEL_SCALE, QUICK.patch_um, QUICK.patch_px)
        )
    return out


def test_a_section_is_prepared(sections: list[PreparedSection]) -> None:
    # 40 genes are few: a spot without any of their counts has no label
    assert sum(len(s) + len(s.dropped_spots) for s in sections) == 67
    first = sections[0]
    assert len(first) == 23
    assert first.labels.shape == (23, 40) and first.patches.shape == (23, 3, 64, 64)
    assert first.statistics.shape == (23, 25, 104)
    assert first.mask[:, 12].all() and not first.mask.all()  # a crop cuts neighbourhoods
    features = encode_section(
        first, fit_section_encoder(sections[1:], 16, QUICK.patch_um)
    ).neighbor_features
    assert features.shape == (23, 25, 16) and torch.isfinite(features).all()


def test_spots_off_the_image_are_refused(data_dir: Path, panel: Panel) -> None:
    import anndata

    data = anndata.read_h5ad(data_dir / "her2st" / "crop" / "C3_crop.h5ad")
    data.uns.update(section="C3", mpp=0.6874, spot_pitch_um=200.0, spot_diameter_um=100.0)
    with pytest.raises(SpotsError, match="C3 has no whole array coordinates"):
        labels_from_section(data, panel, DEFAULT_LABEL_SCALE)
    data.obs = data.obs.rename(columns={"array_x": "array_col", "array_y": "array_row"})
    data.obsm["spatial"] = data.obsm["spatial"] + 1500
    slide = _Picture(data_dir / "her2st" / "crop" / "C3_crop.jpg")
    with pytest.raises(SpotsError, match="spots of C3 lie off its image"):
        prepare_section(data, slide, panel, DEFAULT_LABEL_SCALE, QUICK.patch_um, QUICK.patch_px)


def test_an_epoch_has_every_spot_once_and_rotates_target_patches_only(
    sections: list[PreparedSection],
) -> None:
    encoder = fit_section_encoder(sections, 16, QUICK.patch_um)
    encoded = [encode_section(s, encoder) for s in sections]
    epochs = SectionBatchDataset(encoded, 10, seed=0)
    batches = list(epochs)
    assert len(batches) == len(epochs) == 6
    assert sum(len(b["rows"]) for b in batches) == sum(map(len, sections))
    for batch in batches:
        section = next(
            e
            for e in encoded
            if e.target_features is batch["slide_features"]
            or torch.equal(e.target_features, batch["slide_features"])
        )
        torch.testing.assert_close(batch["labels"], section.section.labels[batch["rows"]])
        torch.testing.assert_close(
            batch["neighbor_features"], section.neighbor_features[batch["rows"]]
        )
    assert not torch.equal(next(iter(epochs))["patches"], next(iter(epochs))["patches"])


def test_the_same_seed_gives_the_same_network(
    sections: list[PreparedSection], panel: Panel
) -> None:
    encoder = fit_section_encoder(sections[:2], 16, QUICK.patch_um)
    training = [encode_section(s, encoder) for s in sections[:2]]
    text = make_random_gene_text(panel, 8, 1)
    one, two = (
        fit_network(training, text, QUICK, encode_section(sections[2], encoder)) for _ in range(2)
    )
    assert one.curve == two.curve and len(one.curve) == 2
    for (name, a), b in zip(
        one.network.state_dict().items(), two.network.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    labels = torch.cat([s.section.labels for s in training])
    torch.testing.assert_close(one.network.label_mean, labels.mean(0))


def test_training_stops_when_validation_does_not_improve(
    sections: list[PreparedSection], panel: Panel
) -> None:
    encoder = fit_section_encoder(sections[:2], 16, QUICK.patch_um)
    still = replace(QUICK, epochs=30, lr=0.0, average=0.0)
    training = [encode_section(s, encoder) for s in sections[:2]]
    fitted = fit_network(
        training, make_random_gene_text(panel, 8, 1), still, encode_section(sections[2], encoder)
    )
    assert len(fitted.curve) == 2 and fitted.best_epoch == 1


def test_a_trained_checkpoint_has_its_scores_on_the_card(
    sections: list[PreparedSection], panel: Panel, tmp_path: Path
) -> None:
    lines: list[str] = []
    made = train_on_sections(
        sections, panel, settings=QUICK, card={"title": "tiny"}, log=lines.append
    )
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, made, half=True)
    loaded = load_checkpoint(path)
    assert (
        loaded.panel == panel
        and loaded.label_scale == DEFAULT_LABEL_SCALE
        and loaded.title == "tiny"
    )
    card = loaded.card
    assert card["training_data"]["spots"] == {s.name: len(s) for s in sections}
    for method in ("dkan", "ridge", "training_mean"):
        assert set(card["metrics"][method]["pcc_all_per_section"]) == {
            "part 1",
            "part 2",
            "part 3",
        }
    assert card["metrics"]["training_mean"]["pcc_all"] is None
    assert card["per_gene_pcc"]["ERBB2"].keys() == {"dkan", "ridge"}
    assert len(lines) == 4

    tiles = torch.randint(0, 255, (3, 3, 56, 56), dtype=torch.uint8)
    features = loaded.build_tile_encoder()(tiles)
    torch.testing.assert_close(features, made.build_tile_encoder()(tiles), atol=0.05, rtol=0.01)


def test_two_sections_are_too_few_for_cross_validation(
    sections: list[PreparedSection], panel: Panel
) -> None:
    with pytest.raises(SpotsError, match="at least 3 sections, not 2"):
        train_on_sections(sections[:2], panel, settings=QUICK)


def test_gene_text_is_in_panel_order(data_dir: Path, panel: Panel, tmp_path: Path) -> None:
    path = data_dir / "genes" / "gene_text_embedding_biobert1024_her2st.npz"
    text = read_gene_text(path, panel, 12)
    assert text.features.shape == (40, 12) and "12 principal components" in text.source
    backwards = read_gene_text(path, Panel.from_symbols(panel.symbols[::-1]), 12)
    torch.testing.assert_close(backwards.features.flip(0), text.features, atol=1e-3, rtol=1e-3)
    with pytest.raises(SpotsError, match="no text for 1 panel genes, NOTAGENE"):
        read_gene_text(path, Panel.from_symbols(["ERBB2", "NOTAGENE"]), 12)
    np.save(tmp_path / "code.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(SpotsError, match="cannot be read as gene text"):
        read_gene_text(tmp_path / "code.npy", panel, 12)


def test_the_bundled_checkpoint_has_panel_scores_and_licence(data_dir: Path) -> None:
    import napari_dkan

    path = Path(napari_dkan.__file__).parent / "checkpoints" / "her2-breast.safetensors"
    bundled = path.parent.glob("*.safetensors")
    assert sum(f.stat().st_size for f in bundled) <= 15_000_000  # they travel with the package
    bundled = load_checkpoint(path)
    full = read_panel(data_dir / "genes" / "panel_her2st_250.txt")
    assert bundled.panel.symbols == full.symbols
    metrics = bundled.card["metrics"]
    for method in ("dkan", "ridge"):
        assert 0.3 < metrics[method]["pcc_all"] < 0.7
    assert "CC-BY-4.0" in bundled.card["licence"]
