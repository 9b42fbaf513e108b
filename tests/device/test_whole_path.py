"""Everything that computes runs on a device that is not the CPU, with the numbers of the CPU.

A tensor that is left on the wrong device fails, see `pretend_device`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from napari_dkan.batch.batch_worker import run_job
from napari_dkan.batch.slide_job import SlideJob
from napari_dkan.doctor import compute_checks
from napari_dkan.doctor.check_result import CheckStatus
from napari_dkan.export.result_reader import load_result
from napari_dkan.inference.device import list_available_devices
from napari_dkan.inference.device_choice import pick_device
from napari_dkan.inference.occlusion import attribute_gene, compute_occluded_tokens, occlude_spot
from napari_dkan.inference.predict import predict
from napari_dkan.inference.predictor import Predictor
from napari_dkan.inference.spot_inputs import gather_spot_inputs
from napari_dkan.inference.target import Target, TargetKind, target_from_region
from napari_dkan.inference.zero_shot_genes import load_zero_shot_genes
from napari_dkan.model import Checkpoint
from napari_dkan.model.encoders import resolve_encoder_spec
from napari_dkan.slide.slide import Slide
from napari_dkan.spatial.spots import Spots
from napari_dkan.training.data.frozen_features import ComputedFeatureSource, FrozenEncoder
from napari_dkan.training.data.measured_section import make_measured_section
from napari_dkan.training.evaluation.evaluate_checkpoint import evaluate_checkpoint
from napari_dkan.training.finetuning import finetune_checkpoint as finetune_checkpoint_module
from napari_dkan.training.finetuning import tuning_loop
from napari_dkan.training.finetuning.candidates import CandidateChoice
from napari_dkan.training.finetuning.finetune_checkpoint import finetune_checkpoint
from napari_dkan.training.finetuning.finetune_settings import AdaptScope, FinetuneSettings
from napari_dkan.training.finetuning.tuning_protocol import FinetuneEvent, FinetuneStarted

from ..zero_shot_files import PROVEN, gene_file, with_text
from .conftest import DEVICE, MPP, assert_close

POINTS = np.array([[700.0, 600.0], [705.0, 604.0], [20.0, 20.0]])


def run_generator(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def region(predictor: Predictor) -> Target:
    slide = predictor.slide
    return target_from_region(predictor.tissue, 140.0, MPP, slide.width, slide.height).take(
        np.arange(12)
    )


def test_the_device_is_strict():
    on_device = torch.ones(2, device=DEVICE)
    with pytest.raises(RuntimeError, match="same device"):
        on_device + torch.ones(2)
    with pytest.raises(RuntimeError, match="numpy"):
        on_device.numpy()
    with pytest.raises(TypeError, match="float64"):
        on_device.double()
    assert pick_device() == on_device.device and list_available_devices()[0] == DEVICE


def test_clicks_and_regions(predictors):
    on_device, on_cpu = predictors
    for target in (Target(TargetKind.POINTS, Spots(POINTS)), region(on_cpu)):
        expected, found = predict(on_cpu, target), predict(on_device, target)
        assert_close(found.values, expected.values)
        assert_close(found.tokens, expected.tokens)
        assert_close(found.qc_features, expected.qc_features)
    assert found.provenance["device"] == DEVICE


def test_lens(predictors):
    """One gene, nearest tiles first; then from the tokens that are kept."""
    on_device, on_cpu = predictors
    target = region(on_cpu)

    def nearest_first(xy):
        return np.argsort(np.hypot(*(xy - (700, 600)).T))

    on_device.clear_cache()
    expected = predict(on_cpu, target).values[:, [2]]
    for update in on_device.stream(target, nearest_first, [2]):
        if len(update.rows):
            assert_close(update.values, expected[update.rows])
    rows, tokens = on_device.get_cached_tokens(target)
    assert len(rows) == len(target)
    assert_close(on_device.decode(tokens, [2]), expected[rows])


def test_why(predictors):
    on_device, on_cpu = predictors
    found, expected = [], []
    for predictor, results in ((on_device, found), (on_cpu, expected)):
        context = predictor.prediction_context
        inputs = run_generator(gather_spot_inputs(context, 700.0, 600.0))
        occluded = occlude_spot(context, inputs, blocks=3)
        why = attribute_gene(context, occluded, 1)
        visible = np.eye(4, dtype=bool).reshape(-1, 2, 2)
        tokens = compute_occluded_tokens(context, inputs, visible)
        results += [why.value, why.blocks, why.tiles, why.patch, why.neighborhood, tokens.cpu()]
    for a, b in zip(found, expected, strict=True):
        assert_close(np.asarray(a), np.asarray(b))


def test_genes_by_description(slide: Slide, tissue, tiny_checkpoint_file: Path, tmp_path: Path):
    model = with_text(tiny_checkpoint_file, tmp_path / "text.safetensors", PROVEN)
    genes = load_zero_shot_genes(model, gene_file(tmp_path / "genes.npz"))
    target = Target(TargetKind.POINTS, Spots(POINTS))
    found, expected = (
        predict(Predictor(slide, model, MPP, tissue, device), target, zero_shot=genes)
        for device in (DEVICE, "cpu")
    )
    assert_close(found.values, expected.values)


def test_quality_control(slide: Slide, ensemble: Checkpoint, section):
    measured = make_measured_section(section, ensemble)
    found, expected = (
        evaluate_checkpoint(ensemble, slide, measured, device=device) for device in (DEVICE, "cpu")
    )
    for name, score in expected["metrics"]["dkan"].items():
        assert found["metrics"]["dkan"][name] == pytest.approx(score, abs=1e-3), name


@pytest.mark.parametrize(("kind", "adapt"), [("single", "everything"), ("ensemble", "decoder")])
def test_fine_tuning(kind: str, adapt: str, section, request, monkeypatch):
    checkpoint: Checkpoint = request.getfixturevalue(kind)
    monkeypatch.setattr(tuning_loop, "gain_minus_stderr", lambda gains: 1.0)  # the last is kept
    monkeypatch.setattr(
        finetune_checkpoint_module,
        "choose_candidate",
        lambda candidates: CandidateChoice(candidates[-1], "it is the last"),
    )
    settings = FinetuneSettings(AdaptScope(adapt), epochs=1)
    said: list[FinetuneEvent] = []
    found, expected = (
        finetune_checkpoint(
            checkpoint, [section], settings, said.append, others=[section], device=device
        )
        for device in (DEVICE, "cpu")
    )
    started = [e.device for e in said if isinstance(e, FinetuneStarted)]
    assert started == [f"the device {DEVICE}", "the CPU"]
    assert found.report["made"]["device"] == f"the device {DEVICE}"
    assert found.checkpoint.network.device == checkpoint.network.device == torch.device("cpu")
    for name, tensor in expected.checkpoint.network.state_dict().items():
        torch.testing.assert_close(
            found.checkpoint.network.state_dict()[name], tensor, atol=2e-3, rtol=0, msg=name
        )


def test_batch(tiny_slide_file: Path, tiny_checkpoint_file: Path, tmp_path: Path):
    job = SlideJob(str(tiny_slide_file), tmp_path / "out.h5ad", tiny_checkpoint_file)
    outcomes = [
        run_job(replace(job, out=tmp_path / f"{name}.h5ad", device=device), lambda update: None)
        for name, device in (("device", None), ("cpu", "cpu"))
    ]
    assert [outcome.error for outcome in outcomes] == ["", ""]
    found, expected = (load_result(outcome.out).prediction for outcome in outcomes)
    assert found.provenance["device"] == DEVICE and expected.provenance["device"] == "cpu"
    assert_close(found.values, expected.values)


@pytest.mark.parametrize("name", ["test_efficientnet", "stain-stats+lcnet_035[1,2]@64"])
def test_tile_encoders(name: str, tmp_path: Path):
    spec = resolve_encoder_spec(name)
    torch.manual_seed(0)
    net = timm.create_model("lcnet_035" if "+" in name else name, num_classes=0)
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    features = []
    tiles = torch.randint(0, 256, (6, 3, spec.px, spec.px), dtype=torch.uint8)
    for device in (DEVICE, "cpu"):
        encoder = FrozenEncoder.load(name, tmp_path / "weights.safetensors", device)
        source = ComputedFeatureSource(encoder)
        source.add_tiles(tiles)
        features.append(source.stack_features().numpy())
    np.testing.assert_allclose(*features, rtol=0, atol=1e-4)


def test_doctor():
    results = [*compute_checks.check_devices(), *compute_checks.check_checkpoints()]
    said = {r.name: r for r in results}
    assert DEVICE in said["auto"].said
    assert said[f"synthetic, one tile on {DEVICE}"].state is CheckStatus.ok
    assert all(r.state is not CheckStatus.broken for r in results)
