"""Convert predictions to AnnData for scanpy and squidpy.

Conventions: scanpy (``uns['spatial']``) and anndata (``obsm``, ``uns``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ..atomic_write import atomic_write
from .slide_overview import SlideOverview

if TYPE_CHECKING:
    from anndata import AnnData

    from ..inference.prediction import Prediction
    from ..slide import Slide


REASON_SEPARATOR = "; "  # between the reasons of one spot


class SpotReliability(Protocol):
    """How far each of N spots is to be trusted, and why; see `quality.reliability`."""

    @property
    def score(self) -> NDArray[np.float32]: ...
    @property
    def unreliable(self) -> NDArray[np.bool_]: ...
    def reasons(self, row: int) -> tuple[str, ...]: ...


def to_anndata(
    prediction: Prediction, slide: Slide, reliability: SpotReliability | None = None
) -> AnnData:
    """AnnData (spots x genes) of predicted values, with a picture of the slide.

    ``obsm['spatial']`` holds (x, y) centres in level-0 px, ``uns['spatial'][library_id]``
    the overview image and scale factors, ``uns['napari_dkan']`` the provenance. Genes predicted
    from their text alone are marked in ``var['zero_shot']``, with the correlation that their
    checkpoint's card leads to expect; their values are in standard deviations from their mean.
    With a reliability, ``obs['reliability']`` is its score (0 to 1) and ``obs['unreliable']`` says
    which spots not to rely on; all of them are there. ``obs['reliability_reasons']`` says why,
    "; " between reasons.
    """
    return build_anndata(prediction, slide.name, SlideOverview.from_slide(slide), reliability)


def build_anndata(
    prediction: Prediction,
    slide_name: str,
    overview: SlideOverview | None,
    reliability: SpotReliability | None = None,
) -> AnnData:
    """`to_anndata` without a slide at hand; without a picture there is none to plot on."""
    import pandas as pd
    from anndata import AnnData
    from anndata.utils import make_index_unique

    spots, panel, record = prediction.target.spots, prediction.panel, prediction.provenance
    names = spots.names or tuple(f"spot{i}" for i in range(len(spots)))
    obs = pd.DataFrame(index=make_index_unique(pd.Index(names, dtype=str)))
    if spots.array is not None:
        obs["array_col"], obs["array_row"] = spots.array.T
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
        new = var.index.isin(prediction.zero_shot_symbols)
        expected = record["zero_shot"]["expected_pcc"]
        var["zero_shot"] = new
        var["zero_shot_expected_pcc"] = np.where(
            new, np.nan if expected is None else expected, np.nan
        )
    data = AnnData(prediction.values.copy(), obs=obs, var=var)
    data.obsm["spatial"] = spots.xy.copy()
    data.uns["spatial"] = {
        _to_hdf5_key(slide_name): _build_spatial_library(overview, spots.diameter_um, record)
    }
    data.uns["napari_dkan"] = _drop_missing_values(record)
    return data


def _drop_missing_values(record: dict) -> dict:
    """A record without what is not known, which HDF5 cannot hold; nor can it odd file names."""
    known = {
        k: _to_valid_unicode(v) if isinstance(v, str) else v
        for k, v in record.items()
        if v is not None
    }
    return {k: _drop_missing_values(v) if isinstance(v, dict) else v for k, v in known.items()}


def _to_valid_unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _to_hdf5_key(name: str) -> str:
    """A name as HDF5 takes it: valid Unicode without a slash."""
    return _to_valid_unicode(name).replace("/", "_") or "slide"


def _build_spatial_library(
    overview: SlideOverview | None, diameter_um: float | None, record: dict
) -> dict:
    diameter = (diameter_um or record["patch_um"]) / record["mpp"]
    factor = 1.0 if overview is None else overview.scale
    return {
        "images": {} if overview is None else {"hires": overview.rgb},
        "scalefactors": {
            "spot_diameter_fullres": diameter,
            "tissue_hires_scalef": factor,
            "fiducial_diameter_fullres": diameter,
        },
        "metadata": {"slide": _to_valid_unicode(record["slide"]), "mpp": record["mpp"]},
    }


def write_h5ad(data: AnnData, path: str | Path) -> Path:
    """Write an .h5ad, whole or not at all. Raises OutputError naming the file."""
    with atomic_write(path) as temporary:
        try:
            data.write_h5ad(temporary)
        except RuntimeError as error:  # HDF5 reports a full disk as a RuntimeError too
            raise OSError(f"HDF5: {error}") from error
    return Path(path)
