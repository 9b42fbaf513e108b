"""Write a result as a CSV table, one row per spot, and its provenance as a JSON file next to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..atomic_write import atomic_write, write_json
from .anndata_export import REASON_SEPARATOR
from .saved_result import SavedResult, build_export_provenance, format_signature, select_symbols


def write_csv(path: str | Path, result: SavedResult, genes: Sequence[str] | None = None) -> Path:
    """Write ``path`` and ``path.json``.

    Columns: spot, x_px and y_px (level-0 px), x_um and y_um, array_col and array_row where the
    spots lie on an array, the reliability where it is known, predicted_by, then one column per
    gene with as many digits as restore the float32; empty where nothing is predicted.

    Raises
    ------
    OutputError
        When a file cannot be written.
    SpotsError
        When a gene is not in the prediction.
    """
    import pandas as pd

    prediction, spots = result.prediction, result.prediction.target.spots
    symbols = select_symbols(prediction, genes)
    columns: dict[str, object] = {
        "spot": spots.labels,
        "x_px": spots.xy[:, 0],
        "y_px": spots.xy[:, 1],
        "x_um": spots.xy[:, 0] * result.slide_record.mpp,
        "y_um": spots.xy[:, 1] * result.slide_record.mpp,
    }
    if spots.array_coords is not None:
        columns["array_col"], columns["array_row"] = spots.array_coords.T
    if result.reliability is not None:
        reliability = result.reliability
        columns["reliability"] = reliability.score
        columns["unreliable"] = reliability.unreliable
        columns["reliability_reasons"] = [
            REASON_SEPARATOR.join(reliability.reasons(i)) for i in range(len(spots))
        ]
    columns["predicted_by"] = format_signature(result)
    values = pd.DataFrame({g: prediction.get_gene_values(g) for g in symbols})
    table = pd.concat([pd.DataFrame(columns), values], axis=1)
    write_json(f"{path}.json", build_export_provenance(result, symbols), allow_nan=True)
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False)
    return Path(path)
