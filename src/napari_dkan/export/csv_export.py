"""Write a result as a CSV table, one row per spot, with its provenance as JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..atomic_write import atomic_write
from .anndata_export import REASON_SEPARATOR
from .provenance_text import build_export_provenance, format_signature, select_symbols
from .saved_result import SavedResult


def write_csv(path: str | Path, result: SavedResult, genes: Sequence[str] | None = None) -> Path:
    """Write ``PATH`` and ``PATH.json``.

    Columns: spot, x_px and y_px (level-0 px), x_um and y_um, array_col and array_row where there
    is an array, the reliability where it is known, predicted_by, then the genes under their
    symbols with as many digits as give the same float32 again; empty where nothing is predicted.

    Raises OutputError naming the file, SpotsError for an unknown gene.
    """
    import pandas as pd

    prediction, spots = result.prediction, result.prediction.target.spots
    symbols = select_symbols(prediction, genes)
    columns: dict[str, object] = {
        "spot": list(spots.names) or [f"spot{i}" for i in range(len(spots))],
        "x_px": spots.xy[:, 0],
        "y_px": spots.xy[:, 1],
        "x_um": spots.xy[:, 0] * result.slide_record.mpp,
        "y_um": spots.xy[:, 1] * result.slide_record.mpp,
    }
    if spots.array is not None:
        columns["array_col"], columns["array_row"] = spots.array.T
    if result.reliability is not None:
        judged = result.reliability
        columns["reliability"] = judged.score
        columns["unreliable"] = judged.unreliable
        columns["reliability_reasons"] = [
            REASON_SEPARATOR.join(judged.reasons(i)) for i in range(len(spots))
        ]
    columns["predicted_by"] = format_signature(result)
    values = pd.DataFrame({g: prediction.get_gene_values(g) for g in symbols})
    table = pd.concat([pd.DataFrame(columns), values], axis=1)
    with atomic_write(f"{path}.json") as beside:
        beside.write_text(
            json.dumps(build_export_provenance(result, symbols), indent=1), encoding="utf-8"
        )
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False)
    return Path(path)
