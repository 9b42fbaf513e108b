"""The JSON report of a cross-validation: metrics per fold and their means, for every method."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import SpotsError
from ...expression.panel import Panel
from ...model.methods.method_configs import DKAN_METHOD
from ..fit.run_folder import list_differences
from ..metrics import nanmean_or_none, round_or_none
from ..prediction_scores import DEPTH_ALONE, PredictionScores
from .crossval import CROSSVAL_PROTOCOL
from .crossval_result import CrossValidationResult, FoldResult

# Titles of the columns of the printed table, in its order.
TABLE_TITLES = {
    "depth_partial_pcc": "PARTIAL",
    "share_of_attainable": "SHARE",
    "deviance_explained": "DEVIANCE",
    "pcc_all": "PCC-ALL",
    "pcc_hpg": "PCC-HPG",
    "pcc_heg": "PCC-HEG",
    "pcc_hvg": "PCC-HVG",
    "mse": "MSE",
    "mae": "MAE",
}
_SCORES = (*TABLE_TITLES, "ceiling", "deviance_explained_3x3")
REPORT_METRICS = (*_SCORES, "spots", "genes_without_pcc", "genes_not_judged")
METRIC_EXPLANATIONS = {
    "depth_partial_pcc": "as pcc_all, after prediction and label are both regressed on the depth "
    "of the spots: log10 of the panel total, averaged over neighbours like the labels; None where "
    "the counts were not recorded",
    "ceiling": "what a perfect prediction could reach of it, given counting noise: labels of two "
    "random halves of the counts, Spearman-Brown, square root",
    "share_of_attainable": "depth_partial_pcc by ceiling",
    "deviance_explained": "share of the multinomial deviance of the raw counts from the mean "
    "profile of the training sections; 3x3: counts summed over the array neighbourhood",
    "depth_alone": "the measured depth as the prediction of every gene",
    "genes_not_judged": "genes whose counts here are too few to tell a good prediction from a bad "
    "one: random halves of them do not agree",
    "pcc_all": "Pearson correlation per gene over the spots of a section, mean over the fold's "
    "sections, then over genes; hpg, heg, hvg: over the 50 genes best predicted, of highest mean "
    "and of highest variance of the test labels",
    "mean": "mean over folds; figures of a trained method in a fold are means over seeds",
    "genes_without_pcc": "genes that are constant in measurement or prediction; they are left out "
    "of the means of the PCC and never count as zero",
    "costs": "mean over folds of the wall time of the whole fit, of predicting a spot from its "
    "features, and the number of parameters of all members",
    "pooled": "all test sections together: mean over sections, then over genes",
}

MetricValues = dict[str, Any]


def summarize_scores(scores: PredictionScores, n_spots: int) -> MetricValues:
    """Select the report metrics of a method on test sections; None where undefined."""
    summary = scores.to_summary() | {"spots": n_spots}
    return {name: summary.get(name) for name in REPORT_METRICS}


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
    methods = {m: [_average_over_seeds(result, f, m) for f in result.folds] for m in result.methods}
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
                "epochs": _epochs_by_method(f)[result.trained_methods[0]],
                "epochs_by_method": _epochs_by_method(f),
                **{m: methods[m][i] for m in result.methods},
            }
            for i, f in enumerate(result.folds)
        ],
        "seeds": _metrics_by_seed(result),
        "costs": _average_costs(result),
        "spread_over_folds": {
            m: {n: _sample_std([f[n] for f in folds]) for n in _SCORES}
            for m, folds in methods.items()
        },
        "pooled": {m: result.pooled_scores(m).to_summary() for m in result.methods},
        "per_gene_pcc": {
            symbol: {m: round_or_none(s.pcc_per_gene[i], 3) for m, s in result.scores.items()}
            for i, symbol in enumerate(panel.symbols)
        },
        "per_gene_depth_partial": tabulate_depth_partial(result.scores, panel.symbols),
        "made": dict(made),
    }


def tabulate_depth_partial(
    scores: Mapping[str, PredictionScores], symbols: Sequence[str]
) -> MetricValues:
    """Tabulate the depth-partial PCC by gene and method, with its ceiling.

    Returns
    -------
    By symbol the PCC of each method but the depth itself, "ceiling", and "judged": whether the
    gene can be judged. {} where the counts are not known.
    """
    depths = {m: s.depth for m, s in scores.items() if s.depth is not None and m != DEPTH_ALONE}
    if not depths:
        return {}
    first = next(iter(depths.values()))
    partial = {m: d.partial_per_gene for m, d in depths.items()}
    ceiling, is_judged = first.ceiling_per_gene, first.is_judged_per_gene
    return {
        symbol: {
            **{m: round_or_none(values[i], 3) for m, values in partial.items()},
            "ceiling": round_or_none(ceiling[i], 3),
            "judged": bool(is_judged[i]),
        }
        for i, symbol in enumerate(symbols)
    }


def read_matching_report(path: str | Path, run: Mapping[str, Any]) -> MetricValues:
    """Read the report of a cross-validation of the same sections, panel and settings.

    Raises
    ------
    SpotsError
        When it cannot be read, or is of other inputs, with the names of the differences.
    """
    method = run["settings"].get("method", DKAN_METHOD)
    try:
        report: MetricValues = json.loads(Path(path).read_text(encoding="utf-8"))
        made = {key: report["made"][key] for key in ("sections", "panel", "gene text", "settings")}
        made["stain"] = report["made"].get("stain")  # absent without normalisation
        # raises KeyError or IndexError for a missing entry
        _ = report["folds"][0]["epochs"], report["per_gene_pcc"], made["settings"].keys()
        is_measured = method in report["pooled"]
        if is_measured:
            _ = report["pooled"][method]["pcc_all"], list_chosen_epochs(report, method)[0]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise SpotsError(
            f"{path} is not the report of a cross-validation; make it with napari-dkan crossval."
        ) from error
    if not is_measured:
        raise SpotsError(
            f"{path} has no figures of the method {method}; name it at --methods of crossval."
        )
    expected = json.loads(json.dumps({key: run.get(key) for key in made}))
    for settings in (made["settings"], expected["settings"]):
        settings.pop("method", None)  # a report has several
    # hashes differ between machines, because statistics differ in the last digit; compare names
    made["sections"], expected["sections"] = list(made["sections"]), list(expected["sections"])
    differences = list_differences(made, expected)
    if differences:
        raise SpotsError(
            f"{path} was measured with other settings or data ({', '.join(differences[:3])}); "
            "measure again, or train with those."
        )
    return report


def _average_over_seeds(
    result: CrossValidationResult, fold: FoldResult, method: str
) -> MetricValues:
    return average_metrics(
        [summarize_scores(s, _count_spots(fold)) for s in result.fold_scores(fold, method)]
    )


def _count_spots(fold: FoldResult) -> int:
    return sum(map(len, fold.labels.values()))


def _metrics_by_seed(result: CrossValidationResult) -> MetricValues:
    """Average trained methods over folds for each seed, and compute the spread between seeds."""
    by_method: MetricValues = {}
    for method in result.trained_methods:
        scores = [result.fold_scores(f, method) for f in result.folds]
        by_method[method] = {
            str(seed): average_metrics(
                [
                    summarize_scores(by_seed[i], _count_spots(f))
                    for f, by_seed in zip(result.folds, scores, strict=True)
                ]
            )
            for i, seed in enumerate(result.folds[0].predictions[method])
        }
    by_seed = by_method[result.trained_methods[0]].values()
    spread = {n: _sample_std([f[n] for f in by_seed]) for n in _SCORES}
    return {**by_method, "spread": spread}


def _average_costs(result: CrossValidationResult) -> MetricValues:
    """Average what each method costs over the folds; {} for folds of older versions."""
    costs: MetricValues = {}
    for method in result.folds[0].costs:
        folds = [f.costs[method] for f in result.folds if method in f.costs]
        costs[method] = {
            name: nanmean_or_none([getattr(c, name) for c in folds])
            for name in ("fit_seconds", "ms_per_spot", "parameters")
        }
    return costs


def list_chosen_epochs(report: Mapping[str, Any], method: str = DKAN_METHOD) -> list[int]:
    """List the epochs chosen for a method in each fold and with each seed."""
    of_folds = [  # reports of older versions are of DKAN alone
        f.get("epochs_by_method", {DKAN_METHOD: f["epochs"]})[method] for f in report["folds"]
    ]
    return [n for by_seed in of_folds for n in by_seed.values()]


def _epochs_by_method(fold: FoldResult) -> dict[str, dict[str, int]]:
    return {m: {str(seed): n for seed, n in e.items()} for m, e in fold.epochs.items()}


def _sample_std(values: Sequence[float | None]) -> float | None:
    """Compute the sample standard deviation; None for fewer than two values."""
    defined = [v for v in values if v is not None]
    return round(float(np.std(defined, ddof=1)), 4) if len(defined) > 1 else None


def format_metrics_table(metrics: Mapping[str, MetricValues]) -> str:
    """Format a short table with a line per method, and a line about the ceiling where known."""
    shown = {
        n: t for n, t in TABLE_TITLES.items() if any(v.get(n) is not None for v in metrics.values())
    }
    lines = [f"{'':<14}" + "".join(f"{title:>9}" for title in shown.values())]
    for method, values in metrics.items():
        cells = [_format_cell(values.get(n)) for n in shown]
        lines.append(f"{method:<14}" + "".join(f"{c:>9}" for c in cells))
    first = next(iter(metrics.values()), {})
    if first.get("ceiling") is not None:
        n_unjudged = round(first["genes_not_judged"] or 0)
        lines.append(
            f"PARTIAL: PCC with depth regressed out, at most {first['ceiling']:.2f} given the "
            f"counting noise; SHARE of that. {n_unjudged} genes have too few counts to be judged."
        )
        if "deviance_explained" not in shown:
            lines.append(
                "Deviance explained: not recorded (the checkpoint does not state the mean profile "
                "of its training sections)."
            )
    return "\n".join(lines)


def _format_cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
