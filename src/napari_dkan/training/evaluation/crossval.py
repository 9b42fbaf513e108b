"""Cross-validation of trained methods and baselines on the same folds and features."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import SpotsError
from ...model.methods.method_configs import DKAN_METHOD
from ..baselines import BASELINES, Baseline
from ..data.prepared_section import PreparedSection, encode_section, fit_section_encoder
from ..depth_reference import DepthReference, compute_mean_profile
from ..fit.fit_callback import EpochCallback, EpochRecord
from ..fit.fit_model import SINGLE_DEVICE, TrainingHardware, choose_epochs, fit_model
from ..fit.run_folder import RunFolder
from ..gene_text import GeneTextFeatures
from ..prediction_scores import (
    score_predictions,
)
from ..train_settings import FoldUnit, LogFunction, TrainSettings, ignore_log
from .crossval_result import (
    CrossValidationResult,
    FoldResult,
    MethodCost,
    PredictionsBySection,
)
from .folds import Fold, make_folds

CROSSVAL_PROTOCOL = (
    "leave one {by} out; in each fold encoder, label standardisation and ridge penalty come "
    "from the training sections, and the number of epochs from the depth-partial PCC of a network "
    "trained on all but the validation sections, which are training sections and never test ones; "
    "the network is then trained on all training sections for that many epochs; the test {by} is "
    "used once, for the scores"
)


def cross_validate(
    sections: Sequence[PreparedSection],
    gene_text: GeneTextFeatures,
    settings: TrainSettings,
    *,
    by: FoldUnit = FoldUnit.section,
    seeds: Sequence[int] = (),
    methods: Sequence[str] = (),
    baselines: Mapping[str, Baseline] = BASELINES,
    run: RunFolder | None = None,
    hardware: TrainingHardware = SINGLE_DEVICE,
    log: LogFunction = ignore_log,
    log_epoch: LogFunction = ignore_log,
) -> CrossValidationResult:
    """Cross-validate methods and baselines; each section or patient is tested once.

    Parameters
    ----------
    seeds
        Each method is trained once with each of them; by default the seed of the settings.
    methods
        Names of the methods, see `model.methods`; by default that of the settings.
    run
        Folder of the finished folds and of the last epoch of a fold. Methods that a finished fold
        has are not trained again, others are added to it.
    log, log_epoch
        Get a line per fold and per epoch.

    Raises
    ------
    SpotsError
        When there are too few sections or patients.
    """
    folds = make_folds(sections, by)
    sections_by_name = {s.name: s for s in sections}
    references = _make_depth_references(folds, sections_by_name)
    context = _FoldContext(gene_text, settings, run, hardware, log_epoch)
    names, fold_seeds = list(methods) or [settings.method], list(seeds) or [settings.seed]
    results = []
    for fold in folds:
        stored = None if run is None else run.load_result(fold.name)
        result = None if stored is None else FoldResult.from_arrays(fold, stored)
        missing = [m for m in names if result is None or m not in result.epochs]
        if missing:
            left = baselines if result is None else {}
            new = _run_fold(fold, sections_by_name, context, fold_seeds, left, missing)
            result = new if result is None else result.add_methods(new)
            if run is not None:
                run.save_result(fold.name, result.to_arrays())
        assert result is not None
        results.append(result.select_methods(names))
        log(_format_fold_line(results[-1], references, resumed=not missing))
    return CrossValidationResult(by, tuple(results), references)


def _make_depth_references(
    folds: Sequence[Fold], sections: Mapping[str, PreparedSection]
) -> dict[str, DepthReference]:
    """Return the counts of each test section; {} unless all sections have counts."""
    counts = {n: s.counts for n, s in sections.items() if s.counts is not None}
    if len(counts) < len(sections):
        return {}
    return {
        name: DepthReference(counts[name], compute_mean_profile([counts[n] for n in fold.training]))
        for fold in folds
        for name in fold.test
    }


@dataclass(frozen=True)
class _FoldContext:
    gene_text: GeneTextFeatures
    settings: TrainSettings
    run: RunFolder | None
    hardware: TrainingHardware
    log_epoch: LogFunction


def _run_fold(
    fold: Fold,
    sections_by_name: Mapping[str, PreparedSection],
    context: _FoldContext,
    seeds: Sequence[int],
    baselines: Mapping[str, Baseline],
    methods: Sequence[str] = (DKAN_METHOD,),
) -> FoldResult:
    training = [sections_by_name[n] for n in fold.training]
    test = [sections_by_name[n] for n in fold.test]
    if not any(len(sections_by_name[n]) for n in fold.validation):
        raise SpotsError(
            f"The fold that tests {fold.name} has no spots to validate on in "
            f"{', '.join(fold.validation)}; give more sections."
        )
    result = FoldResult(fold, {}, {s.name: s.labels.numpy() for s in test}, {})
    n_spots = sum(map(len, test))
    for method in methods:
        for seed in seeds:
            fit = _fit_and_predict(fold, sections_by_name, context, method, seed)
            result.epochs.setdefault(method, {})[seed] = fit.epochs
            result.predictions.setdefault(method, {})[seed] = fit.predictions
            result.costs.setdefault(method, fit.cost)
    encoder = fit_section_encoder(training, context.settings.dim, context.settings.patch_um)
    encoded_training = [encode_section(s, encoder) for s in training]
    encoded_test = [encode_section(s, encoder) for s in test]
    for method, baseline in baselines.items():
        start = time.perf_counter()
        predict = baseline.fit(encoded_training)
        fitted = time.perf_counter()
        predictions = {e.section.name: np.asarray(predict(e), np.float32) for e in encoded_test}
        result.predictions[method] = {seeds[0]: predictions}
        ms = 1000 * (time.perf_counter() - fitted) / n_spots
        result.costs[method] = MethodCost(fitted - start, ms)
    return result


@dataclass(frozen=True)
class _MethodFit:
    """Outcome of training a method in a fold, with one seed."""

    epochs: int
    predictions: PredictionsBySection
    cost: MethodCost


def _fit_and_predict(
    fold: Fold,
    sections_by_name: Mapping[str, PreparedSection],
    context: _FoldContext,
    method: str,
    seed: int,
) -> _MethodFit:
    settings = replace(context.settings, method=method, seed=seed)
    folder = None
    if context.run is not None:
        own = () if method == DKAN_METHOD else (method,)  # as in runs of older versions
        folder = context.run.fold_path(fold.name).joinpath(*own, f"seed-{seed}")
    label = "" if method == DKAN_METHOD else f"{method}, "
    is_resumed = folder is not None and folder.exists()
    start = time.perf_counter()

    def epoch_callback(stage: str) -> EpochCallback:
        def on_epoch(epoch: EpochRecord) -> None:
            score = ""
            if not math.isnan(epoch.val_partial):
                score = (
                    f", validation depth-partial PCC {epoch.val_partial:.3f}, "
                    f"PCC-ALL {epoch.val_pcc:.3f}"
                )
            context.log_epoch(
                f"{fold.name}, {label}seed {seed}, {stage}: epoch {epoch.number}{score}"
            )

        return on_epoch

    epochs = choose_epochs(
        [sections_by_name[n] for n in fold.training_without_validation],
        [sections_by_name[n] for n in fold.validation],
        context.gene_text,
        settings,
        folder=folder and folder / "choosing-epochs",
        hardware=context.hardware,
        on_epoch=epoch_callback("choosing epochs"),
    )
    model = fit_model(
        [sections_by_name[n] for n in fold.training],
        context.gene_text,
        settings,
        epochs,
        folder=folder and folder / "final",
        hardware=context.hardware,
        on_epoch=epoch_callback("final"),
    )
    fitted = time.perf_counter()
    predictions = {n: model.predict(sections_by_name[n]) for n in fold.test}
    ms = 1000 * (time.perf_counter() - fitted) / sum(map(len, predictions.values()))
    cost = MethodCost(math.nan if is_resumed else fitted - start, ms, model.n_numbers)
    return _MethodFit(epochs, predictions, cost)


def _format_fold_line(
    result: FoldResult, references: Mapping[str, DepthReference], resumed: bool
) -> str:
    fold = result.fold
    spots = sum(map(len, result.labels.values()))
    epochs = ", ".join(
        (f"{method} " if len(result.epochs) > 1 else "") + " and ".join(map(str, by_seed.values()))
        for method, by_seed in result.epochs.items()
    )
    figure, title = "pcc_all", "PCC-ALL"
    if all(name in references for name in result.labels):
        figure, title = "depth_partial_pcc", "depth-partial PCC"
    scores = []
    for method, by_seed in result.predictions.items():
        values = [
            score_predictions(p, result.labels, references).to_summary()[figure]
            for p in by_seed.values()
        ]
        if None not in values:
            scores.append(f"{method} {np.mean(values):.3f}")
    note = " (done before)" if resumed else ""
    return (
        f"{fold.name} ({spots} spots){note}: {epochs} epochs chosen on "
        f"{', '.join(fold.validation)}; {title} {', '.join(scores)}"
    )
