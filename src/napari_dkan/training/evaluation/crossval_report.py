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
from ..metrics import nanmean_or_none, round_or_none, score_predictions
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
    """Compute the report metrics of a method on the test sections of a fold; None if undefined."""
    summary = score_predictions(predicted, {name: labels[name] for name in predicted}).to_summary()
    summary["spots"] = int(sum(len(labels[name]) for name in predicted))
    return {name: summary[name] for name in REPORT_METRICS}


def average_metrics(metrics: Sequence[MetricValues]) -> MetricValues:
    """Average each metric over those that define it; None where none does."""
    return {
        name: nanmean_or_none([m[name] for m in metrics if m[name] is not None])
        for name in REPORT_METRICS
    }


def build_crossval_report(
    result: CrossValidationResult, panel: Panel, made: Mapping[str, Any]
) -> MetricValues:
    """Build the report as plain JSON; `made` is the provenance and configuration of the run."""
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
            symbol: {m: round_or_none(s.pcc_per_gene[i], 3) for m, s in result.scores.items()}
            for i, symbol in enumerate(panel.symbols)
        },
        "made": dict(made),
    }


def read_matching_report(path: str | Path, run: Mapping[str, Any]) -> MetricValues:
    """Read the report of a cross-validation of the same sections, panel and settings.

    Raises
    ------
    SpotsError
        When it cannot be read, or is of other inputs, with the names of the differences.
    """
    try:
        report: MetricValues = json.loads(Path(path).read_text(encoding="utf-8"))
        made = {key: report["made"][key] for key in ("sections", "panel", "gene text", "settings")}
        made["stain"] = report["made"].get("stain")  # absent without normalisation
        # raises KeyError or IndexError for a missing entry
        _ = (
            report["pooled"][DKAN_METHOD]["pcc_all"],
            report["folds"][0]["epochs"],
            report["per_gene_pcc"],
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise SpotsError(
            f"{path} is not the report of a cross-validation; make it with napari-dkan crossval."
        ) from error
    expected = json.loads(json.dumps({key: run.get(key) for key in made}))
    # hashes differ between machines, because statistics differ in the last digit; compare names
    made["sections"], expected["sections"] = list(made["sections"]), list(expected["sections"])
    differences = list_differences(made, expected)
    if differences:
        raise SpotsError(
            f"{path} was measured with other settings or data ({', '.join(differences[:3])}); "
            "measure again, or train with those."
        )
    return report


def _average_over_seeds(result: FoldResult, method: str) -> MetricValues:
    return average_metrics(
        [compute_fold_metrics(p, result.labels) for p in result.predictions[method].values()]
    )


def _metrics_by_seed(result: CrossValidationResult) -> MetricValues:
    """Average DKAN over folds for each seed, and compute the spread between seeds."""
    seeds = list(result.folds[0].predictions[DKAN_METHOD])
    by_seed = {
        str(seed): average_metrics(
            [compute_fold_metrics(f.predictions[DKAN_METHOD][seed], f.labels) for f in result.folds]
        )
        for seed in seeds
    }
    spread = {n: _sample_std([f[n] for f in by_seed.values()]) for n in REPORT_METRICS[:6]}
    return {"dkan": by_seed, "spread": spread}


def _sample_std(values: Sequence[float | None]) -> float | None:
    """Compute the sample standard deviation; None for fewer than two values."""
    defined = [v for v in values if v is not None]
    return round(float(np.std(defined, ddof=1)), 4) if len(defined) > 1 else None


def format_metrics_table(metrics: Mapping[str, MetricValues]) -> str:
    """Format a short table with a line per method."""
    names = REPORT_METRICS[:6]
    lines = [f"{'':<14}" + "".join(f"{n.upper().replace('_', '-'):>9}" for n in names)]
    for method, values in metrics.items():
        cells = [("-" if values[n] is None else f"{values[n]:.4f}") for n in names]
        lines.append(f"{method:<14}" + "".join(f"{c:>9}" for c in cells))
    return "\n".join(lines)
