"""Measurements of regions for a file; for a worker thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...layers.slide_tiles import SlideTiles, TileValues

if TYPE_CHECKING:
    from ....export.region_export import MeasuredRegions
    from ....spatial.region_files import NamedRegion


def measure_regions(
    regions: Sequence[NamedRegion],
    tiles: SlideTiles,
    measured: TileValues | None,
    genes: Sequence[str] | None,
    mpp: float,
    scan_origin: tuple[int, int],
) -> MeasuredRegions:
    """Measure each region: tiles, area, share unreliable, mean and median of genes.

    Parameters
    ----------
    regions
        In level-0 px.
    tiles
        Predicted maps of the slide.
    measured
        Measured labels on the same slide, if there are any.
    genes
        None for all.
    mpp
        um per level-0 px.
    scan_origin
        Corner of the scan area in level-0 px.
    """
    from ....export.region_export import MeasuredRegions
    from ....export.saved_result import format_gene_label, get_package_versions
    from ....quality.region_statistics import summarize_regions

    geometries = [r.geometry for r in regions]
    values = tiles.read(genes)
    prediction = tiles.overlays[-1].prediction
    found = summarize_regions(
        geometries, values.values, values.xy, values.pitch, mpp, values.unreliable
    )
    rows: list[dict[str, float]] = []
    for i in range(len(regions)):
        row = {
            "Tiles": float(found.n_tiles[i]),
            "Area mm^2": float(found.area_mm2[i]),
            "Unreliable share": float(found.unreliable[i]),
        }
        for column, symbol in enumerate(values.panel.symbols):
            label = format_gene_label(prediction, symbol)
            row[f"{label} mean"] = float(found.mean[i, column])
            row[f"{label} median"] = float(found.median[i, column])
        rows.append(row)
    if measured is not None:
        columns = [c for c, s in enumerate(measured.panel.symbols) if genes is None or s in genes]
        of_spots = summarize_regions(
            geometries, measured.values[:, columns], measured.xy, measured.pitch, mpp
        )
        for i, row in enumerate(rows):
            row["Measured spots"] = float(of_spots.n_tiles[i])
            for k, column in enumerate(columns):
                symbol = measured.panel.symbols[column]
                row[f"{symbol} measured mean"] = float(of_spots.mean[i, k])
                row[f"{symbol} measured median"] = float(of_spots.median[i, k])
    provenance = {
        "about": "Predicted from H&E unless named measured. Research only, not for diagnosis.",
        **tiles.provenance,
        "genes": list(values.panel.symbols),
        "label_scale": prediction.label_scale.name,
        "maps": len(tiles.overlays),
        "tiles": len(values.xy),
        "versions": get_package_versions(),
    }
    return MeasuredRegions(tuple(regions), tuple(rows), scan_origin, provenance)
