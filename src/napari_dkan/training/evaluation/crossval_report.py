"""The JSON report of a cross-validation: metrics per fold and their means, for every method."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import SpotsError
from ...expression.panel import Panel
from ..fit.run_folder import list_differences
from ..metrics import score_predictions
from .crossval import (
    CROSSVAL_PROTOCOL,
    DKAN_METHOD,
    CrossValidationResult,
    FoldResult,
    PredictionsBySection,
)

REPORT_METRICS = (
    *("pcc_all", "pcc_hpg", "pcc_heg", "pcc_hvg", "mse", "mae"),
    *("spots", "genes_without_pcc"),
)
METRIC_EXPLANATIONS = {
    "pcc_all": "Pearson correlation per gene over the spots of a section, mean over the fold's "
    "sections, then over genes; hpg, heg, hvg: over the 50 genes best predicted, of highest mean "
    "and of highest variance of the test labels",
    "mean": "mean over folds; DKAN's figures of a fold are means over seeds",
    "genes_without_pcc": "genes that are constant in measurement or prediction; they are left out "
    "of the means of the PCC and never count as zero",
    "pooled": "all test sections together: mean over sections, then over genes",
}

MetricValues = dict[str, Any]


def compute_fold_metrics(
    predicted: PredictionsBySection, labels: PredictionsBySection
) -> MetricValues:
    """The eight numbers of one method on the test sections of a fold; None where undefined."""
    summary = score_predictions(predicted, {name: labels[name] for name in predicted}).to_summary()
    summary["spots"] = int(sum(len(labels[name]) for name in predicted))
    return {name: summary[name] for name in REPORT_METRICS}


def average_metrics(figures: Sequence[MetricValues]) -> MetricValues:
    """Mean of each number over those that have it, None where none has."""
    return {name: _mean_or_none([f[name] for f in figures]) for name in REPORT_METRICS}


def build_crossval_report(
    result: CrossValidationResult, panel: Panel, made: Mapping[str, Any]
) -> MetricValues:
    """Plain JSON; made: what it was made by and from."""
    methods = {m: [_average_over_seeds(f, m) for f in result.folds] for m in result.methods}
    return {
        "format": 1,
        "kind": "cross-validation",
        "protocol": CROSSVAL_PROTOCOL.format(by=result.by),
        "explained": METRIC_EXPLANATIONS,
        "mean": {m: average_metrics(folds) for m, folds in methods.items()},
        "folds": [
            {
                "name": f.fold.name,
                "test": list(f.fold.test),
                "validation": list(f.fold.validation),
                "training": list(f.fold.training),
                "epochs": {str(seed): n for seed, n in f.epochs.items()},
                **{m: methods[m][i] for m in result.methods},
            }
            for i, f in enumerate(result.folds)
        ],
        "seeds": _metrics_by_seed(result),
        "spread_over_folds": {
            m: {n: _sample_std([f[n] for f in folds]) for n in REPORT_METRICS[:6]}
            for m, folds in methods.items()
        },
        "pooled": {m: result.pooled_scores(m).to_summary() for m in result.methods},
        "per_gene_pcc": {
            symbol: {m: _round_or_none(s.pcc_per_gene[i]) for m, s in result.scores.items()}
            for i, symbol in enumerate(panel.symbols)
        },
        "made": dict(made),
    }


def read_matching_report(path: str | Path, run: Mapping[str, Any]) -> MetricValues:
    """The report of a cross-validation on the sections, panel and settings of this run.

    Raises SpotsError when it cannot be read, or is of others, naming what differs.
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        made = {key: report["made"][key] for key in ("sections", "panel", "gene text", "settings")}
        made["stain"] = report["made"].get("stain")  # not there without normalisation
        (
            report["pooled"][DKAN_METHOD]["pcc_all"],
            report["folds"][0]["epochs"],
            report["per_gene_pcc"],
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise SpotsError(
            f"{path} is not the report of a cross-validation; make it with napari-dkan crossval."
        ) from error
    here = json.loads(json.dumps({key: run.get(key) for key in made}))
    # statistics differ in the last digit between machines; which sections they are does not
    made["sections"], here["sections"] = list(made["sections"]), list(here["sections"])
    differs = list_differences(made, here)
    if differs:
        raise SpotsError(
            f"{path} was measured with other settings or data ({', '.join(differs[:3])}); "
            "measure again, or train with those."
        )
    return report


def _average_over_seeds(result: FoldResult, method: str) -> MetricValues:
    return average_metrics(
        [compute_fold_metrics(p, result.labels) for p in result.predictions[method].values()]
    )


def _metrics_by_seed(result: CrossValidationResult) -> MetricValues:
    """DKAN's mean over folds with each seed, and the spread between seeds."""
    seeds = list(result.folds[0].predictions[DKAN_METHOD])
    each = {
        str(seed): average_metrics(
            [compute_fold_metrics(f.predictions[DKAN_METHOD][seed], f.labels) for f in result.folds]
        )
        for seed in seeds
    }
    spread = {n: _sample_std([f[n] for f in each.values()]) for n in REPORT_METRICS[:6]}
    return {"dkan": each, "spread": spread}


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return round(float(np.mean(known)), 4) if known else None


def _sample_std(values: Sequence[float | None]) -> float | None:
    """Sample standard deviation, None of fewer than two."""
    known = [v for v in values if v is not None]
    return round(float(np.std(known, ddof=1)), 4) if len(known) > 1 else None


def _round_or_none(value: float) -> float | None:
    return None if value != value else round(float(value), 3)


def format_metrics_table(figures: Mapping[str, MetricValues]) -> str:
    """A short table for people: a line per method."""
    names = REPORT_METRICS[:6]
    lines = [f"{'':<14}" + "".join(f"{n.upper().replace('_', '-'):>9}" for n in names)]
    for method, values in figures.items():
        cells = [("-" if values[n] is None else f"{values[n]:.4f}") for n in names]
        lines.append(f"{method:<14}" + "".join(f"{c:>9}" for c in cells))
    return "\n".join(lines)
