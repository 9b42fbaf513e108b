"""Fine-tuning: leak-free parts, what is learnt and kept, what ends it, and an honest answer."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from napari_dkan.cli import main
from napari_dkan.errors import OutputError, SpotsError
from napari_dkan.expression.knowledge.gene_records import GeneRecord
from napari_dkan.expression.label_scale import LabelScale
from napari_dkan.expression.panel import Panel
from napari_dkan.inference.gene_file import GeneFile, write_gene_file
from napari_dkan.model import load_checkpoint, save_checkpoint
from napari_dkan.model import tensor_files as tensorfile
from napari_dkan.model.text_basis import TextBasis
from napari_dkan.model.text_encoders import TextEncoderSpec
from napari_dkan.training.data.prepared_section import EncodedSection
from napari_dkan.training.finetuning.candidates import CandidateChoice, gain_minus_stderr
from napari_dkan.training.finetuning.finetune_checkpoint import finetune_checkpoint
from napari_dkan.training.finetuning.finetune_evaluation import (
    FinetuneMetrics,
    compute_finetune_metrics,
)
from napari_dkan.training.finetuning.finetune_settings import (
    AdaptScope,
    FinetuneSettings,
    HoldOutUnit,
)
from napari_dkan.training.finetuning.hold_out_split import (
    Subset,
    draw_blocks,
    separate_with_buffer,
    split_into_blocks,
    split_sections,
)
from napari_dkan.training.finetuning.training_section import (
    TrainingSection,
    TrainingSectionReader,
)
from napari_dkan.training.finetuning.tuning_protocol import (
    EpochFinished,
    FinetuneControl,
    FinetunePaused,
    FinetuneResumed,
    FinetuneStarted,
    GeneMapComputed,
)

from .tiny_sections import tiny_section

if TYPE_CHECKING:
    from napari_dkan.model.checkpoint.checkpoint_file import Checkpoint


QUICK = FinetuneSettings(AdaptScope.decoder, epochs=3, share=0.25)
SIDE = 9


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model(tiny_checkpoint_file):
    return load_checkpoint(tiny_checkpoint_file)


def _section(slide: Path, genes, name: str = "drawn", side: int = SIDE) -> anndata.AnnData:
    """Counts that follow how dark the slide is, on a grid of spots over it."""
    rng, at = np.random.default_rng(len(name)), np.arange(side * side)
    col, row = at % side, at // side
    level = 3 + 40 * rng.random((1, len(genes))) * (1 + np.sin(col + row))[:, None]
    data = anndata.AnnData(
        rng.poisson(level).astype(np.float32) + 1,
        obs=pd.DataFrame({"array_col": col, "array_row": row}, index=[f"s{i}" for i in at]),
        var=pd.DataFrame(index=list(genes)),
    )
    data.obsm["spatial"] = np.stack([130 + 160.0 * col, 130 + 160.0 * row], axis=1)
    data.uns = {"section": name, "mpp": 0.7, "spot_pitch_um": 112.0, "spot_diameter_um": 80.0}
    data.uns["image"] = str(slide)
    return data


# --- the parts ----------------------------------------------------------------------


@given(st.integers(6, 16), st.integers(6, 16), st.integers(1, 2), st.booleans(), st.integers(0, 99))
def test_no_count_enters_labels_of_both_sides_of_the_buffer(
    wide, high, reach, hexagonal, seed
) -> None:
    x, y = (v.ravel() for v in np.meshgrid(np.arange(wide), np.arange(high)))
    array = np.stack([2 * x + y % 2 if hexagonal else x, y], axis=1).astype(np.int64)
    every = np.arange(len(array))
    drawn = draw_blocks(array, every, 0.3, seed)
    held = separate_with_buffer(array, every, drawn, reach)
    assert sorted([*held.held_out, *held.buffer, *held.remaining]) == list(every)
    scale, teaches = LabelScale(smoothing=2 * reach + 1), np.zeros((len(array), 1), np.float32)
    teaches[held.remaining] = 1
    assert not scale.smooth(teaches, array)[held.held_out].any()


def _section_of_unit_labels(coordinates: np.ndarray, smoothing: int) -> TrainingSection:
    """A section whose label of gene g is 1 at spot g: a smoothed row shows which spots enter it."""
    n = len(coordinates)
    section = replace(tiny_section(0, spots=n), positions=torch.from_numpy(coordinates))
    return TrainingSection(
        EncodedSection(section, torch.zeros(n, 25, 1)),
        np.eye(n, dtype=np.float32),
        np.ones(n, bool),
        np.arange(n),
        n,
        LabelScale(smoothing=smoothing),
    )


def _spots_in_labels(subset: Subset) -> set[int]:
    (labels,) = subset.labels
    return set(np.flatnonzero(labels.any(axis=0)).tolist())


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.integers(8, 16), st.integers(8, 16), st.integers(1, 2), st.booleans(), st.integers(0, 99))
def test_no_spot_enters_labels_of_two_subsets(wide, high, reach, hexagonal, seed) -> None:
    x, y = (v.ravel() for v in np.meshgrid(np.arange(wide), np.arange(high)))
    coordinates = np.stack([2 * x + y % 2 if hexagonal else x, y], axis=1).astype(np.int64)
    section = _section_of_unit_labels(coordinates, 2 * reach + 1)
    try:
        split = split_sections([section], FinetuneSettings(share=0.25, seed=seed), reach)
    except SpotsError:
        assume(False)
    in_training = _spots_in_labels(split.train)
    assert in_training <= set(split.train.rows[0].tolist())  # neither test nor buffer spots
    assert in_training.isdisjoint(_spots_in_labels(split.test))
    for train, validation in split.folds:
        assert _spots_in_labels(train) <= set(train.rows[0].tolist()) <= in_training
        assert _spots_in_labels(train).isdisjoint(_spots_in_labels(validation))
        assert _spots_in_labels(validation) <= in_training
        assert _spots_in_labels(validation).isdisjoint(_spots_in_labels(split.test))


def test_blocks_are_contiguous_equal_and_cover_all() -> None:
    array = np.stack([np.arange(180) % 15, np.arange(180) // 15], axis=1).astype(np.int64)
    found = split_into_blocks(array)
    assert len(found) == 8 and {len(b) for b in found} <= {22, 23}
    assert sorted(np.concatenate(found)) == list(range(180))
    for block in found:  # each spot of a block has another one beside it
        apart = np.abs(array[block][:, None] - array[block][None]).max(axis=2)
        assert (np.sort(apart, axis=1)[:, 1] == 1).all()
    assert set(draw_blocks(array, np.arange(180), 0.5, 1)) != set(
        draw_blocks(array, np.arange(180), 0.5, 2)
    )


def test_test_counts_do_not_change_training_labels(tiny_slide_file, model: Checkpoint) -> None:
    section = _section(tiny_slide_file, model.panel.symbols)
    reader = TrainingSectionReader(model)

    def parts(data):
        return split_sections([reader.read(data, model.panel)], QUICK, 1)

    before = parts(section)
    (out,) = before.test.rows
    changed = section.copy()
    changed.X[out] += 500.0
    after = parts(changed)
    assert np.array_equal(before.train.labels[0], after.train.labels[0])
    for (fit, chosen), (fit_after, chosen_after) in zip(before.folds, after.folds, strict=True):
        assert np.array_equal(fit.labels[0], fit_after.labels[0])
        assert np.array_equal(chosen.labels[0], chosen_after.labels[0])
        assert not set(fit.rows[0]) & set(chosen.rows[0])
        assert not set(chosen.rows[0]) & set(out)
    assert not np.array_equal(before.test.labels[0], after.test.labels[0])


def test_a_gain_needs_most_folds() -> None:
    assert gain_minus_stderr(np.array([0.02, 0.03, 0.02, 0.03])) > 0
    assert gain_minus_stderr(np.array([0.20, -0.05, -0.04, -0.06])) < 0
    assert gain_minus_stderr(np.array([np.nan, 0.01])) == pytest.approx(0.005)


# --- the run ------------------------------------------------------------------------


def test_a_run_reports_progress_and_its_checkpoint_reloads(
    tiny_slide_file, model: Checkpoint, tmp_path
) -> None:
    told, control = [], FinetuneControl()
    control.requested_gene = "GATA3"
    section = _section(tiny_slide_file, ["GATA3", "KRT8", "MALAT1", "OTHER"])
    section.X[3, :3] = 0  # a spot without a label
    other = _section(tiny_slide_file, model.panel.symbols, "other")
    tuned = finetune_checkpoint(
        model, [section], QUICK, told.append, control, others=[other], title="Mine"
    )
    started = next(e for e in told if isinstance(e, FinetuneStarted))
    assert started.adapt == "decoder" and started.epochs == 3 and started.genes == 6
    assert started.spots + started.held_out + started.between == 80
    assert [e.number for e in told if isinstance(e, EpochFinished)] == [1, 2, 3]
    gene_map = [e for e in told if isinstance(e, GeneMapComputed)][-1]
    assert len(gene_map.values) == 81 and np.isnan(gene_map.values[3])
    assert json.loads(gene_map.to_json())["values"][3] is None

    report = tuned.report
    assert report["genes_not_measured"] == ["ERBB2", "CD74", "COL1A1"]
    assert [g["symbol"] for g in report["genes"]] == ["GATA3", "KRT8", "MALAT1"]
    assert set(report["summary"]) == {"before", "after", "ridge", "depth_alone"}
    assert report["decided_by"] == "depth_partial_pcc" and report["shallow"] == {}
    assert set(report["per_gene_depth_partial"]) == {"GATA3", "KRT8", "MALAT1"}
    assert set(report["per_gene_depth_partial"]["KRT8"]) == {
        *("before", "after", "ridge", "ceiling", "judged")
    }
    assert report["others"]["other"]["spots"] == 81
    assert report["others"]["other"]["depth_partial_before"] is not None
    assert f"on {started.held_out} held-out spots" in tuned.verdict

    saved = save_checkpoint(tmp_path / "mine.safetensors", tuned.checkpoint)
    again = load_checkpoint(tmp_path / "mine.safetensors")
    assert again.sha256 == saved.sha256 and again.title == "Mine"
    card = again.card
    assert card["parent"] == {
        "title": model.title,
        "sha256": model.sha256,
        "pcc_all": None,
        "depth_partial_pcc": None,
    }
    after = report["summary"]["after"]
    assert card["metrics"]["depth_partial_pcc"] == after["depth_partial_pcc"] is not None
    assert (
        card["per_gene_depth_partial"]["KRT8"]["dkan"]
        == (report["per_gene_depth_partial"]["KRT8"]["after"])
    )
    assert card["fine_tuning"]["settings"]["seed"] == 2021
    assert len(card["fine_tuning"]["sections"]["drawn"]) == 64
    assert card["metrics"]["pcc_all"] == report["summary"]["after"]["pcc_all"]
    with torch.no_grad():
        z = torch.randn(4, 16)
        assert torch.equal(again.network.decode(z), tuned.checkpoint.network.decode(z))


@pytest.mark.parametrize("adapt", ["heads", "decoder", "everything"])
def test_only_trainable_modules_change_and_the_parent_does_not(
    tiny_slide_file, model: Checkpoint, adapt
) -> None:
    section = _section(tiny_slide_file, model.panel.symbols)
    before = {n: t.clone() for n, t in model.network.state_dict().items()}
    settings = replace(QUICK, adapt=AdaptScope(adapt), epochs=2)
    with pytest.MonkeyPatch.context() as patch:  # whatever is learnt is kept
        patch.setattr(
            "napari_dkan.training.finetuning.tuning_loop.gain_minus_stderr",
            lambda gains: 1.0,
        )
        patch.setattr(
            "napari_dkan.training.finetuning.finetune_checkpoint.choose_candidate",
            lambda candidates: CandidateChoice(candidates[-1], "it is the last"),
        )
        tuned = finetune_checkpoint(model, [section], settings)
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    changed = {
        name.partition(".")[0]
        for name, tensor in tuned.checkpoint.network.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert "head" in changed and "label_mean" in changed
    assert ("image" in changed) == (adapt != "heads")
    assert ("fusion" in changed) == ("trunk" in changed) == (adapt == "everything")
    assert "gene_features" not in changed


def test_fine_tuning_improves_on_learnable_data(tiny_slide_file, model: Checkpoint) -> None:
    """The genes follow the darkness of the slide, which random weights do not know."""
    section = _section(tiny_slide_file, model.panel.symbols)
    reader = TrainingSectionReader(model)
    dark = reader.read(section, model.panel).section.patches.float().mean(dim=(1, 2, 3)).numpy()
    rank = np.argsort(np.argsort(dark)) / len(dark)
    up = np.linspace(0, 1, len(model.panel))
    section.X = (5 + 200 * np.abs(up - rank[:, None])).astype(int).astype(np.float32)
    settings = FinetuneSettings(AdaptScope.decoder, epochs=60, lr=1e-2, patience=60)
    tuned = finetune_checkpoint(model, [section], settings)
    summary = tuned.report["summary"]
    assert tuned.is_better and tuned.report["best_epoch"] > 0
    assert summary["after"]["pcc_all"] > summary["before"]["pcc_all"] + 0.1
    assert tuned.verdict.startswith("better on ")


def _metrics_of(section: TrainingSection, panel: Panel, **predicted: np.ndarray) -> FinetuneMetrics:
    """Metrics on half of a section for predictions of all its spots."""
    split = split_sections([section], FinetuneSettings(share=0.5), 1)
    (rows,) = split.test.rows
    return compute_finetune_metrics(
        panel,
        [section],
        split,
        {method: [values[rows].astype(np.float32)] for method, values in predicted.items()},
        np.ones(len(panel), bool),
    )


def test_learning_depth_is_no_help(tiny_slide_file, model: Checkpoint) -> None:
    """PCC-ALL rises and the verdict is no: the figure without depth has not."""
    data = _section(tiny_slide_file, model.panel.symbols)
    few = 1 + 60 * np.random.default_rng(0).random(len(data)) ** 3
    rng = np.random.default_rng(1)
    data.X = rng.poisson(few[:, None] * data.X / data.X.sum(axis=1, keepdims=True)) + 0.0
    data.X[:, 0] += 1
    section = TrainingSectionReader(model).read(data, model.panel)
    assert section.counts is not None
    labels, depth = section.smooth_labels(np.arange(len(section))), section.counts.depth
    line = np.column_stack([np.ones_like(depth), depth])
    follows_depth = line @ np.linalg.lstsq(line, labels, rcond=None)[0]
    rest = labels - follows_depth
    before = labels.mean(axis=0) + 0.3 * rest + 0.3 * rng.normal(size=labels.shape)
    metrics = _metrics_of(
        section, model.panel, before=before, after=follows_depth, ridge=follows_depth
    )
    summary = metrics.summaries
    assert summary["after"]["pcc_all"] > summary["before"]["pcc_all"]
    assert summary["after"]["depth_partial_pcc"] == 0 < summary["before"]["depth_partial_pcc"]
    assert not metrics.is_better
    verdict = metrics.format_verdict("all epochs were done")
    assert verdict.startswith("it did not help: ") and "depth alone" in verdict
    assert "depth-partial PCC" in verdict and "PCC-ALL" in verdict

    better = _metrics_of(section, model.panel, before=before, after=labels, ridge=before)
    assert better.is_better and better.n_genes_better <= better.n_genes <= len(model.panel)


def test_genes_that_cannot_be_judged_are_not_counted(tiny_slide_file, model: Checkpoint) -> None:
    data = _section(tiny_slide_file, model.panel.symbols)
    data.X[:, 2] = 0
    data.X[5, 2] = 1  # one molecule on the whole section
    section = TrainingSectionReader(model).read(data, model.panel)
    labels = section.smooth_labels(np.arange(len(section)))
    noise = labels + np.random.default_rng(0).normal(size=labels.shape)
    metrics = _metrics_of(section, model.panel, before=noise, after=labels, ridge=noise)
    table = metrics.depth_partial_per_gene
    assert table["CD74"]["judged"] is False and metrics.n_genes < len(model.panel)
    assert metrics.n_genes == sum(bool(row["judged"]) for row in table.values())


def test_a_shallow_section_is_told_so_before_training(tiny_slide_file, model: Checkpoint) -> None:
    data = {"median_panel_totals": {"A": 90_000}, "mean_profile": {}}
    deep = replace(model, card={**model.card, "training_data": data})
    told: list = []
    tuned = finetune_checkpoint(
        deep, [_section(tiny_slide_file, model.panel.symbols)], QUICK, told.append
    )
    started = next(e for e in told if isinstance(e, FinetuneStarted))
    assert "90,000 in the training sections" in started.shallow[0]
    assert started.shallow[0].startswith("drawn: ") and "drawn" in tuned.report["shallow"]
    assert set(tuned.checkpoint.card["training_data"]["median_panel_totals"]) == {
        *("A", "drawn (part)")
    }


def test_a_diverging_fit_restores_the_best_epoch_and_reports_it(
    tiny_slide_file, model: Checkpoint
) -> None:
    section = _section(tiny_slide_file, model.panel.symbols)
    tuned = finetune_checkpoint(model, [section], replace(QUICK, epochs=50, lr=1e6))
    assert tuned.report["best_epoch"] == 0 and "diverged in epoch" in tuned.verdict
    assert all(t.isfinite().all() for t in tuned.checkpoint.network.state_dict().values())


def test_stop_restores_the_best_epoch_and_pause_waits(tiny_slide_file, model: Checkpoint) -> None:
    told, control = [], FinetuneControl()

    def on_event(event) -> None:
        told.append(event)
        if isinstance(event, EpochFinished) and event.number == 1:
            control.pause()
        if isinstance(event, FinetunePaused):
            control.resume()
        if isinstance(event, EpochFinished) and event.number == 2:
            control.stop()

    section = _section(tiny_slide_file, model.panel.symbols)
    tuned = finetune_checkpoint(model, [section], replace(QUICK, epochs=500), on_event, control)
    kinds = [type(e) for e in told if not isinstance(e, FinetuneStarted)][1:]
    assert kinds == [EpochFinished, FinetunePaused, FinetuneResumed, EpochFinished]
    assert tuned.report["ended"] == "it was stopped" and tuned.report["epochs"] == 2


def test_whole_sections_can_be_held_out(tiny_slide_file, model: Checkpoint) -> None:
    sections = [_section(tiny_slide_file, model.panel.symbols, n) for n in ("one", "other")]
    tuned = finetune_checkpoint(
        model, sections, replace(QUICK, hold_out=HoldOutUnit.sections, epochs=1)
    )
    assert tuned.report["spots"]["held_out"] == SIDE**2
    assert tuned.report["spots"]["between"] == 0
    with pytest.raises(SpotsError, match="at least two; hold out blocks"):
        finetune_checkpoint(model, sections[:1], replace(QUICK, hold_out=HoldOutUnit.sections))


def test_bad_input_is_one_sentence(tiny_slide_file, model: Checkpoint) -> None:
    few = _section(tiny_slide_file, model.panel.symbols, side=3)
    with pytest.raises(SpotsError, match="9 labelled spots are too few"):
        finetune_checkpoint(model, [few], QUICK)
    with pytest.raises(SpotsError, match="none of the checkpoint's 6 genes"):
        finetune_checkpoint(model, [_section(tiny_slide_file, ["A", "B"])], QUICK)
    with pytest.raises(SpotsError, match=r"share held out is 0\.9"):
        FinetuneSettings(share=0.9)


def test_new_genes_are_added_to_the_panel(tiny_slide_file, model: Checkpoint, tmp_path) -> None:
    torch.manual_seed(1)
    basis = TextBasis.fit(torch.randn(40, 24), 16, "words")
    model = replace(model, text_basis=basis)
    record = GeneRecord(symbol="FOXP3", text="a regulator", match="approved", text_from="summary")
    absent = replace(record, symbol="ABSENT")
    file = tmp_path / "genes.safetensors"
    spec = TextEncoderSpec("words", "", 24)
    write_gene_file(file, GeneFile((record, absent), torch.randn(2, 24), spec))
    section = _section(tiny_slide_file, [*model.panel.symbols, "FOXP3"])
    tuned = finetune_checkpoint(model, [section], QUICK, new_genes=file)
    assert tuned.checkpoint.panel.symbols == (*model.panel.symbols, "FOXP3")
    assert tuned.report["new_genes"]["genes"] == ["FOXP3"]
    assert tuned.report["new_genes"]["not_measured"] == ["ABSENT"]
    assert "FOXP3" not in [g["symbol"] for g in tuned.report["genes"]]
    save_checkpoint(tmp_path / "grown.safetensors", tuned.checkpoint)
    assert load_checkpoint(tmp_path / "grown.safetensors").network.config.genes == 7


# --- the command --------------------------------------------------------------------


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["napari-dkan", "finetune", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        out = capsys.readouterr()
        return exit.value.code or 0, out.out, out.err

    return run


def test_the_command_writes_checkpoint_and_report(
    call, tiny_slide_file, tiny_checkpoint_file, model: Checkpoint, tmp_path
) -> None:
    file = tmp_path / "drawn.h5ad"
    _section(tiny_slide_file, model.panel.symbols).write_h5ad(file)
    out, report = tmp_path / "mine.safetensors", tmp_path / "report.json"
    code, said, err = call(
        *("--checkpoint", tiny_checkpoint_file, "--data", file, "-o", out),
        *("--report", report, "--epochs", 2),
    )
    assert code == 0, err
    assert "held-out spots" in said and "epoch 2:" in err
    text = report.read_text()
    assert json.loads(text)["kind"] == "fine-tuning" and str(tmp_path) not in text
    assert str(tmp_path) not in json.dumps(load_checkpoint(out).card)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    call, tiny_slide_file, tiny_checkpoint_file, model: Checkpoint, tmp_path, monkeypatch
) -> None:
    file = tmp_path / "drawn.h5ad"
    _section(tiny_slide_file, model.panel.symbols).write_h5ad(file)

    def full(*given, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorfile, "save_file", full)
    out = tmp_path / "mine.safetensors"
    given = ("--checkpoint", tiny_checkpoint_file, "--data", file, "-o", out, "--epochs", 1)
    code, _, err = call(*given)
    assert code == 2 and "No space left on device" in err and "Traceback" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["drawn.h5ad"]


def test_an_unsaved_result_waits_for_another_path(model: Checkpoint, tmp_path, monkeypatch) -> None:
    from napari_dkan.training.finetuning.tuning_protocol import TuningProtocol

    read, write = __import__("os").pipe()
    monkeypatch.setattr("sys.stdin", open(read))  # noqa: SIM115
    talk, commands = TuningProtocol(True, print), open(write, "w")  # noqa: SIM115
    asked: list[Path] = []

    def save(path, checkpoint):
        asked.append(path)
        if len(asked) == 1:
            print(f"save {tmp_path / 'else.safetensors'}", file=commands, flush=True)
            raise OutputError("full.")
        return checkpoint

    assert (
        talk.save_with_retry(model, tmp_path / "mine.safetensors", save)
        == tmp_path / "else.safetensors"
    )
    commands.close()


def test_a_short_run_on_real_data(call, data_dir: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "mine.safetensors", tmp_path / "report.json"
    crop = data_dir / "her2st" / "crop" / "C3_crop.h5ad"
    code, said, err = call("--data", crop, "-o", out, "--epochs", 2, "--report", report)
    assert code == 0, err
    found = json.loads(report.read_text())
    # in sample: the bundled checkpoint knows the section, so no measure of quality
    assert found["summary"]["before"]["pcc_all"] > 0.3
    assert len(found["genes"]) == 250 and "held-out spots" in said
