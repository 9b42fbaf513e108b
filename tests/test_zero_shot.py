"""Genes outside the panel: placed by their text, marked, measured, and off without proof."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_dkan.cli import main
from napari_dkan.errors import CheckpointError, SpotsError
from napari_dkan.expression.panel import Panel
from napari_dkan.inference.zero_shot_genes import (
    explain_zero_shot_unavailable,
    load_zero_shot_genes,
    read_zero_shot_expectation,
)
from napari_dkan.model import DKAN, Checkpoint, load_checkpoint, save_checkpoint
from napari_dkan.model.network.ensemble import Ensemble
from napari_dkan.model.text_basis import TextBasis
from napari_dkan.training.data.prepared_section import PreparedSection, fit_section_encoder
from napari_dkan.training.evaluation import zero_shot_evaluation as zeroshot
from napari_dkan.training.fit.fit_model import FittedModel
from napari_dkan.training.genes.gene_text import GeneTextEmbeddings
from napari_dkan.training.train_settings import TrainSettings

from .zero_shot_files import ENCODER, LENGTH, PROVEN, UNPROVEN, gene_file, with_text


@pytest.fixture(scope="module")
def proven(tiny_checkpoint_file, tmp_path_factory) -> Checkpoint:
    path = tmp_path_factory.mktemp("proven") / "proven.safetensors"
    return with_text(tiny_checkpoint_file, path, PROVEN)


@pytest.fixture(scope="module")
def genes(tmp_path_factory) -> Path:
    return gene_file(tmp_path_factory.mktemp("genes") / "genes.safetensors")


# --- the network ---------------------------------------------------------------------------


def test_a_new_gene_changes_nobody_elses_token(proven: Checkpoint):
    network = proven.network
    features = torch.randn(5, network.config.text_dim)
    with torch.no_grad():
        before = network.encode_genes().clone()
        tokens = network.encode_new_genes(features)
        one = network.encode_new_genes(features[3:4])
        # what a panel with this gene at its end would give it
        joined = torch.cat([network.gene_features, features[3:4]])[None]
        wanted = network.text_fit(network.text(joined)[0, -1])
    assert tokens.shape == (5, network.config.dim)
    torch.testing.assert_close(one[0], tokens[3])
    torch.testing.assert_close(one[0], wanted)
    assert torch.equal(network.encode_genes(), before)
    assert len(network.encode_new_genes(features[:0])) == 0
    with pytest.raises(SpotsError, match="gene features have shape"):
        network.encode_new_genes(torch.randn(2, 3))


def test_tokens_decode_as_the_panel_does(proven: Checkpoint):
    network, z = proven.network, torch.randn(7, proven.network.config.dim)
    with torch.no_grad():
        standardised = network.decode_gene_tokens(z, network.encode_genes())
        torch.testing.assert_close(network.to_label_scale(standardised), network.decode(z))


def test_an_ensemble_places_a_gene_by_the_mean_of_its_members(proven: Checkpoint):
    torch.manual_seed(3)
    config = proven.network.config
    members = [DKAN(config, torch.randn(config.genes, config.text_dim)).eval() for _ in range(2)]
    both = Ensemble(members).eval()
    features = torch.randn(2, config.text_dim)
    z = [torch.randn(4, config.dim) for _ in members]
    with torch.no_grad():
        each = [
            m.decode_gene_tokens(own, m.encode_new_genes(features))
            for m, own in zip(members, z, strict=True)
        ]
        got = both.decode_gene_tokens(torch.cat(z, dim=1), both.encode_new_genes(features))
    torch.testing.assert_close(got, torch.stack(each).mean(dim=0))


# --- the checkpoint ------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
def test_the_text_basis_survives_the_file(proven: Checkpoint, tmp_path, half):
    path = tmp_path / "c.safetensors"
    loaded = load_checkpoint(save_checkpoint(path, proven, half=half).path).text_basis
    given = proven.text_basis
    assert (loaded.encoder, loaded.scale) == (given.encoder, given.scale)
    texts = torch.randn(3, LENGTH)
    torch.testing.assert_close(
        loaded.project(texts), given.project(texts), atol=0.02 if half else 0.0, rtol=0.0
    )


def test_a_checkpoint_without_one_still_loads(tiny_checkpoint_file, genes):
    old = load_checkpoint(tiny_checkpoint_file)
    assert old.text_basis is None and "cannot place genes" in explain_zero_shot_unavailable(
        old, allow_unproven=True
    )
    with pytest.raises(SpotsError, match="holds no text basis"):
        load_zero_shot_genes(old, genes, allow_unproven=True)


def _shape(tensors, data):
    tensors["text.axes"] = tensors["text.axes"][:, :-1].contiguous()


def _length(tensors, data):
    tensors["text.mean"] = torch.zeros(LENGTH + 1)


def _missing(tensors, data):
    del tensors["text.mean"]


def _no_entry(tensors, data):
    del data["text_basis"]


def _scale(tensors, data):
    data["text_basis"]["scale"] = 0.0


def _not_finite(tensors, data):
    tensors["text.axes"][0, 0] = float("nan")


def _type(tensors, data):
    tensors["text.mean"] = torch.zeros(LENGTH, dtype=torch.int64)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_shape, "which do not fit a network that takes 16"),
        (_length, "which do not fit"),
        (_missing, "text basis is incomplete"),
        (_no_entry, "text basis is incomplete"),
        (_scale, "impossible scale"),
        (_not_finite, "not finite"),
        (_type, "not floats"),
    ],
)
def test_a_damaged_basis_is_refused(proven: Checkpoint, tmp_path, damage, said):
    tensors = load_file(proven.path)
    with safe_open(proven.path, "pt") as file:
        data = json.loads(file.metadata()["napari_dkan"])
    damage(tensors, data)
    path = tmp_path / "bad.safetensors"
    save_file(tensors, path, {"napari_dkan": json.dumps(data)})
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(path)


# --- which genes, and whether ----------------------------------------------------------------


def test_genes_of_a_file_that_are_not_in_the_panel(proven: Checkpoint, genes):
    found = load_zero_shot_genes(proven, genes)
    assert found.symbols == ("FOXP3", "MLANA") and found.symbols_in_panel == ()
    assert found.text_features.shape == (2, proven.network.config.text_dim)
    named = load_zero_shot_genes(proven, genes, ["MLANA", "ERBB2", "KRT8", "MLANA"])
    assert named.symbols == ("MLANA",) and named.symbols_in_panel == ("ERBB2", "KRT8")
    torch.testing.assert_close(named.text_features[0], found.text_features[1])
    assert load_zero_shot_genes(proven, genes, ["ENSG00000049768"]).symbols == ("FOXP3",)


def test_genes_that_cannot_be_placed_are_refused(proven: Checkpoint, genes, tmp_path):
    with pytest.raises(SpotsError, match="has no text for NOSUCH"):
        load_zero_shot_genes(proven, genes, ["NOSUCH"])
    with pytest.raises(SpotsError, match="no description of AP000769"):
        load_zero_shot_genes(proven, genes, ["AP000769.1"])
    other = gene_file(tmp_path / "o.safetensors", replace(ENCODER, sha256="ffff"))
    with pytest.raises(SpotsError, match=r"encoder words \(ffff\).*takes words \(0123456789ab\)"):
        load_zero_shot_genes(proven, other)


@pytest.mark.parametrize("card", [None, UNPROVEN, {"pcc": "high", "beats_shuffled": True}, [1]])
def test_without_proof_it_is_off(tiny_checkpoint_file, genes, tmp_path, card):
    checkpoint = with_text(tiny_checkpoint_file, tmp_path / "c.safetensors", card)
    known = read_zero_shot_expectation(checkpoint)
    assert (
        not known.beats_shuffled
        and explain_zero_shot_unavailable(checkpoint)
        and not explain_zero_shot_unavailable(checkpoint, True)
    )
    wanted = "does not beat shuffled text" if card is UNPROVEN else "never measured"
    assert wanted in known.summary
    with pytest.raises(SpotsError, match=f"{wanted}.*--allow-unproven"):
        load_zero_shot_genes(checkpoint, genes)
    assert len(load_zero_shot_genes(checkpoint, genes, allow_unproven=True).genes) == 2


# --- the measurement -------------------------------------------------------------------------


def test_draws_are_disjoint_and_span_the_expression():
    mean = np.random.default_rng(0).gamma(2.0, size=250)
    draws = zeroshot.draw_held_out_genes(mean, 25, 3, seed=1)
    rank = mean.argsort().argsort()
    assert len(np.unique(np.concatenate(draws))) == 75
    for rows in draws:
        assert (np.sort(rank[rows]) // 10).tolist() == list(range(25))  # one of every class
    with pytest.raises(SpotsError, match="do not fit a panel of 40"):
        zeroshot.draw_held_out_genes(mean[:40], 25, 3, seed=1)


def _drawn(signal: float, seed: int) -> zeroshot.HeldOutDraw:
    rng = np.random.default_rng(seed)
    pcc = 0.25 + 0.1 * rng.normal(size=(25, 25)) + signal * np.eye(25)
    return zeroshot.HeldOutDraw(np.arange(25), pcc, np.full(25, 0.3), 0.5)


def test_the_verdict_takes_two_standard_errors():
    for signal, beats in ((0.15, True), (0.0, False), (-0.2, False)):
        report = zeroshot.summarize_draws([_drawn(signal, s) for s in range(3)], 100, seed=0)
        assert report["beats_shuffled"] is beats
        assert report["difference"] == pytest.approx(signal, abs=0.05)
        assert report["shuffled_pcc"] == pytest.approx(0.25, abs=0.02)
    draw = _drawn(0.0, 0)
    draw.pcc_by_text[np.diag_indices(25)] = 9.0
    assert draw.sample_shuffled_pcc(50, 0).max() < 9  # nobody keeps its own text


def test_held_out_genes_reach_nothing_that_is_trained(monkeypatch):
    """The trained parts see neither their labels nor their text."""
    torch.manual_seed(0)
    settings = TrainSettings(
        epochs=1, dim=8, text_dim=8, trunk="test_vit", trunk_dim=64, patch_px=64, members=1
    )
    panel = Panel.from_symbols(f"G{i}" for i in range(12))
    text = GeneTextEmbeddings(torch.randn(12, LENGTH), "words", "a file")
    sections = [_section(name, panel) for name in ("A", "B", "C")]
    seen = []

    def fit_model(training, known, settings, epochs):
        seen.append((training, known))
        encoder = fit_section_encoder(training, settings.dim, settings.patch_um)
        network = DKAN(settings.network_config(training[0].labels.shape[1]), known.features)
        return FittedModel(encoder, network.eval())

    monkeypatch.setattr(zeroshot, "fit_model", fit_model)
    report = zeroshot.evaluate_zero_shot(
        sections, panel, text, settings, held_out=3, draws=2, shuffles=10
    )
    json.dumps(report, allow_nan=False)
    assert len(seen) == 6 and len(report["per_gene"]) == 6
    held = list(report["per_gene"])
    for number, (training, known) in enumerate(seen):
        out = sorted(panel.row(g) for g in held[3 * (number // 3) : 3 * (number // 3) + 3])
        kept = [i for i in range(12) if i not in out]
        assert [s.name for s in training] == [n for n in "ABC" if n != "ABC"[number % 3]]
        for part in training:
            whole = next(s for s in sections if s.name == part.name)
            assert torch.equal(part.labels, whole.labels[:, kept])
        alone = TextBasis.fit(text.embeddings[kept], 8, "words")
        torch.testing.assert_close(known.basis.axes, alone.axes)
        torch.testing.assert_close(known.basis.mean, alone.mean)
    card = zeroshot.build_zero_shot_card(report)
    assert card["beats_shuffled"] is False and card["epochs"] == 1 and "library" in card["protocol"]


def _section(name: str, panel: Panel) -> PreparedSection:
    n = 14
    return PreparedSection(
        name=name,
        labels=torch.rand(n, len(panel)),
        positions=torch.stack([torch.arange(n) % 4, torch.arange(n) // 4], dim=1),
        patches=torch.randint(0, 255, (n, 3, 64, 64), dtype=torch.uint8),
        statistics=torch.rand(n, 25, 104),
        mask=torch.ones(n, 25, dtype=torch.bool),
        mpp=0.7,
        spot_pitch_um=200.0,
        spot_diameter_um=100.0,
    )


# --- the command line --------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["napari-dkan", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        out = capsys.readouterr()
        return exit.value.code or 0, out.out, out.err

    return call


def test_the_command_line_adds_marked_columns(
    run, proven: Checkpoint, genes, tiny_slide_file, tmp_path
):
    predict = ("predict", tiny_slide_file, "--checkpoint", proven.path, "--device", "cpu")
    plain, marked = tmp_path / "plain.h5ad", tmp_path / "marked.h5ad"
    assert run(*predict, "--genes", "KRT8,ERBB2", "-o", plain)[0] == 0
    code, _, err = run(
        *predict, "--genes", "KRT8", "--zero-shot", f"{genes}:MLANA,HER2", "-o", marked
    )
    assert code == 0 and "in the panel, predicted as trained: ERBB2" in err
    assert "expected PCC 0.36; shuffled text 0.28; panel's mean 0.36" in err
    data, before = anndata.read_h5ad(marked), anndata.read_h5ad(plain)
    assert list(data.var_names) == ["KRT8", "ERBB2", "MLANA"]
    np.testing.assert_allclose(data[:, :2].X, before.X, atol=1e-6)  # the panel's stay as they are
    assert np.isfinite(data.X).all() and data.X[:, 2].std() > 0
    assert data.var["zero_shot"].tolist() == [False, False, True]
    assert data.var["zero_shot_expected_pcc"]["MLANA"] == pytest.approx(0.36)
    assert np.isnan(data.var["zero_shot_expected_pcc"]["KRT8"])
    record = data.uns["napari_dkan"]["zero_shot"]
    assert list(record["genes"]) == ["MLANA"] and "standard deviations" in record["units"]
    assert record["beats_shuffled"] and record["shuffled_pcc"] == pytest.approx(0.28)
    assert "zero_shot" not in before.var


def test_the_command_line_wants_to_be_told(
    run, tiny_checkpoint_file, genes, tiny_slide_file, tmp_path
):
    weak = with_text(tiny_checkpoint_file, tmp_path / "weak.safetensors", UNPROVEN)
    out = tmp_path / "out.h5ad"
    asked = ("predict", tiny_slide_file, "--checkpoint", weak.path, "--zero-shot", genes, "-o", out)
    code, _, err = run(*asked)
    assert code == 2 and "does not beat shuffled text" in err and not out.exists()
    assert run(*asked, "--allow-unproven", "--genes", "KRT8")[0] == 0
    data = anndata.read_h5ad(out)
    assert list(data.var_names) == ["KRT8", "FOXP3", "MLANA"]
    assert not data.uns["napari_dkan"]["zero_shot"]["beats_shuffled"]
