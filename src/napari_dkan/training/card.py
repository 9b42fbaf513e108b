"""The card of a trained checkpoint: data, split, every metric with the baselines beside it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..expression.panel import Panel
from .crossval import DKAN_METHOD
from .sections import PreparedSection
from .settings import TrainSettings


def build_training_card(
    sections: Sequence[PreparedSection],
    panel: Panel,
    settings: TrainSettings,
    epochs: int,
    report: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Plain JSON; without the report of a cross-validation it says that nothing was measured."""
    card: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "training_data": {
            "sections": [s.name for s in sections],
            "spots": {s.name: len(s) for s in sections},
            "spots_dropped_without_panel_counts": {s.name: list(s.dropped_spots) for s in sections},
            "um_per_px": {s.name: round(s.mpp, 4) for s in sections},
            "slide_fingerprints": {s.name: s.slide for s in sections if s.slide},
        },
        "training": {**asdict(settings), "epochs": epochs},
    }
    if report is None:
        return card | {"splits": "none", "metrics": "not measured"}
    pooled = report["pooled"]
    return card | {
        "splits": report["protocol"],
        # the two that a list of models has room for, then everything
        "metrics": {
            "pcc_all": pooled[DKAN_METHOD]["pcc_all"],
            "ridge_pcc_all": pooled["ridge"]["pcc_all"],
            "epochs_per_fold": list_chosen_epochs(report),
            **pooled,
        },
        "per_gene_pcc": {
            symbol: {m: values[m] for m in (DKAN_METHOD, "ridge")}
            for symbol, values in report["per_gene_pcc"].items()
        },
    }


def list_chosen_epochs(report: Mapping[str, Any]) -> list[int]:
    """Epochs chosen in each fold and with each seed."""
    return [n for fold in report["folds"] for n in fold["epochs"].values()]
