"""A saved result: the prediction and all that is restored when its file is opened again.

The file is an AnnData; ``uns['napari_dkan']['saved']`` holds JSON with what AnnData has no place
for. `result_reader.load_result` reads it. The slide is found again by its fingerprint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError, SlideError
from ..inference.prediction import Prediction
from ..inference.tile_qc_features import QC_FEATURE_NAMES
from .anndata_export import SpotReliability, build_anndata, write_h5ad
from .slide_overview import SlideOverview

if TYPE_CHECKING:
    from anndata import AnnData
    from shapely.geometry.base import BaseGeometry

    from ..slide import Slide


RESULT_FORMAT_VERSION = 1
UNS_GROUP, UNS_DOCUMENT_KEY = "napari_dkan", "saved"  # uns[GROUP][KEY] is the JSON
OBSM_TOKENS, OBSM_QC_FEATURES, OBSM_CELLS = "dkan_tokens", "dkan_evidence", "dkan_cells"  # in obsm
OBS_FAILED, OBS_SPOT_NAME = "failed", "spot_name"  # in obs, where they say something


@dataclass(frozen=True)
class SlideRecord:
    """The slide a result belongs to.

    path : where it was, or its URL. fingerprint : of `Slide.fingerprint`, by which it is known
    wherever it is now. width, height : level-0 px. mpp : um per level-0 px, and who said so.
    """

    name: str
    path: str
    fingerprint: str
    width: int
    height: int
    mpp: float
    mpp_origin: str

    @classmethod
    def from_slide(cls, slide: Slide, mpp: float, mpp_origin: str) -> SlideRecord:
        return cls(
            slide.name,
            slide.location if slide.path is None else str(slide.path.absolute()),
            slide.fingerprint(),
            slide.width,
            slide.height,
            mpp,
            mpp_origin,
        )


@dataclass(frozen=True)
class ViewSettings:
    """How a result was looked at.

    limits : contrast limits of all genes, None where each gene has its own. centre : (x, y) in
    level-0 px. zoom : screen px per um.
    """

    gene: str | None = None
    pinned: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    colormap: str = "magma"
    opacity: float = 0.65
    hatch: bool = True
    centre: tuple[float, float] | None = None
    zoom: float | None = None


@dataclass(frozen=True, eq=False)
class SavedReliability:
    """A reliability that was saved: per spot its score, whether to rely on it, and why not."""

    score: NDArray[np.float32]
    unreliable: NDArray[np.bool_]
    reasons_by_spot: tuple[tuple[str, ...], ...]

    def reasons(self, row: int) -> tuple[str, ...]:
        return self.reasons_by_spot[row]


@dataclass(frozen=True, eq=False)
class SavedResult:
    """A prediction and what it was made of, judged by and looked at with.

    card : the checkpoint's. regions : what was drawn, in level-0 px. versions : of the programs
    that predicted, this one's when empty. picture : the slide, small; None until it is written.
    """

    prediction: Prediction
    slide_record: SlideRecord
    card: Mapping[str, Any]
    reliability: SpotReliability | None = None
    regions: BaseGeometry | None = None
    view_settings: ViewSettings | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    overview: SlideOverview | None = None


def save_result(path: str | Path, result: SavedResult, slide: Slide | None = None) -> Path:
    """Write an .h5ad that `reopen` gives back bit for bit, whole or not at all.

    slide : for the overview picture; without it the one that came with ``saved`` stays.

    Raises OutputError naming the file, SlideError when the slide cannot be read.
    """
    if not len(result.prediction.target):
        raise OutputError(f"{path} was not written: nothing is predicted yet; predict first.")
    return write_h5ad(result_to_anndata(result, slide), path)


def result_to_anndata(result: SavedResult, slide: Slide | None = None) -> AnnData:
    """`anndata.to_anndata` plus all that ``saved`` holds.

    ``obsm['dkan_tokens']`` (N, D) are the fused tokens, which serve as an embedding too;
    ``obsm['dkan_evidence']`` (N, E) what was noted of each tile.

    Raises OutputError when a card or a record is not JSON, SlideError.
    """
    prediction, target = result.prediction, result.prediction.target
    picture = result.overview if slide is None else SlideOverview.from_slide(slide)
    data = build_anndata(prediction, result.slide_record.name, picture, result.reliability)
    data.obsm[OBSM_TOKENS] = prediction.tokens
    if len(prediction.qc_features) == len(target):
        data.obsm[OBSM_QC_FEATURES] = prediction.qc_features
    if prediction.failed_mask.any():
        data.obs[OBS_FAILED] = prediction.failed_mask
    if target.grid is not None:
        data.obsm[OBSM_CELLS] = target.grid.cells
    if target.spots.names and list(data.obs_names) != list(target.spots.names):
        data.obs[OBS_SPOT_NAME] = list(target.spots.names)  # AnnData made them unique
    try:
        data.uns[UNS_GROUP][UNS_DOCUMENT_KEY] = json.dumps(build_document(result))
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputError(f"The card or the record of this result is not JSON: {error}.") from None
    return data


def build_document(result: SavedResult) -> dict[str, Any]:
    """What goes beside the arrays, as plain JSON; `reopen` reads it."""
    prediction, spots = result.prediction, result.prediction.target.spots
    grid, scale = prediction.target.grid, prediction.label_scale
    return {
        "format": RESULT_FORMAT_VERSION,
        "slide": vars(result.slide_record),
        "target": {
            "kind": str(prediction.target.kind),
            "named": bool(spots.names),
            "array": spots.array is not None,
            "diameter_um": spots.diameter_um,
            "pitch_um": spots.pitch_um,
            "grid": None if grid is None else {"pitch": grid.pitch, "pitch_um": grid.pitch_um},
        },
        "panel": [
            {"symbol": g.symbol, "ensembl": g.ensembl, "name": g.name, "aliases": list(g.aliases)}
            for g in prediction.panel.genes
        ],
        "label_scale": vars(scale),
        "provenance": prediction.provenance,
        "zero_shot": list(prediction.zero_shot_symbols),
        "failed": len(prediction.failed_mask) == len(spots),
        "evidence": list(QC_FEATURE_NAMES),
        "card": dict(result.card),
        "regions": None if result.regions is None else _to_geojson(result.regions),
        "view": None if result.view_settings is None else vars(result.view_settings),
        "versions": dict(result.versions) or get_package_versions(),
    }


def _to_geojson(region: BaseGeometry) -> dict[str, Any]:
    from shapely.geometry import mapping

    return mapping(region)


def get_package_versions() -> dict[str, str]:
    """Of Python and of what the numbers depend on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in ("napari-dkan", "torch", "timm", "numpy", "anndata", "openslide-bin", "tifffile"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a GPU box may do without some
            continue
    return found


def find_result_slide(result: SavedResult, result_path: str | Path) -> Slide | None:
    """Open the slide of a result: where it was, or under its name beside a file.

    An address on another machine is never opened here, as nobody has asked for it.
    """
    for place in _iter_candidate_paths(result.slide_record.path, Path(result_path)):
        slide = open_matching_slide(result, place)
        if slide is not None:
            return slide
    return None


def open_matching_slide(result: SavedResult, path: str | Path) -> Slide | None:
    """Open a file if it is this slide, in the colours the prediction saw; else None."""
    from ..slide import open_slide

    try:
        slide = open_slide(path, apply_icc=bool(result.prediction.provenance.get("slide_colours")))
        if slide.fingerprint() == result.slide_record.fingerprint:
            slide.prefetch()
            return slide
    except SlideError:
        return None  # no slide any more, whatever it is now
    slide.close()
    return None


def _iter_candidate_paths(stored_path: str, result_path: Path) -> Iterator[Path]:
    if "://" in stored_path or not stored_path:
        return
    name = re.split(r"[\\/]", stored_path.rstrip("\\/"))[-1]  # of whatever system it was on
    for place in (Path(stored_path), result_path.absolute().parent / name):
        try:
            there = place.exists()
        except (OSError, ValueError):  # too long a name, or a null character
            continue
        if there:
            yield place
