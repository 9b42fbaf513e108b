"""A table that anything opens: one row per spot, and beside it JSON that says what it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..files import written_whole
from .account import account, chosen, signature
from .anndata import REASONS
from .saved import Saved


def write_csv(path: str | Path, saved: Saved, genes: Sequence[str] | None = None) -> Path:
    """Write ``PATH`` and ``PATH.json``.

    Columns: spot, x_px and y_px (level-0 px), x_um and y_um, array_col and array_row where there
    is an array, the reliability where it is known, predicted_by, then the genes under their
    symbols with as many digits as give the same float32 again; empty where nothing is predicted.

    Raises OutputError naming the file, SpotsError for an unknown gene.
    """
    import pandas as pd

    prediction, spots = saved.prediction, saved.prediction.target.spots
    symbols = chosen(prediction, genes)
    columns: dict[str, object] = {
        "spot": list(spots.names) or [f"spot{i}" for i in range(len(spots))],
        "x_px": spots.xy[:, 0],
        "y_px": spots.xy[:, 1],
        "x_um": spots.xy[:, 0] * saved.slide.mpp,
        "y_um": spots.xy[:, 1] * saved.slide.mpp,
    }
    if spots.array is not None:
        columns["array_col"], columns["array_row"] = spots.array.T
    if saved.reliability is not None:
        judged = saved.reliability
        columns["reliability"] = judged.score
        columns["unreliable"] = judged.unreliable
        columns["reliability_reasons"] = [
            REASONS.join(judged.reasons(i)) for i in range(len(spots))
        ]
    columns["predicted_by"] = signature(saved)
    values = pd.DataFrame({g: prediction.gene(g) for g in symbols})
    table = pd.concat([pd.DataFrame(columns), values], axis=1)
    with written_whole(f"{path}.json") as beside:
        beside.write_text(json.dumps(account(saved, symbols), indent=1), encoding="utf-8")
    with written_whole(path) as temporary:
        table.to_csv(temporary, index=False)
    return Path(path)
