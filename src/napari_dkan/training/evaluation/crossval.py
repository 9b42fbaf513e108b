"""Cross-validation folds, and trained methods and baselines on the same folds and features."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace

import numpy as np

from ...errors import SpotsError
from ...model.methods.method_configs import DKAN_METHOD
from ..baselines import BASELINES, Baseline
from ..data.prepared_section import PreparedSection, encode_section, fit_section_encoder
from ..depth_reference import DepthReference, compute_mean_profile
from ..fit.fit_callback import EpochCallback, EpochRecord
from ..fit.fit_model import SINGLE_DEVICE, TrainingHardware, choose_epochs, fit_model
from ..fit.run_folder import ArraysByName, RunFolder
from ..gene_text import GeneTextFeatures
from ..metrics import FloatingArray
from ..prediction_scores import (
    DEPTH_ALONE,
    PredictionScores,
    score_depth_alone,
    score_predictions,
)
from ..train_settings import FoldUnit, LogFunction, TrainSettings, ignore_log

CROSSVAL_PROTOCOL = (
    "leave one {by} out; in each fold encoder, label standardisation and ridge penalty come "
    "from the training sections, and the number of epochs from the depth-partial PCC of a network "
    "trained on all but the validation sections, which are training sections and never test ones; "
    "the network is then trained on all training sections for that many epochs; the test {by} is "
    "used once, for the scores"
)

PredictionsBySection = dict[str, FloatingArray]


@dataclass(frozen=True)
class Fold:
    """Names of the sections of a fold; validation sections are training sections."""

    name: str
    test: tuple[str, ...]
    training: tuple[str, ...]
    validation: tuple[str, ...]

    @property
    def training_without_validation(self) -> tuple[str, ...]:
        """Sections of the network that chooses the number of epochs."""
        return tuple(n for n in self.training if n not in self.validation)


def make_folds(sections: Sequence[PreparedSection], by: FoldUnit = FoldUnit.section) -> list[Fold]:
    """Make folds that test each section, or all sections of each patient, once.

    The section after the test section is the validation section. With patients all sections of
    the next patient validate, with only two patients one section of the training patient.

    Raises
    ------
    SpotsError
        When there are too few sections or patients, or a patient is unknown.
    """
    names = [s.name for s in sections]
    if len(set(names)) < len(names):
        repeated = next(n for n in names if names.count(n) > 1)
        raise SpotsError(f"The section {repeated} is given twice; give each once.")
    if by is FoldUnit.patient:
        return _make_patient_folds(sections)
    if len(names) < 3:
        raise SpotsError(
            f"Leave-one-section-out takes at least 3 sections, not {len(names)}: one is tested, "
            "one validates and the others are trained on. Give more, or train without it."
        )
    return [
        Fold(
            test,
            (test,),
            tuple(n for n in names if n != test),
            (names[(i + 1) % len(names)],),
        )
        for i, test in enumerate(names)
    ]


def _make_patient_folds(sections: Sequence[PreparedSection]) -> list[Fold]:
    unknown = [s.name for s in sections if not s.patient]
    if unknown:
        raise SpotsError(
            f"The data does not say which patient {', '.join(unknown[:3])} is from; "
            "use --by section."
        )
    by_patient: dict[str, tuple[str, ...]] = {}
    for section in sections:
        by_patient[section.patient] = (*by_patient.get(section.patient, ()), section.name)
    patients = list(by_patient)
    if len(patients) < 2:
        raise SpotsError(
            f"Leave-one-patient-out takes sections of at least 2 patients; all "
            f"{len(sections)} are of patient {patients[0]}. Give sections of others, "
            "or use --by section."
        )
    folds = []
    for i, test in enumerate(patients):
        training = tuple(n for p in patients if p != test for n in by_patient[p])
        next_sections = by_patient[patients[(i + 1) % len(patients)]]
        # with two patients the next one has all training sections
        validation = next_sections if len(patients) > 2 else next_sections[-1:]
        if len(training) == len(validation):
            raise SpotsError(
                f"With patient {test} tested, {training[0]} is the only section left to train "
                "on and none is left to validate on; give more sections."
            )
        folds.append(Fold(f"patient {test}", by_patient[test], training, validation))
    return folds


@dataclass(frozen=True)
class MethodCost:
    """What a method costs in a fold.

    Attributes
    ----------
    fit_seconds
        Wall time of the choice of epochs and the final fit; NaN where part of it was resumed.
    ms_per_spot
        Wall time of predicting the test sections from their tile features, by spot.
    parameters
        Number of parameters and stored labels of all members; NaN for a baseline.
    """

    fit_seconds: float
    ms_per_spot: float
    parameters: float = math.nan


@dataclass(frozen=True)
class FoldResult:
    """Predictions of each method for the test sections of a fold.

    Attributes
    ----------
    epochs
        Number of epochs by trained method and seed.
    labels
        Labels of the test sections.
    predictions
        By method and seed; a baseline has one entry, of the first seed.
    costs
        By method, of the first seed; {} for folds of older versions.
    """

    fold: Fold
    epochs: dict[str, dict[int, int]]
    labels: PredictionsBySection
    predictions: dict[str, dict[int, PredictionsBySection]]
    costs: dict[str, MethodCost] = field(default_factory=dict)

    def to_arrays(self) -> ArraysByName:
        """Convert to a flat table of arrays for a file."""
        flat: ArraysByName = {f"labels|{name}": y for name, y in self.labels.items()}
        for method, by_seed in self.epochs.items():
            suffix = "" if method == DKAN_METHOD else f"|{method}"  # as in older files
            flat |= {f"epochs|{seed}{suffix}": np.array(n) for seed, n in by_seed.items()}
        flat |= {f"costs|{method}": np.array(astuple(c)) for method, c in self.costs.items()}
        for method, predictions in self.predictions.items():
            for seed, sections in predictions.items():
                flat |= {f"{method}|{seed}|{name}": p for name, p in sections.items()}
        return flat

    @classmethod
    def from_arrays(cls, fold: Fold, arrays: ArraysByName) -> FoldResult:
        """Convert from the table of `to_arrays`."""
        result = cls(fold, {}, {}, {})
        for key, values in arrays.items():
            first, *rest = key.split("|", 2)
            if first == "labels":
                result.labels["|".join(rest)] = values
            elif first == "epochs":
                method = rest[1] if len(rest) > 1 else DKAN_METHOD
                result.epochs.setdefault(method, {})[int(rest[0])] = int(values)
            elif first == "costs":
                result.costs[rest[0]] = MethodCost(*map(float, values))
            else:
                by_seed = result.predictions.setdefault(first, {})
                by_seed.setdefault(int(rest[0]), {})[rest[1]] = values
        return result


@dataclass(frozen=True)
class CrossValidationResult:
    """Results of all folds.

    Attributes
    ----------
    references
        Counts behind the labels of each test section, with the mean profile of the training
        sections of its fold; {} where they are unknown.
    """

    by: FoldUnit
    folds: tuple[FoldResult, ...]
    references: Mapping[str, DepthReference] = field(default_factory=dict)

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epochs chosen for the first trained method in each fold, and with each seed."""
        return tuple(n for f in self.folds for n in f.epochs[self.trained_methods[0]].values())

    @property
    def trained_methods(self) -> tuple[str, ...]:
        """Names of the methods that are trained with each seed, without the baselines."""
        return tuple(self.folds[0].epochs)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods."""
        methods = tuple(self.folds[0].predictions)
        return (*methods, DEPTH_ALONE) if self.references else methods

    def fold_scores(self, fold: FoldResult, method: str) -> list[PredictionScores]:
        """Score a method on the test sections of a fold, with each seed."""
        if method == DEPTH_ALONE:
            return [score_depth_alone(fold.labels, self.references)]
        return [
            score_predictions(p, {name: fold.labels[name] for name in p}, self.references)
            for p in fold.predictions[method].values()
        ]

    def pooled_scores(self, method: str, seed: int | None = None) -> PredictionScores:
        """Score a method over the test sections of all folds; by default for the first seed."""
        predicted: PredictionsBySection = {}
        labels: PredictionsBySection = {}
        for result in self.folds:
            labels |= result.labels
        if method == DEPTH_ALONE:
            return score_depth_alone(labels, self.references)
        for result in self.folds:
            by_seed = result.predictions[method]
            predicted |= by_seed[next(iter(by_seed)) if seed is None else seed]
        return score_predictions(
            predicted, {name: labels[name] for name in predicted}, self.references
        )

    @property
    def scores(self) -> dict[str, PredictionScores]:
        """Pooled scores by method."""
        return {method: self.pooled_scores(method) for method in self.methods}


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
        Folder of the finished folds, which are not run again, and of the last epoch of a fold.
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
    results = []
    for fold in folds:
        stored = None if run is None else run.load_result(fold.name)
        if stored is None:
            fold_seeds = list(seeds) or [settings.seed]
            names = list(methods) or [settings.method]
            result = _run_fold(fold, sections_by_name, context, fold_seeds, baselines, names)
            if run is not None:
                run.save_result(fold.name, result.to_arrays())
        else:
            result = FoldResult.from_arrays(fold, stored)
        results.append(result)
        log(_format_fold_line(result, references, resumed=stored is not None))
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
