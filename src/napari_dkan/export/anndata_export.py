"""Convert predictions to AnnData for scanpy and squidpy.

Conventions: scanpy (``uns['spatial']``) and anndata (``obsm``, ``uns``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic_write import atomic_write
from .histology import SlideOverview

if TYPE_CHECKING:
    from anndata import AnnData

    from ..inference.prediction import Prediction, SpotReliability
    from ..slide import Slide


LAYER_SPREAD = "spread"
REASON_SEPARATOR = "; "  # between the reasons of one spot


def to_anndata(
    prediction: Prediction, slide: Slide, reliability: SpotReliability | None = None
) -> AnnData:
    """Convert a prediction to AnnData (spots x genes) with an overview image of the slide.

    ``obsm['spatial']`` has centers (x, y) in level-0 px, ``uns['spatial'][library_id]`` the
    overview image and scale factors, ``uns['napari_dkan']`` the provenance. ``var['zero_shot']``
    marks zero-shot genes, ``var['zero_shot_expected_pcc']`` is the correlation that the
    checkpoint's card measured for such genes; their values are in standard deviations from their
    mean. ``layers['spread']`` has the spread of the values where the prediction has one, and
    ``uns['napari_dkan']['spread']`` says what it is of.

    Parameters
    ----------
    reliability : SpotReliability, optional
        Adds ``obs['reliability']`` (score from 0 to 1), ``obs['unreliable']`` and
        ``obs['reliability_reasons']`` ("; " between reasons). All spots stay in the table.
    """
    return build_anndata(prediction, slide.name, SlideOverview.from_slide(slide), reliability)


def build_anndata(
    prediction: Prediction,
    slide_name: str,
    overview: SlideOverview | None,
    reliability: SpotReliability | None = None,
) -> AnnData:
    """Do what `to_anndata` does without the slide; the image is absent without an overview."""
    import pandas as pd
    from anndata import AnnData
    from anndata.utils import make_index_unique

    spots, panel, record = prediction.target.spots, prediction.panel, prediction.provenance
    obs = pd.DataFrame(index=make_index_unique(pd.Index(spots.labels, dtype=str)))
    if spots.array_coords is not None:
        obs["array_col"], obs["array_row"] = spots.array_coords.T
    obs["in_tissue"] = 1
    if reliability is not None:
        obs["reliability"] = reliability.score
        obs["unreliable"] = reliability.unreliable
        reasons = [REASON_SEPARATOR.join(reliability.reasons(i)) for i in range(len(spots))]
        obs["reliability_reasons"] = pd.Categorical(reasons)
    var = pd.DataFrame(
        {
            "gene_ids": [g.ensembl for g in panel.genes],
            "gene_name": [g.name for g in panel.genes],
        },
        index=pd.Index(panel.symbols, dtype=str),
    )
    if prediction.zero_shot_symbols:
        is_zero_shot = var.index.isin(prediction.zero_shot_symbols)
        expected = record["zero_shot"]["expected_pcc"]
        var["zero_shot"] = is_zero_shot
        var["zero_shot_expected_pcc"] = np.where(
            is_zero_shot, np.nan if expected is None else expected, np.nan
        )
    data = AnnData(prediction.values.copy(), obs=obs, var=var)
    if prediction.spread is not None:
        data.layers[LAYER_SPREAD] = prediction.spread.copy()
    data.obsm["spatial"] = spots.xy.copy()
    data.uns["spatial"] = {_to_hdf5_key(slide_name): _build_spatial_library(prediction, overview)}
    data.uns["napari_dkan"] = _drop_missing_values(record)
    return data


def _drop_missing_values(record: dict[str, Any]) -> dict[str, Any]:
    """A record that HDF5 can store: without None and with valid Unicode."""
    known = {
        k: _to_valid_unicode(v) if isinstance(v, str) else v
        for k, v in record.items()
        if v is not None
    }
    return {k: _drop_missing_values(v) if isinstance(v, dict) else v for k, v in known.items()}


def _to_valid_unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _to_hdf5_key(name: str) -> str:
    """A name in valid Unicode without a slash."""
    return _to_valid_unicode(name).replace("/", "_") or "slide"


def _build_spatial_library(
    prediction: Prediction, overview: SlideOverview | None
) -> dict[str, Any]:
    record = prediction.provenance
    diameter_px = prediction.spot_diameter_um / record["mpp"]
    return {
        "images": {} if overview is None else {"hires": overview.rgb},
        "scalefactors": {
            "spot_diameter_fullres": diameter_px,
            "tissue_hires_scalef": 1.0 if overview is None else overview.scale,
            "fiducial_diameter_fullres": diameter_px,
        },
        "metadata": {"slide": _to_valid_unicode(record["slide"]), "mpp": record["mpp"]},
    }


def write_h5ad(data: AnnData, path: str | Path) -> Path:
    """Write an .h5ad file atomically.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    with atomic_write(path) as temporary:
        try:
            data.write_h5ad(temporary)
        except RuntimeError as error:  # HDF5 also reports a full disk as a RuntimeError
            raise OSError(f"HDF5: {error}") from error
    return Path(path)
