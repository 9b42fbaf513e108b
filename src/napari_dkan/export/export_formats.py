"""Formats of exported results, selected by the file extension, and the CSV table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ..atomic_write import atomic_write, write_json
from ..errors import OutputError
from .anndata_export import REASON_SEPARATOR
from .figure_content import build_result_figure
from .figure_rendering import write_figure
from .geojson_export import write_geojson
from .ome_zarr_export import write_ome_zarr
from .saved_result import (
    SavedResult,
    build_export_provenance,
    find_result_slide,
    format_signature,
    save_result,
    select_symbols,
)
from .spatialdata_export import write_spatialdata


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


GeneSymbols = Sequence[str] | None


@dataclass(frozen=True)
class ExportFormat:
    """The suffix of a format, its title in a list of formats, and its writer."""

    suffix: str
    title: str
    write: Callable[[str | Path, SavedResult, GeneSymbols], Path]


def _write_h5ad(path: str | Path, result: SavedResult, genes: GeneSymbols) -> Path:
    return save_result(path, result)


def _write_figure(path: str | Path, result: SavedResult, genes: GeneSymbols) -> Path:
    slide = find_result_slide(result, path)  # finer than the overview in the result
    with slide or nullcontext():
        content = build_result_figure(result, slide, None if genes is None else genes[0])
    return write_figure(path, content)


EXPORT_FORMATS = (
    ExportFormat(".h5ad", "AnnData that opens here again", _write_h5ad),
    ExportFormat(".csv", "table", write_csv),
    ExportFormat(".geojson", "QuPath tiles and regions", write_geojson),
    ExportFormat(".ome.zarr", "OME-Zarr heatmap", write_ome_zarr),
    ExportFormat(".spatialdata.zarr", "SpatialData", write_spatialdata),
    ExportFormat(".png", "figure", _write_figure),
    ExportFormat(".svg", "figure", _write_figure),
    ExportFormat(".pdf", "figure", _write_figure),
)


def find_export_format(path: str | Path) -> ExportFormat:
    """Find the format of a file name.

    Raises
    ------
    OutputError
        When the suffix is of no format; the message lists all suffixes.
    """
    name = Path(path).name.lower()
    for export_format in EXPORT_FORMATS:
        if name.endswith(export_format.suffix):
            return export_format
    suffixes = ", ".join(f.suffix for f in EXPORT_FORMATS)
    raise OutputError(f"{path} does not say what to write; let it end in one of {suffixes}.")


def write_result(path: str | Path, result: SavedResult, genes: GeneSymbols = None) -> Path:
    """Write a result atomically in the format of the file name.

    Parameters
    ----------
    genes : sequence of str, optional
        Symbols of the genes to write; all when None. A figure shows the first one, by default
        the one last viewed; an .h5ad file has all genes.

    Raises
    ------
    OutputError
        When the file cannot be written.
    SpotsError
        When a gene is not in the prediction.
    """
    return find_export_format(path).write(path, result, genes)
