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
from napari_dkan.expression.label_scale import LabelScale, PanelCounts
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
from napari_dkan.training.evaluation import zero_shot_evaluation
from napari_dkan.training.fit.fit_model import FittedModel
from napari_dkan.training.gene_text import GeneTextEmbeddings
from napari_dkan.training.network_shapes import make_network_config
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


def test_new_gene_does_not_change_other_tokens(proven: Checkpoint):
    network = proven.network
    features = torch.randn(5, network.config.text_dim)
    with torch.no_grad():
        before = network.encode_genes().clone()
        tokens = network.encode_new_genes(features)
        one = network.encode_new_genes(features[3:4])
        # The token that a panel with this gene at its end would have.
        joined = torch.cat([network.gene_features, features[3:4]])[None]
        expected = network.text_fit(network.text(joined)[0, -1])
    assert tokens.shape == (5, network.config.dim)
    torch.testing.assert_close(one[0], tokens[3])
    torch.testing.assert_close(one[0], expected)
    assert torch.equal(network.encode_genes(), before)
    assert len(network.encode_new_genes(features[:0])) == 0
    with pytest.raises(SpotsError, match="gene features have shape"):
        network.encode_new_genes(torch.randn(2, 3))


def test_gene_tokens_decode_as_the_panel(proven: Checkpoint):
    network, z = proven.network, torch.randn(7, proven.network.config.dim)
    with torch.no_grad():
        standardised = network.decode_gene_tokens(z, network.encode_genes())
        torch.testing.assert_close(network.to_label_scale(standardised), network.decode(z))


def test_ensemble_predicts_the_mean_of_its_members(proven: Checkpoint):
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
        predicted = both.decode_gene_tokens(torch.cat(z, dim=1), both.encode_new_genes(features))
    torch.testing.assert_close(predicted, torch.stack(each).mean(dim=0))


# --- the checkpoint ------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
def test_text_basis_roundtrip(proven: Checkpoint, tmp_path, half):
    path = tmp_path / "c.safetensors"
    loaded = load_checkpoint(save_checkpoint(path, proven, half=half).path).text_basis
    given = proven.text_basis
    assert (loaded.encoder, loaded.scale) == (given.encoder, given.scale)
    texts = torch.randn(3, LENGTH)
    torch.testing.assert_close(
        loaded.project(texts), given.project(texts), atol=0.02 if half else 0.0, rtol=0.0
    )


def test_checkpoint_without_text_basis_loads(tiny_checkpoint_file, genes):
    old = load_checkpoint(tiny_checkpoint_file)
    assert old.text_basis is None and "cannot place genes" in explain_zero_shot_unavailable(
        old, allow_unproven=True
    )
    with pytest.raises(SpotsError, match="holds no text basis"):
        load_zero_shot_genes(old, genes, allow_unproven=True)


def _change_shape(tensors, data):
    tensors["text.axes"] = tensors["text.axes"][:, :-1].contiguous()


def _change_length(tensors, data):
    tensors["text.mean"] = torch.zeros(LENGTH + 1)


def _remove_tensor(tensors, data):
    del tensors["text.mean"]


def _remove_entry(tensors, data):
    del data["text_basis"]


def _change_scale(tensors, data):
    data["text_basis"]["scale"] = 0.0


def _set_nan(tensors, data):
    tensors["text.axes"][0, 0] = float("nan")


def _change_dtype(tensors, data):
    tensors["text.mean"] = torch.zeros(LENGTH, dtype=torch.int64)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_change_shape, "which do not fit a network that takes 16"),
        (_change_length, "which do not fit"),
        (_remove_tensor, "text basis is incomplete"),
        (_remove_entry, "text basis is incomplete"),
        (_change_scale, "impossible scale"),
        (_set_nan, "not finite"),
        (_change_dtype, "not floats"),
    ],
)
def test_damaged_text_basis_is_rejected(proven: Checkpoint, tmp_path, damage, message):
    tensors = load_file(proven.path)
    with safe_open(proven.path, "pt") as file:
        data = json.loads(file.metadata()["napari_dkan"])
    damage(tensors, data)
    path = tmp_path / "bad.safetensors"
    save_file(tensors, path, {"napari_dkan": json.dumps(data)})
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


# --- genes of a file ------------------------------------------------------------------------


def test_load_genes_that_are_not_in_the_panel(proven: Checkpoint, genes):
    loaded = load_zero_shot_genes(proven, genes)
    assert loaded.symbols == ("FOXP3", "MLANA") and loaded.symbols_in_panel == ()
    assert loaded.text_features.shape == (2, proven.network.config.text_dim)
    named = load_zero_shot_genes(proven, genes, ["MLANA", "ERBB2", "KRT8", "MLANA"])
    assert named.symbols == ("MLANA",) and named.symbols_in_panel == ("ERBB2", "KRT8")
    torch.testing.assert_close(named.text_features[0], loaded.text_features[1])
    assert load_zero_shot_genes(proven, genes, ["ENSG00000049768"]).symbols == ("FOXP3",)


def test_genes_without_text_are_rejected(proven: Checkpoint, genes, tmp_path):
    with pytest.raises(SpotsError, match="has no text for NOSUCH"):
        load_zero_shot_genes(proven, genes, ["NOSUCH"])
    with pytest.raises(SpotsError, match="no description of AP000769"):
        load_zero_shot_genes(proven, genes, ["AP000769.1"])
    other = gene_file(tmp_path / "o.safetensors", replace(ENCODER, sha256="ffff"))
    with pytest.raises(SpotsError, match=r"encoder words \(ffff\).*takes words \(0123456789ab\)"):
        load_zero_shot_genes(proven, other)


@pytest.mark.parametrize("card", [None, UNPROVEN, {"pcc": "high", "beats_shuffled": True}, [1]])
def test_unproven_checkpoint_needs_permission(tiny_checkpoint_file, genes, tmp_path, card):
    checkpoint = with_text(tiny_checkpoint_file, tmp_path / "c.safetensors", card)
    known = read_zero_shot_expectation(checkpoint)
    assert (
        not known.beats_shuffled
        and explain_zero_shot_unavailable(checkpoint)
        and not explain_zero_shot_unavailable(checkpoint, True)
    )
    expected = "does not beat shuffled text" if card is UNPROVEN else "never measured"
    assert expected in known.summary
    with pytest.raises(SpotsError, match=f"{expected}.*allow unproven genes"):
        load_zero_shot_genes(checkpoint, genes)
    assert len(load_zero_shot_genes(checkpoint, genes, allow_unproven=True).genes) == 2


# --- the evaluation --------------------------------------------------------------------------


def test_draws_are_disjoint_and_span_the_expression():
    mean = np.random.default_rng(0).gamma(2.0, size=250)
    draws = zero_shot_evaluation.draw_held_out_genes(mean, 25, 3, seed=1)
    rank = mean.argsort().argsort()
    assert len(np.unique(np.concatenate(draws))) == 75
    for rows in draws:
        assert (np.sort(rank[rows]) // 10).tolist() == list(range(25))  # one of each bin
    with pytest.raises(SpotsError, match="do not fit a panel of 40"):
        zero_shot_evaluation.draw_held_out_genes(mean[:40], 25, 3, seed=1)


def _make_draw(signal: float, seed: int) -> zero_shot_evaluation.HeldOutDraw:
    rng = np.random.default_rng(seed)
    pcc = 0.25 + 0.1 * rng.normal(size=(25, 25)) + signal * np.eye(25)
    return zero_shot_evaluation.HeldOutDraw(np.arange(25), pcc, np.full(25, 0.3), 0.5)


def test_verdict_needs_two_standard_errors():
    for signal, beats in ((0.15, True), (0.0, False), (-0.2, False)):
        report = zero_shot_evaluation.summarize_draws(
            [_make_draw(signal, s) for s in range(3)], 100, seed=0
        )
        assert report["beats_shuffled"] is beats
        assert report["difference"] == pytest.approx(signal, abs=0.05)
        assert report["shuffled_pcc"] == pytest.approx(0.25, abs=0.02)
    draw = _make_draw(0.0, 0)
    draw.pcc_by_text[np.diag_indices(25)] = 9.0
    assert draw.sample_shuffled_pcc(50, 0).max() < 9  # no gene has its own text


def test_held_out_genes_are_not_used_in_training(monkeypatch):
    """The trained parts see neither their labels nor their text."""
    torch.manual_seed(0)
    settings = TrainSettings(
        epochs=1, dim=8, text_dim=8, trunk="test_vit", trunk_dim=64, patch_px=64, members=1
    )
    panel = Panel.from_symbols(f"G{i}" for i in range(12))
    text = GeneTextEmbeddings(torch.randn(12, LENGTH), "words", "a file")
    sections = [_section(name, panel) for name in ("A", "B", "C")]
    fits = []

    def fit_model(training, known, settings, epochs):
        fits.append((training, known))
        encoder = fit_section_encoder(training, settings.dim, settings.patch_um)
        network = DKAN(make_network_config(settings, training[0].labels.shape[1]), known.features)
        return FittedModel(encoder, network.eval())

    monkeypatch.setattr(zero_shot_evaluation, "fit_model", fit_model)
    report = zero_shot_evaluation.evaluate_zero_shot(
        sections, panel, text, settings, held_out=3, draws=2, shuffles=10
    )
    json.dumps(report, allow_nan=False)
    assert len(fits) == 6 and len(report["per_gene"]) == 6
    held_out_symbols = list(report["per_gene"])
    for number, (training, known) in enumerate(fits):
        held_out_rows = sorted(
            panel.row(g) for g in held_out_symbols[3 * (number // 3) : 3 * (number // 3) + 3]
        )
        training_rows = [i for i in range(12) if i not in held_out_rows]
        assert [s.name for s in training] == [n for n in "ABC" if n != "ABC"[number % 3]]
        for part in training:
            section = next(s for s in sections if s.name == part.name)
            assert torch.equal(part.labels, section.labels[:, training_rows])
        alone = TextBasis.fit(text.embeddings[training_rows], 8, "words")
        torch.testing.assert_close(known.basis.axes, alone.axes)
        torch.testing.assert_close(known.basis.mean, alone.mean)
    card = zero_shot_evaluation.build_zero_shot_card(report)
    assert card["beats_shuffled"] is False and card["epochs"] == 1 and "library" in card["protocol"]
    # the depth-partial figures are others, and go on the card
    assert card["depth_partial"]["pcc"] == report["depth_partial"]["pcc"] != card["pcc"]


def test_depth_alone_is_no_knowledge_of_a_held_out_gene():
    section, held_out = _section("A", Panel.from_symbols(f"G{i}" for i in range(6))), [1, 4]
    depth, rng = section.counts.depth, np.random.default_rng(0)
    own = np.c_[depth, -depth] + 0.1 * depth.std() * rng.normal(size=(len(depth), 2))
    labels = section.labels.clone()
    labels[:, held_out] = torch.from_numpy(np.c_[depth, -depth]).float() + 1e-4 * torch.rand(14, 2)
    predictions = [(rng.normal(size=(len(depth), 4)), own)]
    plain, partial = (
        zero_shot_evaluation._score_draw(
            [replace(section, labels=labels)], predictions, np.array(held_out), correlate
        )
        for correlate in (zero_shot_evaluation._plain_pcc, zero_shot_evaluation._partial_pcc)
    )
    assert plain.own_text_pcc.min() > 0.95 and np.abs(partial.own_text_pcc).max() < 0.7


def test_verdict_is_by_the_depth_partial_figure_where_counts_are_known(monkeypatch):
    panel = Panel.from_symbols(f"G{i}" for i in range(50))
    text = GeneTextEmbeddings(torch.randn(50, LENGTH), "words", "a file")
    sections = [_section(name, panel) for name in "AB"]
    by_plain = _make_draw(0.15, 0), _make_draw(0.0, 0)
    for draws, beats in ((by_plain, False), (by_plain[::-1], True), ((by_plain[0], None), True)):
        monkeypatch.setattr(zero_shot_evaluation, "_evaluate_draw", lambda *_, d=draws: d)
        report = zero_shot_evaluation.evaluate_zero_shot(
            sections, panel, text, TrainSettings(), draws=1
        )
        assert report["beats_shuffled"] is beats


def test_expectation_is_told_beside_depth_where_the_card_has_it(proven: Checkpoint):
    figures = {"pcc": 0.21, "shuffled_pcc": 0.11, "panel_mean_pcc": 0.16}
    for partial, words in (
        (figures, "expected depth-partial PCC 0.21; shuffled text 0.11; panel's mean 0.16"),
        (figures | {"pcc": "high"}, "expected PCC 0.36; shuffled text 0.28; panel's mean 0.36"),
    ):
        card = {"zero_shot": PROVEN | {"depth_partial": partial}}
        assert read_zero_shot_expectation(replace(proven, card=card)).summary == words


def _section(name: str, panel: Panel) -> PreparedSection:
    n = 14
    positions = torch.stack([torch.arange(n) % 4, torch.arange(n) // 4], dim=1)
    counts = np.random.default_rng(len(name)).poisson(20.0, (n, len(panel))).astype(np.float32)
    return PreparedSection(
        name=name,
        labels=torch.rand(n, len(panel)),
        positions=positions,
        counts=PanelCounts(counts, positions.numpy(), LabelScale()),
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
        output = capsys.readouterr()
        return exit.value.code or 0, output.out, output.err

    return call


def test_command_line_adds_marked_columns(
    run, proven: Checkpoint, genes, tiny_slide_file, tmp_path
):
    predict = ("predict", tiny_slide_file, "--checkpoint", proven.path, "--device", "cpu")
    panel_file, zero_shot_file = tmp_path / "plain.h5ad", tmp_path / "marked.h5ad"
    assert run(*predict, "--genes", "KRT8,ERBB2", "-o", panel_file)[0] == 0
    code, _, err = run(
        *predict, "--genes", "KRT8", "--zero-shot", f"{genes}:MLANA,HER2", "-o", zero_shot_file
    )
    assert code == 0 and "in the panel, predicted as trained: ERBB2" in err
    assert "expected PCC 0.36; shuffled text 0.28; panel's mean 0.36" in err
    data, before = anndata.read_h5ad(zero_shot_file), anndata.read_h5ad(panel_file)
    assert list(data.var_names) == ["KRT8", "ERBB2", "MLANA"]
    np.testing.assert_allclose(data[:, :2].X, before.X, atol=1e-6)
    assert np.isfinite(data.X).all() and data.X[:, 2].std() > 0
    assert data.var["zero_shot"].tolist() == [False, False, True]
    assert data.var["zero_shot_expected_pcc"]["MLANA"] == pytest.approx(0.36)
    assert np.isnan(data.var["zero_shot_expected_pcc"]["KRT8"])
    record = data.uns["napari_dkan"]["zero_shot"]
    assert list(record["genes"]) == ["MLANA"] and "standard deviations" in record["units"]
    assert record["beats_shuffled"] and record["shuffled_pcc"] == pytest.approx(0.28)
    assert "zero_shot" not in before.var


def test_command_line_needs_permission_for_unproven_genes(
    run, tiny_checkpoint_file, genes, tiny_slide_file, tmp_path
):
    unproven = with_text(tiny_checkpoint_file, tmp_path / "weak.safetensors", UNPROVEN)
    output = tmp_path / "out.h5ad"
    arguments = (
        "predict",
        tiny_slide_file,
        "--checkpoint",
        unproven.path,
        "--zero-shot",
        genes,
        "-o",
        output,
    )
    code, _, err = run(*arguments)
    assert code == 2 and "does not beat shuffled text" in err and not output.exists()
    assert run(*arguments, "--allow-unproven", "--genes", "KRT8")[0] == 0
    data = anndata.read_h5ad(output)
    assert list(data.var_names) == ["KRT8", "FOXP3", "MLANA"]
    assert not data.uns["napari_dkan"]["zero_shot"]["beats_shuffled"]
