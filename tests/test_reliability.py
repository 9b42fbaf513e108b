"""Reliability: features of tiles, the reference in the checkpoint, scores and warnings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_dkan.errors import CheckpointError, SpotsError
from napari_dkan.inference.predict import find_tissue_region, predict, predict_ridge
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.target import target_from_spots
from napari_dkan.inference.tile_qc_features import (
    PIXEL_QC_NAMES,
    QC_FEATURE_NAMES,
    compute_network_qc,
    compute_pixel_qc,
)
from napari_dkan.model import Checkpoint, load_checkpoint, save_checkpoint
from napari_dkan.model.checkpoint.training_reference import DISTANCE_FEATURE, TrainingReference
from napari_dkan.model.network.ensemble import Ensemble
from napari_dkan.model.network.inference_optimization import optimize_for_inference
from napari_dkan.quality.reliability import score_reliability
from napari_dkan.quality.slide_checks import check_domain_shift
from napari_dkan.samples.bundled_checkpoints import find_bundled_checkpoint
from napari_dkan.slide import open_slide
from napari_dkan.spatial.spots import Spots
from napari_dkan.training.baselines import FeatureRidge
from napari_dkan.training.data.augmentation import StainTransform
from napari_dkan.training.data.measured_section import make_measured_section
from napari_dkan.training.data.prepared_section import encode_section, fit_section_encoder
from napari_dkan.training.data.section_loading import CheckpointSectionReader, read_section_data
from napari_dkan.training.evaluation.zero_shot_evaluation import read_zero_shot_card
from napari_dkan.training.fit.build_reference import (
    add_reference,
    build_reference,
    compute_qc_features,
    read_reliability_report,
)
from napari_dkan.training.train import train_on_sections
from napari_dkan.training.train_settings import Augmentation

from .conftest import ROOT
from .tiny_sections import PANEL, QUICK, tiny_section

REPORT = ROOT / "docs" / "reports" / "reliability.json"
ZERO_SHOT_REPORT = ROOT / "docs" / "reports" / "her2-breast-zeroshot.json"
COLUMN = {name: i for i, name in enumerate(QC_FEATURE_NAMES)}


@pytest.fixture(scope="module")
def trained() -> Checkpoint:
    sections = [tiny_section(1), tiny_section(2)]
    settings = replace(QUICK, epochs=1, members=2)
    return train_on_sections(sections, PANEL, settings=settings, crossval=False)


# --- features of tiles ------------------------------------------------------------------


def tissue_tiles(count: int = 6, px: int = 56) -> np.ndarray:
    """Purple blobs on pink with sharp edges."""
    random = np.random.default_rng(3)
    nuclei = random.random((count, px // 4, px // 4, 1)).repeat(4, axis=1).repeat(4, axis=2) < 0.3
    return np.where(nuclei, (110, 60, 150), (230, 160, 200)).astype(np.uint8)


def test_pixel_features_detect_blur_ink_and_glass():
    tiles = tissue_tiles()
    blurred = tiles.astype(float)
    for _ in range(3):
        blurred = (np.roll(blurred, 1, 1) + blurred + np.roll(blurred, -1, 1)) / 3
        blurred = (np.roll(blurred, 1, 2) + blurred + np.roll(blurred, -1, 2)) / 3
    ink, dark, glass = tiles.copy(), tiles.copy(), tiles.copy()
    ink[:, :28] = (30, 90, 200)
    dark[:, :14] = 20
    glass[:, 14:] = 245
    plain, soft, inked, black, bare = (
        compute_pixel_qc(np.asarray(t, np.uint8)) for t in (tiles, blurred, ink, dark, glass)
    )
    assert plain.shape == (6, len(PIXEL_QC_NAMES)) and plain.dtype == np.float32
    assert (soft[:, COLUMN["sharpness"]] < plain[:, COLUMN["sharpness"]] - 0.3).all()
    assert np.allclose(inked[:, COLUMN["pen"]], 0.5) and not plain[:, COLUMN["pen"]].any()
    assert np.allclose(black[:, COLUMN["dark"]], 0.25) and not plain[:, COLUMN["dark"]].any()
    assert np.allclose(plain[:, COLUMN["tissue"]], 1) and np.allclose(bare[:, 0], 0.25)
    # The stain is that of the tissue, whatever its share of the tile.
    stained = COLUMN["haematoxylin"]
    assert np.allclose(bare[:, stained], plain[:, stained], atol=0.1)
    assert np.isfinite(compute_pixel_qc(np.full((2, 56, 56, 3), 255, np.uint8))).all()
    assert compute_pixel_qc(np.empty((0, 56, 56, 3), np.uint8)).shape == (0, len(PIXEL_QC_NAMES))


@pytest.mark.parametrize("px", [56, 130, 224])
def test_patch_size_changes_features_little(px):
    small = compute_pixel_qc(tissue_tiles())
    large = compute_pixel_qc(tissue_tiles().repeat(px // 56, axis=1).repeat(px // 56, axis=2))
    other = [COLUMN[n] for n in ("tissue", "pen", "haematoxylin", "eosin")]
    assert np.allclose(small[:, other], large[:, other], atol=0.05)


def test_disagreement_is_equal_after_optimization_and_zero_for_one_network(trained: Checkpoint):
    network = trained.network
    assert isinstance(network, Ensemble)
    dim = network.config.dim
    draw = torch.Generator().manual_seed(1)
    inputs = (
        torch.randn(5, 3, 32, 32, generator=draw),
        torch.randn(5, 25, dim, generator=draw),
        torch.ones(5, 25),
        torch.randn(5, 2 * dim, generator=draw),
    )
    with torch.inference_mode():
        found = compute_network_qc(network, network.fuse(*inputs), inputs[3])
        ready = optimize_for_inference(network, torch.device("cpu"), 32)
        again = compute_network_qc(ready, ready.fuse(*inputs), inputs[3])
        one = network.member_networks[0]
        alone = compute_network_qc(
            one, one.fuse(*inputs[:3], inputs[3][:, :dim]), inputs[3][:, :dim]
        )
    assert found.shape == (5, 2) and (found > 0).all()
    assert torch.allclose(found, again, rtol=1e-3)
    assert (alone[:, 0] > 0).all() and not alone[:, 1].any()


# --- reference in the checkpoint --------------------------------------------------------


def test_reference_of_training_is_saved_and_loaded(trained: Checkpoint, tmp_path):
    reference = trained.reference
    assert (
        reference is not None and reference.n_spots == 48 and reference.slide_names == ("S1", "S2")
    )
    assert reference.feature_names == (*QC_FEATURE_NAMES, DISTANCE_FEATURE)
    save_checkpoint(tmp_path / "a.safetensors", trained, half=True)
    again = load_checkpoint(tmp_path / "a.safetensors").reference
    assert again is not None and again.ridge is not None and reference.ridge is not None
    assert (again.feature_names, again.slide_names, again.slide_mpp) == (
        reference.feature_names,
        reference.slide_names,
        reference.slide_mpp,
    )
    assert np.allclose(again.feature_quantiles, reference.feature_quantiles, rtol=2e-3, atol=1e-3)
    assert np.allclose(again.ridge.weights, reference.ridge.weights, rtol=2e-3, atol=1e-4)
    assert again.ridge.penalty == reference.ridge.penalty
    old = save_checkpoint(tmp_path / "old.safetensors", replace(trained, reference=None))
    assert load_checkpoint(old.path).reference is None


def test_typical_spot_has_a_distance_of_about_one_deviation(trained: Checkpoint):
    reference = trained.reference
    section = encode_section(
        tiny_section(1), fit_section_encoder([tiny_section(1), tiny_section(2)], 16, 154.0)
    )
    _, tokens = compute_qc_features(section, trained.network)
    assert 0.5 < np.median(reference.compute_distance(tokens)) < 1.5
    assert (
        reference.compute_distance(reference.token_mean + 5 * (tokens - reference.token_mean)).min()
        > 2
    )
    assert reference.compute_quantile_rank(DISTANCE_FEATURE, np.array([0.0, 1e6])).tolist() == [
        0,
        1,
    ]


def _without(name):
    return lambda tensors, entry: tensors.pop(name)


def _shape(name, *shape):
    return lambda tensors, entry: tensors.update({name: torch.zeros(shape)})


def _nan(tensors, entry):
    tensors["reference.levels"][0, 3] = float("nan")


def _falling(tensors, entry):
    tensors["reference.levels"] = tensors["reference.levels"].flip(1).contiguous()


def _entry(**changes):
    return lambda tensors, entry: entry["reference"].update(changes)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_without("reference.token_axes"), "reference is incomplete"),
        (_without("reference.ridge.weights"), "reference is incomplete"),
        (_shape("reference.more", 4), "reference is incomplete"),
        (_shape("reference.token_mean", 31), "token_mean has shape"),
        (_shape("reference.token_axes", 32, 33), "token_axes has shape"),
        (_shape("reference.ridge.weights", 48, 11), "does not fit the network"),
        (_shape("reference.levels", 10, 100), "levels has shape"),
        (_nan, "not finite"),
        (_falling, "levels that fall"),
        (_entry(spots=-1), "no way that can be read"),
        (_entry(names=["tissue"] * 10), "no way that can be read"),
        (_entry(mpp=[0.5, 1e9]), "no way that can be read"),
        (_entry(tissue=7), "no way that can be read"),
        (_entry(ridge={"scale": 0, "penalty": 1}), "impossible scale"),
        (_entry(ridge=[]), "impossible scale"),
        (lambda tensors, entry: entry.update(reference=None), "no way that can be read"),
        (lambda tensors, entry: entry.update(reference="all of it"), "no way that can be read"),
    ],
)
def test_damaged_reference_is_refused(trained: Checkpoint, tmp_path, damage, words):
    file = tmp_path / "damaged.safetensors"
    save_checkpoint(file, trained)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors, entry = load_file(file), json.loads(metadata["napari_dkan"])
    damage(tensors, entry)
    save_file(tensors, file, metadata | {"napari_dkan": json.dumps(entry)})
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(file)


def test_reference_of_another_network_is_refused(trained: Checkpoint):
    one = trained.network.member_networks[0]
    with pytest.raises(CheckpointError, match="fused tokens of 32 numbers"):
        replace(trained, network=one)
    ridge = replace(trained.reference.ridge, weights=np.zeros((48, 3)))
    with pytest.raises(CheckpointError, match="ridge regression is of shape"):
        replace(trained, reference=replace(trained.reference, ridge=ridge))


# --- scores and reasons -----------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled() -> Checkpoint:
    return load_checkpoint(find_bundled_checkpoint("her2-breast"))


def typical_tiles(reference: TrainingReference, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and tokens of spots in the middle of the training data."""
    features = np.tile(
        [
            reference.feature_quantiles[reference.feature_names.index(n)][50]
            for n in QC_FEATURE_NAMES
        ],
        (count, 1),
    )
    axes, mean = reference.token_axes, reference.token_mean
    out = np.linalg.pinv(axes)[:1] * 0.8 * np.sqrt(axes.shape[1])
    return features.astype(np.float32), np.repeat(mean + out, count, axis=0)


def test_typical_tiles_are_good_and_others_have_reasons(bundled: Checkpoint):
    features, tokens = typical_tiles(bundled.reference, 8)
    features[1, COLUMN["pen"]] = 0.5
    features[2, COLUMN["sharpness"]] -= 3
    features[3, COLUMN["tissue"]] = 0
    features[4, COLUMN["dark"]] = 0.9
    features[5, COLUMN["members"]] *= 4
    tokens[6] += 5 * (tokens[6] - bundled.reference.token_mean)
    tokens[7], features[7] = np.nan, np.nan
    reliability = score_reliability(bundled.reference, features, tokens)
    assert reliability.level(0) == "good" and reliability.reasons(0) == ()
    reasons = [" ".join(reliability.reasons(row)) for row in range(1, 7)]
    for words, sentence in zip(
        ("pen", "out of focus", "little tissue", "black", "ensemble disagree", "unlike"),
        reasons,
        strict=True,
    ):
        assert words in sentence
    assert reliability.unreliable[1:7].all() and not reliability.unreliable[[0, 7]].any()
    assert [reliability.level(r) for r in (1, 7)] == ["poor", ""] and np.isnan(reliability.score[7])
    assert np.nanmin(reliability.score) >= 0 and np.nanmax(reliability.score) <= 1


def test_no_scores_without_a_reference():
    reliability = score_reliability(None, np.zeros((3, len(QC_FEATURE_NAMES))), np.zeros((3, 8)))
    assert np.isnan(reliability.score).all() and not reliability.unreliable.any()
    assert reliability.reasons(0) == () and reliability.level(0) == ""


def test_single_network_is_scored_by_distance_only(trained: Checkpoint):
    one = trained.network.member_networks[0]
    sections = [tiny_section(1), tiny_section(2)]
    encoder = fit_section_encoder(sections, 16, 154.0)
    reference = build_reference([encode_section(s, encoder) for s in sections], one)
    features, tokens = compute_qc_features(encode_section(sections[0], encoder), one)
    reliability = score_reliability(reference, features, tokens)
    assert np.isfinite(reliability.score).all() and "members" not in reliability.concerns


# --- real sections ----------------------------------------------------------------------


SPOTS = 60  # of each section: every tile is encoded


@pytest.fixture(scope="module")
def breast_sections(data_dir, bundled: Checkpoint):
    """The bundled checkpoint with a reference of C2 and C3 only, and spots of these sections."""
    reader = CheckpointSectionReader(bundled)
    sections = [
        reader.read(data[:SPOTS].copy(), bundled.panel)
        for data in read_section_data(data_dir, ["C2", "C3"])
    ]
    reference = build_reference(sections, bundled.network, "human breast")
    return replace(bundled, reference=reference), sections


def test_ridge_and_features_are_equal_in_training_and_prediction(
    breast_sections, data_dir, tmp_path
):
    checkpoint, sections = breast_sections
    saved = save_checkpoint(tmp_path / "two.safetensors", checkpoint, half=True)
    checkpoint = load_checkpoint(saved.path)
    (data,) = (d[:SPOTS].copy() for d in read_section_data(data_dir, ["C2"]))
    rows = np.arange(0, len(sections[0].section), 12)
    spots = make_measured_section(data, checkpoint).labeled_spots()
    mpp = float(data.uns["mpp"])
    with open_slide(data.uns["image"]) as slide:
        target = target_from_spots(spots, slide.width, slide.height, "C2")
        predictor = Predictor(slide, checkpoint, mpp, find_tissue_region(slide, mpp))
        few = Spots(spots.xy[rows])
        before = predict_ridge(predictor.prediction_context, few)  # before any tile is encoded
        prediction = predict(predictor, target, genes=["ERBB2"])
        found = predict_ridge(predictor.prediction_context, spots)
    wanted = FeatureRidge().fit(sections)(sections[0])
    assert np.abs(found - wanted).max() < 0.01 and np.abs(found - wanted).mean() < 1e-3
    assert np.abs(before - wanted[rows]).max() < 0.05
    features, tokens = compute_qc_features(sections[0], checkpoint.network)
    assert np.allclose(prediction.qc_features, features, atol=0.01)
    assert np.allclose(prediction.tokens[:, : tokens.shape[1]], tokens, atol=0.1)


def test_domain_shift_warns_of_another_stain_or_scale_only(breast_sections, bundled: Checkpoint):
    _, sections = breast_sections
    for section in sections:
        features, _ = compute_qc_features(section, bundled.network)
        assert check_domain_shift(bundled, features, section.section.mpp) == ""
    restain = StainTransform.sample(Augmentation(amount=0.6, colour=0.2), np.random.default_rng(1))
    pixels = section.section.patches.permute(0, 2, 3, 1).numpy()
    other = features.copy()
    other[:, : len(PIXEL_QC_NAMES)] = compute_pixel_qc(restain(pixels))
    sentence = check_domain_shift(bundled, other, 0.69)
    assert "HER2-positive" in sentence and "stain is another" in sentence
    assert sentence.count(".") <= 3 and "\n" not in sentence
    half = features.copy()  # half the pixels in each direction, twice the size
    middle = slice(pixels.shape[1] // 4, 3 * pixels.shape[1] // 4)
    part = torch.from_numpy(pixels[:, middle, middle]).permute(0, 3, 1, 2).float()
    larger = torch.nn.functional.interpolate(part, scale_factor=2, mode="bilinear")
    half[:, : len(PIXEL_QC_NAMES)] = compute_pixel_qc(
        larger.permute(0, 2, 3, 1).numpy().astype(np.uint8)
    )
    assert "check the pixel size of 1.38 um" in check_domain_shift(bundled, half, 1.38)
    assert "coarser than any" in check_domain_shift(bundled, features, 8.0)
    disagree = features.copy()
    disagree[:, COLUMN["members"]] *= 3
    assert "networks disagree" in check_domain_shift(bundled, disagree, 0.69)
    assert check_domain_shift(replace(bundled, reference=None), other, 0.69) == ""
    assert check_domain_shift(bundled, other[:3], 0.69) == ""


def test_reference_needs_the_training_sections(bundled: Checkpoint, data_dir, tmp_path):
    foreign = dict(bundled.card["training_data"], slide_fingerprints={"X1": "another"})
    card = bundled.card | {"training_data": foreign}
    with pytest.raises(SpotsError, match=r"C2 is not among the sections .* on \(X1\)"):
        add_reference(replace(bundled, card=card), data_dir, ["C2"])


def test_bundled_checkpoint_has_a_reference(bundled: Checkpoint):
    reference = bundled.reference
    assert (
        reference.n_spots == 729
        and reference.slide_names == ("C2", "C3", "C4", "C5")
        and reference.ridge is not None
    )
    assert "breast" in reference.tissue
    assert bundled.card["reliability"] == read_reliability_report(REPORT)
    assert bundled.card["zero_shot"] == read_zero_shot_card(ZERO_SHOT_REPORT)
    assert Path(bundled.path).stat().st_size < 8.4e6


def test_reliability_report_is_read(tmp_path):
    found = read_reliability_report(REPORT)
    assert 0 < found["gain_beyond_counting_noise"] < found["gain"] < 1
    assert found["error_of_unreliable_spots_over_average"] > 1
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(SpotsError, match=r"other.json is not the report of a reliability"):
        read_reliability_report(tmp_path / "other.json")
