"""Cross-validation: DKAN beside its baselines, on the same split and the same features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import SpotsError
from .baselines import BASELINES, Baseline
from .choices import By
from .fit import ONE_DEVICE
from .fit_model import OnEpoch, choose_epochs, fit_model
from .gene_text import GeneText
from .hardware import Hardware
from .metrics import Array, Scores, score
from .run_folder import Arrays, RunFolder
from .sections import Section, encode, fit_encoder
from .settings import Settings
from .splits import Fold, make_folds

DKAN = "dkan"
PROTOCOL = (
    "leave one {by} out; in each fold encoder, label standardisation and ridge penalty come "
    "from the training sections, and the number of epochs from a network trained on all but the "
    "validation sections, which are training sections and never test ones; the network is then "
    "trained on all training sections for that many epochs; the test {by} is used once, for the "
    "scores"
)

Log = Callable[[str], None]
Predicted = dict[str, Array]  # by section


@dataclass(frozen=True)
class FoldResult:
    """What each method predicted for the test sections of a fold.

    predicted : by method and seed; a baseline has one entry, of the first seed.
    """

    fold: Fold
    epochs: dict[int, int]
    labels: Predicted
    predicted: dict[str, dict[int, Predicted]]

    def arrays(self) -> Arrays:
        """As a flat table of arrays for a file."""
        flat: Arrays = {f"labels|{name}": y for name, y in self.labels.items()}
        flat |= {f"epochs|{seed}": np.array(n) for seed, n in self.epochs.items()}
        for method, by_seed in self.predicted.items():
            for seed, sections in by_seed.items():
                flat |= {f"{method}|{seed}|{name}": p for name, p in sections.items()}
        return flat

    @classmethod
    def of(cls, fold: Fold, arrays: Arrays) -> FoldResult:
        """From the table that `arrays` gives."""
        result = cls(fold, {}, {}, {})
        for key, values in arrays.items():
            first, *rest = key.split("|", 2)
            if first == "labels":
                result.labels["|".join(rest)] = values
            elif first == "epochs":
                result.epochs[int(rest[0])] = int(values)
            else:
                of_seed = result.predicted.setdefault(first, {}).setdefault(int(rest[0]), {})
                of_seed[rest[1]] = values
        return result


@dataclass(frozen=True)
class CrossValidation:
    """Results of all folds."""

    by: By
    folds: tuple[FoldResult, ...]

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epochs chosen in each fold, and with each seed."""
        return tuple(n for f in self.folds for n in f.epochs.values())

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.folds[0].predicted)

    def pooled(self, method: str, seed: int | None = None) -> Scores:
        """Scores over the test sections of all folds; of the first seed where none is given."""
        predicted: Predicted = {}
        labels: Predicted = {}
        for result in self.folds:
            by_seed = result.predicted[method]
            predicted |= by_seed[next(iter(by_seed)) if seed is None else seed]
            labels |= result.labels
        return score(predicted, {name: labels[name] for name in predicted})

    @property
    def scores(self) -> dict[str, Scores]:
        return {method: self.pooled(method) for method in self.methods}


def cross_validate(
    sections: Sequence[Section],
    gene_text: GeneText,
    settings: Settings,
    *,
    by: By = By.section,
    seeds: Sequence[int] = (),
    baselines: Mapping[str, Baseline] = BASELINES,
    run: RunFolder | None = None,
    hardware: Hardware = ONE_DEVICE,
    log: Log = lambda line: None,
    tick: Log = lambda line: None,
) -> CrossValidation:
    """DKAN and the baselines, each section or patient tested once.

    seeds : DKAN is trained once with each; the settings' own where none is given.
    run : keeps every finished fold, and within a fold the last epoch; finished folds are not
        run again.
    log : a line per fold. tick : a line per epoch.

    Raises SpotsError when there are too few sections or patients.
    """
    folds = make_folds(sections, by)
    named = {s.name: s for s in sections}
    results = []
    for fold in folds:
        kept = None if run is None else run.result(fold.name)
        if kept is None:
            context = _Context(gene_text, settings, run, hardware, tick)
            result = _run_fold(fold, named, context, list(seeds) or [settings.seed], baselines)
            if run is not None:
                run.save_result(fold.name, result.arrays())
        else:
            result = FoldResult.of(fold, kept)
        results.append(result)
        log(_line(result, resumed=kept is not None))
    return CrossValidation(by, tuple(results))


@dataclass(frozen=True)
class _Context:
    gene_text: GeneText
    settings: Settings
    run: RunFolder | None
    hardware: Hardware
    tick: Log


def _run_fold(
    fold: Fold,
    named: Mapping[str, Section],
    context: _Context,
    seeds: Sequence[int],
    baselines: Mapping[str, Baseline],
) -> FoldResult:
    training = [named[n] for n in fold.training]
    test = [named[n] for n in fold.test]
    if not any(len(named[n]) for n in fold.validation):
        raise SpotsError(
            f"The fold that tests {fold.name} has no spots to validate on in "
            f"{', '.join(fold.validation)}; give more sections."
        )
    result = FoldResult(fold, {}, {s.name: s.labels.numpy() for s in test}, {DKAN: {}})
    for seed in seeds:
        epochs, predicted = _dkan(fold, named, context, seed)
        result.epochs[seed] = epochs
        result.predicted[DKAN][seed] = predicted
    encoder = fit_encoder(training, context.settings.dim, context.settings.patch_um)
    seen, unseen = ([encode(s, encoder) for s in part] for part in (training, test))
    for method, baseline in baselines.items():
        predict = baseline.fit(seen)
        predictions = {e.section.name: np.asarray(predict(e), np.float32) for e in unseen}
        result.predicted[method] = {seeds[0]: predictions}
    return result


def _dkan(
    fold: Fold, named: Mapping[str, Section], context: _Context, seed: int
) -> tuple[int, Predicted]:
    settings = replace(context.settings, seed=seed)
    where = None if context.run is None else context.run.fold(fold.name) / f"seed-{seed}"

    def ticks(what: str) -> OnEpoch:
        def on_epoch(number: int, pcc: float) -> None:
            scored = "" if pcc != pcc else f", validation PCC-ALL {pcc:.3f}"
            context.tick(f"{fold.name}, seed {seed}, {what}: epoch {number}{scored}")

        return on_epoch

    best = choose_epochs(
        [named[n] for n in fold.fitting],
        [named[n] for n in fold.validation],
        context.gene_text,
        settings,
        folder=where and where / "choosing-epochs",
        hardware=context.hardware,
        on_epoch=ticks("choosing epochs"),
    )
    model = fit_model(
        [named[n] for n in fold.training],
        context.gene_text,
        settings,
        best,
        folder=where and where / "final",
        hardware=context.hardware,
        on_epoch=ticks("final"),
    )
    return best, {n: model.predict(named[n]) for n in fold.test}


def _line(result: FoldResult, resumed: bool) -> str:
    fold = result.fold
    spots = sum(map(len, result.labels.values()))
    epochs = " and ".join(str(n) for n in result.epochs.values())
    figures = []
    for method, by_seed in result.predicted.items():
        values = [score(p, result.labels).summary()["pcc_all"] for p in by_seed.values()]
        if None not in values:
            figures.append(f"{method} {np.mean(values):.3f}")
    done = " (done before)" if resumed else ""
    return (
        f"{fold.name} ({spots} spots){done}: {epochs} epochs chosen on "
        f"{', '.join(fold.validation)}; PCC-ALL {', '.join(figures)}"
    )
