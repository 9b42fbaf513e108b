"""Provenance that every exported file carries, and the selection and labels of its genes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..inference.prediction import Prediction
from .saved_result import SavedResult, get_package_versions


def select_symbols(prediction: Prediction, genes: Sequence[str] | None) -> tuple[str, ...]:
    """Symbols of the genes asked for, in that order; all when None.

    Raises SpotsError when the prediction lacks one.
    """
    symbols = prediction.panel.symbols
    if genes is None:
        return symbols
    return tuple(dict.fromkeys(symbols[row] for row in prediction.panel.rows(genes)))


def format_gene_label(prediction: Prediction, gene: str) -> str:
    """What a gene's values are called where a name is all there is: ``ERBB2 predicted``."""
    return f"{gene} {prediction.get_value_kind(gene)}"


def format_signature(result: SavedResult) -> str:
    """One line for each row or object: program, checkpoint and the start of its hash."""
    told = result.prediction.provenance
    parts = ("napari-dkan", told.get("version"), told.get("checkpoint"))
    words = " ".join(str(p) for p in parts if p)
    return f"{words} {str(told.get('checkpoint_sha256', ''))[:12]}".strip()


def build_export_provenance(result: SavedResult, genes: Sequence[str]) -> dict[str, Any]:
    """All of it, as plain JSON."""
    prediction = result.prediction
    return {
        "about": "Predicted from H&E, not measured. Research only, not for diagnosis.",
        **prediction.provenance,
        "genes": list(genes),
        "zero_shot_genes": [g for g in genes if g in prediction.zero_shot_symbols],
        "label_scale": prediction.label_scale.name,
        "slide_record": vars(result.slide_record),
        "versions": dict(result.versions) or get_package_versions(),
    }
