"""The files a result can leave as, told by their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError
from .saved import Saved, save

Genes = Sequence[str] | None


@dataclass(frozen=True)
class Kind:
    """A file's ending, what to call it in a list, and what writes it."""

    suffix: str
    title: str
    write: Callable[[str | Path, Saved, Genes], Path]


def _h5ad(path: str | Path, saved: Saved, genes: Genes) -> Path:
    return save(path, saved)


def _csv(path: str | Path, saved: Saved, genes: Genes) -> Path:
    from .csv import write_csv

    return write_csv(path, saved, genes)


def _geojson(path: str | Path, saved: Saved, genes: Genes) -> Path:
    from .geojson import write_geojson

    return write_geojson(path, saved, genes)


def _heatmap(path: str | Path, saved: Saved, genes: Genes) -> Path:
    from .ome_zarr import write_heatmap

    return write_heatmap(path, saved, genes)


def _spatialdata(path: str | Path, saved: Saved, genes: Genes) -> Path:
    from .spatialdata import write_spatialdata

    return write_spatialdata(path, saved, genes)


def _figure(path: str | Path, saved: Saved, genes: Genes) -> Path:
    from .figure import write_figure
    from .figure_scene import saved_figure
    from .slide_again import find_slide

    slide = find_slide(saved, path)  # the picture that travels along is a small one
    with slide or nullcontext():
        picture = saved_figure(saved, slide, None if genes is None else genes[0])
    return write_figure(path, picture)


KINDS = (
    Kind(".h5ad", "AnnData that opens here again", _h5ad),
    Kind(".csv", "table", _csv),
    Kind(".geojson", "QuPath tiles and regions", _geojson),
    Kind(".ome.zarr", "OME-Zarr heatmap", _heatmap),
    Kind(".spatialdata.zarr", "SpatialData", _spatialdata),
    Kind(".png", "figure", _figure),
    Kind(".svg", "figure", _figure),
    Kind(".pdf", "figure", _figure),
)


def kind_of(path: str | Path) -> Kind:
    """The kind a name stands for. Raises OutputError that lists the endings."""
    name = Path(path).name.lower()
    for kind in KINDS:
        if name.endswith(kind.suffix):
            return kind
    known = ", ".join(k.suffix for k in KINDS)
    raise OutputError(f"{path} does not say what to write; let it end in one of {known}.")


def write_as(path: str | Path, saved: Saved, genes: Genes = None) -> Path:
    """Write a result as what the name says, whole or not at all; all genes when None.

    A figure shows the first of the genes, by default the one that was looked at; an .h5ad keeps
    all. Raises OutputError naming the file, SpotsError for an unknown gene.
    """
    return kind_of(path).write(path, saved, genes)
