"""Methods beside DKAN: their defining properties, their files, and one engine for all of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_dkan.cli import main
from napari_dkan.errors import CheckpointError
from napari_dkan.expression.label_scale import LabelScale, PanelCounts
from napari_dkan.inference.occlusion import attribute_gene, occlude_spot
from napari_dkan.inference.predict import find_tissue_region, predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.spot_inputs import gather_spot_inputs
from napari_dkan.inference.target import target_from_region
from napari_dkan.model import (
    DKAN,
    Checkpoint,
    DKANConfig,
    describe_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from napari_dkan.model.methods.method_configs import CONFIGS, TITLES, TriplexConfig
from napari_dkan.model.methods.method_networks import create_network
from napari_dkan.model.methods.retrieval import MclSTExp, RetrievalNetwork
from napari_dkan.model.text_basis import TextBasis
from napari_dkan.slide import open_slide
from napari_dkan.spatial.spots import Spots
from napari_dkan.training.baselines import BASELINES, fit_ridge
from napari_dkan.training.block_bootstrap import bootstrap_pcc
from napari_dkan.training.data.prepared_section import encode_section, fit_section_encoder
from napari_dkan.training.data.section_batches import make_section_batch
from napari_dkan.training.depth_reference import DepthReference
from napari_dkan.training.evaluation.crossval import cross_validate
from napari_dkan.training.evaluation.crossval_report import (
    build_crossval_report,
    list_chosen_epochs,
)
from napari_dkan.training.evaluation.crossval_result import CrossValidationResult, FoldResult
from napari_dkan.training.evaluation.folds import Fold
from napari_dkan.training.evaluation.paired_differences import (
    compute_paired_differences,
    format_paired_differences,
)
from napari_dkan.training.finetuning.finetune_checkpoint import finetune_checkpoint
from napari_dkan.training.finetuning.finetune_settings import FinetuneSettings
from napari_dkan.training.fit.losses import smoothed_contrast
from napari_dkan.training.fit.method_modules import (
    build_untrained_network,
    make_lightning_module,
)
from napari_dkan.training.fit.run_folder import RunFolder
from napari_dkan.training.gene_text import make_random_gene_text
from napari_dkan.training.train import train_on_sections
from napari_dkan.training.train_settings import FoldUnit

from .tiny_sections import PANEL, QUICK, tiny_section

TEXT = make_random_gene_text(PANEL, 8, 1)
SMALL = replace(QUICK, trunk="none", epochs=2)
RIDGE = {"ridge": BASELINES["ridge"]}
OTHERS = [name for name in CONFIGS if name != "dkan"]


@pytest.fixture(scope="module")
def encoded():
    sections = [tiny_section(i) for i in range(2)]
    encoder = fit_section_encoder(sections, SMALL.dim, SMALL.patch_um)
    return [encode_section(s, encoder) for s in sections]


@pytest.fixture(scope="module", params=OTHERS)
def trained(request, tmp_path_factory) -> Checkpoint:
    """A checkpoint of each method, of two members with a linear path, from its file."""
    embeddings = torch.randn(len(PANEL), 12, generator=torch.Generator().manual_seed(2))
    checkpoint = train_on_sections(
        [tiny_section(i) for i in range(2)],
        PANEL,
        replace(TEXT, basis=TextBasis.fit(embeddings, 8, "test")),  # has no place in these
        settings=replace(SMALL, method=request.param, members=2, epochs=1),
        crossval=False,
    )
    path = tmp_path_factory.mktemp("methods") / f"{request.param}.safetensors"
    return load_checkpoint(save_checkpoint(path, checkpoint).path)


def run_generator(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def fused_of(network, encoded):
    """Tokens and global tokens of a whole section."""
    batch = make_section_batch(encoded)
    context = network.encode_global(batch["slide_features"], batch["positions"])
    neighbors = network.standardize_by_slide(batch["neighbor_features"], batch["slide_features"])
    fused = network.fuse(batch["patches"], neighbors, batch["neighbor_mask"], context)
    return fused, context


def test_linear_trained_to_the_end_is_ridge_regression(encoded) -> None:
    settings = replace(SMALL, method="linear", weight_decay=0.3)
    network = build_untrained_network(encoded[:1], TEXT, settings)
    module, batch = make_lightning_module(network, settings), make_section_batch(encoded[0])
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = module.compute_loss(batch)
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        z = fused_of(network, encoded[0])[0].z
        predicted = network.decode(z).numpy()
    x, labels = z.double().numpy(), encoded[0].section.labels.numpy()
    std = network.label_std.numpy()
    penalty = len(x) * settings.weight_decay / x.var(axis=0).mean()
    ridge = fit_ridge(x, labels / std, penalty)
    np.testing.assert_allclose(predicted, ridge.predict(x) * std, atol=2e-3)
    plain = fit_ridge(x, labels / std, penalty / 10)
    assert np.abs(predicted - plain.predict(x) * std).max() > 0.01


def test_triplex_is_dkan_without_text_and_dual_path(encoded) -> None:
    shape = {"genes": 12, "dim": 16, "trunk": "test_efficientnet", "trunk_dim": 256}
    torch.manual_seed(1)
    dkan = DKAN(DKANConfig(**shape, text_dim=8), TEXT.features).eval()
    triplex = create_network(TriplexConfig(**shape)).eval()
    shared = triplex.state_dict()
    triplex.load_state_dict({n: t for n, t in dkan.state_dict().items() if n in shared})
    batch = make_section_batch(encoded[0])
    inputs = [
        batch[n]
        for n in ("patches", "slide_features", "positions", "neighbor_features", "neighbor_mask")
    ]
    with_text, without = dkan.predict(*inputs), triplex.predict(*inputs)
    assert torch.equal(without["final"], with_text["fused"])
    for name in ("target", "neighbor", "global"):
        assert torch.equal(without[name], with_text[name])
    assert not torch.allclose(without["final"], with_text["final"])
    genes = torch.tensor([7, 2])
    fused, _ = fused_of(triplex, encoded[0])
    torch.testing.assert_close(triplex.decode(fused.z, genes), without["final"][:, genes])
    of_dkan, of_triplex = ({n.partition(".")[0] for n in s} for s in (dkan.state_dict(), shared))
    assert of_dkan - of_triplex == {
        *("text", "text_fit", "image", "expression", "expression_encoder", "head", "gene_features")
    }


@pytest.mark.parametrize("method", ["bleep", "mclstexp"])
def test_retrieval_returns_the_nearest_exemplar_exactly(encoded, method: str) -> None:
    settings = replace(SMALL, method=method)
    network = build_untrained_network(encoded, TEXT, settings).eval()
    assert isinstance(network, RetrievalNetwork) and network.config.bank == 48
    measured = torch.cat([e.section.labels for e in encoded])
    z = 3 * network.encode_bank()[[5, 30, 47]]  # the length of an embedding has no effect
    network.config = replace(network.config, top_k=1)
    torch.testing.assert_close(network.decode(z), measured[[5, 30, 47]])
    genes = torch.tensor([3, 0])
    torch.testing.assert_close(network.decode(z, genes), measured[[5, 30, 47]][:, genes])
    # k = 4 against a literal search, one spot at a time
    network.config = replace(network.config, top_k=4)
    fused, _ = fused_of(network, encoded[1])
    keys = network.encode_bank()
    for row, token in enumerate(fused.z[:5]):
        distance = (keys - token / token.norm()).square().sum(dim=1)
        nearest = distance.argsort()[:4]
        weight = torch.ones(4) if method == "bleep" else 1 / distance[nearest]
        expected = (weight[:, None] * measured[nearest]).sum(dim=0) / weight.sum()
        torch.testing.assert_close(network.decode(fused.z)[row], expected, atol=1e-4, rtol=1e-4)


def test_spots_of_mclstexp_see_their_section_and_its_positions(encoded) -> None:
    network = build_untrained_network(encoded, TEXT, replace(SMALL, method="mclstexp")).eval()
    assert isinstance(network, MclSTExp)
    labels = network.from_label_scale(encoded[0].section.labels)
    positions = encoded[0].section.positions
    with torch.no_grad():
        keys = network.encode_expression(labels, positions)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        shuffled = network.encode_expression(labels[order], positions[order])
        torch.testing.assert_close(shuffled, keys[order])
        moved = network.encode_expression(labels, positions.flip(1))
        assert (moved - keys).abs().max() > 0.01
        alone = torch.nn.functional.normalize(keys, dim=1)
    torch.testing.assert_close(network.encode_bank()[: len(labels)], alone)  # not of both sections
    network.bank_sections[0] = 1
    with pytest.raises(CheckpointError, match="bank are not in order"):
        network.validate_tensors()


def test_the_contrast_of_bleep_is_the_literal_one() -> None:
    image, expression = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(3))
    logits = expression @ image.T
    wanted = torch.softmax((image @ image.T + expression @ expression.T) / 2, dim=1)
    by_row = -(wanted * torch.log(torch.softmax(logits, dim=1))).sum(dim=1).mean()
    by_column = -(wanted.T * torch.log(torch.softmax(logits.T, dim=1))).sum(dim=1).mean()
    torch.testing.assert_close(smoothed_contrast(image, expression), (by_row + by_column) / 2)


def test_cross_validation_of_several_methods() -> None:
    sections = [tiny_section(i) for i in range(3)]
    methods = ["dkan", *OTHERS]
    result = cross_validate(sections, TEXT, replace(SMALL, epochs=1), methods=methods, baselines={})
    assert result.trained_methods == tuple(methods)
    report = json.loads(json.dumps(build_crossval_report(result, PANEL, {})))
    assert list(report["mean"]) == methods
    predicted = [result.folds[0].predictions[m][2021]["S0"] for m in methods]
    for i, one in enumerate(predicted):
        assert all(np.abs(one - other).max() > 1e-3 for other in predicted[:i])
    assert list_chosen_epochs(report, "bleep") == [1, 1, 1]
    assert report["costs"]["triplex"]["parameters"] < report["costs"]["dkan"]["parameters"]


def test_methods_are_added_to_finished_folds(tmp_path: Path) -> None:
    """None is trained again or dropped; the report has those asked for, in their order."""
    run = RunFolder.create_or_resume(tmp_path / "run", {"run": {}})

    def validate(*methods: str) -> CrossValidationResult:
        sections = [tiny_section(i) for i in range(3)]
        return cross_validate(
            sections, TEXT, replace(SMALL, epochs=1), methods=methods, baselines=RIDGE, run=run
        )

    first = validate("linear", "bleep")
    more = validate("triplex", "linear")
    assert more.trained_methods == ("triplex", "linear")
    assert more.methods[:3] == ("triplex", "linear", "ridge")
    assert validate("bleep").folds[1].costs.keys() == {"bleep", "ridge"}
    for one, other in zip(first.folds, more.folds, strict=True):
        assert other.costs["linear"] == one.costs["linear"]  # wall times: not trained again
        assert other.costs["ridge"].fit_seconds == one.costs["ridge"].fit_seconds
        np.testing.assert_equal(other.predictions["linear"], one.predictions["linear"])


def test_files_of_methods(trained: Checkpoint, tmp_path: Path) -> None:
    method = trained.network.config.method
    with safe_open(trained.path, "pt") as file:
        header = json.loads(file.metadata()["napari_dkan"])
    assert (header["format"], header["method"]) == (3, method)
    assert TITLES[method] in describe_checkpoint(trained)
    assert trained.reference is not None
    damaged = {
        "its method 'other' is unknown": {"method": "other"},
        "lacks|no place|unknown entry": {"method": "linear" if method != "linear" else "triplex"},
        "genes is 10": {"network": header["network"] | {"genes": 10**9}},
    }
    tensors = load_file(trained.path)
    for sentence, change in damaged.items():
        file = tmp_path / "damaged.safetensors"
        save_file(tensors, file, {"napari_dkan": json.dumps(header | change)})
        with pytest.raises(CheckpointError, match=sentence):
            load_checkpoint(file)


def test_one_engine_predicts_every_method(trained: Checkpoint, tiny_slide_file: Path) -> None:
    with open_slide(tiny_slide_file) as slide:
        predictor = Predictor(slide, trained, 0.7, find_tissue_region(slide, 0.7), "cpu")
        target = target_from_region(predictor.tissue, 400.0, 0.7, slide.width, slide.height)
        prediction = predict(predictor, target, with_spread=True)
        assert prediction.values.shape == (len(target), 12) and len(target) > 2
        assert np.isfinite(prediction.values).all() and np.ptp(prediction.values, axis=0).max() > 0
        tokens = prediction.tokens
        assert tokens is not None and tokens.shape[1] == trained.network.config.token_dim
        np.testing.assert_allclose(
            predictor.decode(tokens, [4, 1]), prediction.values[:, [4, 1]], atol=1e-5
        )
        # two members: their disagreement, beside the samples of a method that draws them
        spread = prediction.spread
        assert (
            spread is not None and (spread >= 0).all() and spread.shape == prediction.values.shape
        )
        genes, own = predictor.decoder.decode_with_spread(tokens, [4, 1])
        np.testing.assert_allclose(genes, prediction.values[:, [4, 1]], atol=1e-5)
        np.testing.assert_allclose(own, spread[:, [4, 1]], atol=1e-5)
        of_samples = "samples" in prediction.provenance["spread"]
        assert of_samples == (trained.network.config.method == "stem")
        assert prediction.get_gene_spread(prediction.panel.symbols[4], 1) == spread[1, 4]
        np.testing.assert_array_equal(prediction.take(np.array([2])).spread[0], spread[2])
        assert predict(predictor, target).spread is None
        # why here: without the patch another value, and a share of the context or none
        context = predictor.prediction_context
        inputs = run_generator(gather_spot_inputs(context, 800.0, 800.0))
        found = attribute_gene(context, occlude_spot(context, inputs), 0)
        assert np.isfinite([found.value, found.patch]).all() and np.isfinite(found.blocks).all()


def test_what_only_dkan_has_is_refused(trained: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match="only DKAN checkpoints can be fine-tuned"):
        finetune_checkpoint(trained, [], FinetuneSettings())
    with pytest.raises(CheckpointError, match="no gene text"):
        trained.network.encode_new_genes(torch.zeros(1, 8))


def test_commands_name_the_methods_there_are(tmp_path: Path, capsys, monkeypatch) -> None:
    for words in (["crossval", "--methods", "dkan,other"], ["train", "--method", "other"]):
        out = ["--data", str(tmp_path), "-o", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["napari-dkan", *words, *out])
        with pytest.raises(SystemExit):
            main()
        assert "mclstexp" in capsys.readouterr().err


def test_paired_differences_draw_the_same_blocks_for_both_methods() -> None:
    rng = np.random.default_rng(4)
    array = np.stack(np.meshgrid(np.arange(24), np.arange(18)), axis=-1).reshape(-1, 2)
    counts = PanelCounts(
        rng.poisson(40, (len(array), 6)).astype(np.float32), array, LabelScale(smoothing=1)
    )
    labels, shared = counts.labels(), rng.normal(0, 0.2, (len(array), 6))
    predictions = {
        "dkan": {2021: {"A": labels + shared}},
        "triplex": {2021: {"A": labels + shared + rng.normal(0, 0.02, shared.shape)}},
        "ridge": {2021: {"A": labels + rng.normal(0, 0.6, shared.shape)}},
    }
    fold = Fold("A", ("A",), ("B",), ("B",))
    result = CrossValidationResult(
        FoldUnit.section,
        (FoldResult(fold, {"dkan": {2021: 1}, "triplex": {2021: 1}}, {"A": labels}, predictions),),
        {"A": DepthReference(counts, np.full(6, 1 / 6))},
    )
    paired = compute_paired_differences(result)
    scores = {m: result.pooled_scores(m).to_summary()["depth_partial_pcc"] for m in predictions}
    for method, (value, low, high) in paired["mean"].items():
        assert value == pytest.approx(scores[method], abs=1e-4) and low < value < high
    value, low, high = paired["minus dkan"]["triplex"]
    assert value == pytest.approx(scores["triplex"] - scores["dkan"], abs=2e-4)
    alone = paired["mean"]["dkan"]
    assert high - low < (alone[2] - alone[1]) / 3  # the noise that both share does not count
    assert paired["minus ridge"]["dkan"][1] > 0 and "ridge" not in paired["minus ridge"]
    assert "triplex" in format_paired_differences(paired)
    # the mean and its interval are those of the bootstrap of one section
    spots, depth = Spots(array.astype(float)), counts.depth
    intervals = bootstrap_pcc(predictions["dkan"][2021]["A"], labels, spots, depth=depth)
    assert alone[1:] == pytest.approx([intervals.mean_low, intervals.mean_high], abs=1e-4)
