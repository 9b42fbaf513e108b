"""The file formats of exported results, selected by file suffix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError
from .saved_result import SavedResult, save_result

GeneSymbols = Sequence[str] | None


@dataclass(frozen=True)
class ExportFormat:
    """A file's ending, what to call it in a list, and what writes it."""

    suffix: str
    title: str
    write: Callable[[str | Path, SavedResult, GeneSymbols], Path]


def _write_h5ad(path: str | Path, result: SavedResult, genes: GeneSymbols) -> Path:
    return save_result(path, result)


def _write_csv(path: str | Path, result: SavedResult, genes: GeneSymbols) -> Path:
    from .csv_export import write_csv

    return write_csv(path, result, genes)


def _write_geojson(path: str | Path, result: SavedResult, genes: GeneSymbols) -> Path:
    from .geojson_export import write_geojson

    return write_geojson(path, result, genes)


def _write_ome_zarr(path: str | Path, result: SavedResult, genes: GeneSymbols) -> Path:
    from .ome_zarr_export import write_ome_zarr

    return write_ome_zarr(path, result, genes)


def _write_spatialdata(path: str | Path, result: SavedResult, genes: GeneSymbols) -> Path:
    from .spatialdata_export import write_spatialdata

    return write_spatialdata(path, result, genes)


def _write_figure(path: str | Path, result: SavedResult, genes: GeneSymbols) -> Path:
    from .figure_content import build_result_figure
    from .figure_rendering import write_figure
    from .saved_result import find_result_slide

    slide = find_result_slide(result, path)  # the picture that travels along is a small one
    with slide or nullcontext():
        picture = build_result_figure(result, slide, None if genes is None else genes[0])
    return write_figure(path, picture)


EXPORT_FORMATS = (
    ExportFormat(".h5ad", "AnnData that opens here again", _write_h5ad),
    ExportFormat(".csv", "table", _write_csv),
    ExportFormat(".geojson", "QuPath tiles and regions", _write_geojson),
    ExportFormat(".ome.zarr", "OME-Zarr heatmap", _write_ome_zarr),
    ExportFormat(".spatialdata.zarr", "SpatialData", _write_spatialdata),
    ExportFormat(".png", "figure", _write_figure),
    ExportFormat(".svg", "figure", _write_figure),
    ExportFormat(".pdf", "figure", _write_figure),
)


def find_export_format(path: str | Path) -> ExportFormat:
    """The kind a name stands for. Raises OutputError that lists the endings."""
    name = Path(path).name.lower()
    for kind in EXPORT_FORMATS:
        if name.endswith(kind.suffix):
            return kind
    known = ", ".join(k.suffix for k in EXPORT_FORMATS)
    raise OutputError(f"{path} does not say what to write; let it end in one of {known}.")


def write_result(path: str | Path, result: SavedResult, genes: GeneSymbols = None) -> Path:
    """Write a result as what the name says, whole or not at all; all genes when None.

    A figure shows the first of the genes, by default the one that was looked at; an .h5ad keeps
    all. Raises OutputError naming the file, SpotsError for an unknown gene.
    """
    return find_export_format(path).write(path, result, genes)
