"""A saved result, the provenance of its exports, and the .h5ad file that restores it.

The file is an AnnData; ``uns['napari_dkan']['saved']`` is a JSON document of everything that has
no place in AnnData. `result_reader.load_result` reads it. The slide is identified by its
fingerprint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import mapping

from ..errors import OutputError, SlideError
from ..inference.map_colors import DEFAULT_COLORMAP
from ..inference.prediction import Prediction, SpotReliability
from ..inference.tile_qc_features import QC_FEATURE_NAMES
from .anndata_export import build_anndata, write_h5ad
from .histology import SlideOverview

if TYPE_CHECKING:
    from anndata import AnnData
    from shapely.geometry.base import BaseGeometry

    from ..slide import Slide


RESULT_FORMAT_VERSION = 1
UNS_GROUP, UNS_DOCUMENT_KEY = "napari_dkan", "saved"  # uns[group][key] is the document
OBSM_TOKENS, OBSM_QC_FEATURES, OBSM_CELLS = "dkan_tokens", "dkan_evidence", "dkan_cells"
# Of formats that state a scan area on the glass, ``openslide.bounds-*``.
_SCAN_AREA_SUFFIXES = (".scn", ".mrxs", ".czi", ".bif")
OBS_FAILED, OBS_SPOT_NAME = "failed", "spot_name"  # columns of obs, present where needed


@dataclass(frozen=True)
class SlideRecord:
    """The slide of a result.

    Attributes
    ----------
    path : str
        Path or URL at the time of the prediction.
    fingerprint : str
        `Slide.fingerprint`, which identifies the slide at any path.
    width, height : int
        Level-0 px.
    mpp : float
        um per level-0 px.
    mpp_origin : str
        Source of ``mpp``.
    image : str
        The image of the file, where one was chosen; "" for the scan.
    scan_origin : tuple of int or None
        (x, y) of the corner of the scan area, from which QuPath counts; see `Slide`. None in
        results of version 0.1.0, which counted from the corner of the glass; see
        `find_scan_origin`.
    """

    name: str
    path: str
    fingerprint: str
    width: int
    height: int
    mpp: float
    mpp_origin: str
    image: str = ""
    scan_origin: tuple[int, int] | None = (0, 0)

    @classmethod
    def from_slide(cls, slide: Slide, mpp: float, mpp_origin: str) -> SlideRecord:
        """Record an open slide."""
        return cls(
            slide.name,
            slide.location if slide.path is None else str(slide.path.absolute()),
            slide.fingerprint(),
            slide.width,
            slide.height,
            mpp,
            mpp_origin,
            slide.chosen_image,
            slide.scan_origin,
        )


@dataclass(frozen=True)
class ViewSettings:
    """How the viewer showed a result.

    Attributes
    ----------
    limits : tuple of float or None
        Contrast limits of all genes; None where each gene has its own.
    limits_by_gene : dict
        Limits that were set by hand, by symbol; other genes have their percentiles.
    centre : tuple of float or None
        (x, y) in level-0 px.
    zoom : float or None
        Screen px per um.
    """

    gene: str | None = None
    pinned: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    colormap: str = DEFAULT_COLORMAP
    opacity: float = 0.65
    hatch: bool = True
    centre: tuple[float, float] | None = None
    zoom: float | None = None
    limits_by_gene: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SavedReliability:
    """The reliability (N,) of a saved result, see `SpotReliability`."""

    score: NDArray[np.float32]
    unreliable: NDArray[np.bool_]
    reasons_by_spot: tuple[tuple[str, ...], ...]

    def reasons(self, row: int) -> tuple[str, ...]:
        """Reasons why a spot is unreliable."""
        return self.reasons_by_spot[row]


@dataclass(frozen=True, eq=False)
class SavedResult:
    """A prediction with its slide, checkpoint card, reliability, regions and view settings.

    Attributes
    ----------
    card : Mapping
        Card of the checkpoint.
    regions : BaseGeometry or None
        Drawn regions in level-0 px.
    versions : Mapping
        Versions of the programs that made the prediction; the installed ones when empty.
    overview : SlideOverview or None
        None until the result is written.
    """

    prediction: Prediction
    slide_record: SlideRecord
    card: Mapping[str, Any]
    reliability: SpotReliability | None = None
    regions: BaseGeometry | None = None
    view_settings: ViewSettings | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    overview: SlideOverview | None = None

    @property
    def region_polygons(self) -> list[BaseGeometry]:
        """Polygons of the regions."""
        return [] if self.regions is None else list(shapely.get_parts(self.regions))


def save_result(path: str | Path, result: SavedResult, slide: Slide | None = None) -> Path:
    """Write an .h5ad file atomically; `load_result` restores it bit for bit.

    Parameters
    ----------
    slide : Slide, optional
        For a new overview image; the result's own is written when None.

    Raises
    ------
    OutputError
        When the file cannot be written or the result has no spots.
    SlideError
        When the slide cannot be read.
    """
    if not len(result.prediction.target):
        raise OutputError(f"{path} was not written: nothing is predicted yet; predict first.")
    return write_h5ad(result_to_anndata(result, slide), path)


def result_to_anndata(result: SavedResult, slide: Slide | None = None) -> AnnData:
    """Convert a result to AnnData: `to_anndata` and everything that restores the result.

    ``obsm['dkan_tokens']`` (N, D) are the fused tokens, which are an embedding too;
    ``obsm['dkan_evidence']`` (N, E) are the quality-control features.

    Raises
    ------
    OutputError
        When the card or the provenance is not JSON.
    SlideError
        When the slide cannot be read.
    """
    prediction, target = result.prediction, result.prediction.target
    overview = result.overview if slide is None else SlideOverview.from_slide(slide)
    data = build_anndata(prediction, result.slide_record.name, overview, result.reliability)
    data.obsm[OBSM_TOKENS] = prediction.tokens
    if len(prediction.qc_features) == len(target):
        data.obsm[OBSM_QC_FEATURES] = prediction.qc_features
    if prediction.failed_mask.any():
        data.obs[OBS_FAILED] = prediction.failed_mask
    if target.grid is not None:
        data.obsm[OBSM_CELLS] = target.grid.cells
    if target.spots.names and list(data.obs_names) != list(target.spots.names):
        data.obs[OBS_SPOT_NAME] = list(target.spots.names)  # obs_names are unique
    try:
        data.uns[UNS_GROUP][UNS_DOCUMENT_KEY] = json.dumps(build_document(result))
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputError(f"The card or the record of this result is not JSON: {error}.") from None
    return data


def build_document(result: SavedResult) -> dict[str, Any]:
    """Build the JSON document of everything but the arrays."""
    prediction, spots = result.prediction, result.prediction.target.spots
    grid, scale = prediction.target.grid, prediction.label_scale
    return {
        "format": RESULT_FORMAT_VERSION,
        "slide": vars(result.slide_record),
        "target": {
            "kind": str(prediction.target.kind),
            "named": bool(spots.names),
            "array": spots.array_coords is not None,
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
        "regions": None if result.regions is None else mapping(result.regions),
        "view": None if result.view_settings is None else vars(result.view_settings),
        "versions": dict(result.versions) or get_package_versions(),
    }


def get_package_versions() -> dict[str, str]:
    """Versions of Python, the system and the packages that affect the values."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version(), "system": platform.platform()}
    for name in ("napari-dkan", "torch", "timm", "numpy", "anndata", "openslide-bin", "tifffile"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # optional, or another build
            continue
    return versions


def select_symbols(prediction: Prediction, genes: Sequence[str] | None) -> tuple[str, ...]:
    """Select symbols of genes in the order of ``genes``; all when None.

    Raises
    ------
    SpotsError
        When a gene is not in the prediction.
    """
    symbols = prediction.panel.symbols
    if genes is None:
        return symbols
    return tuple(dict.fromkeys(symbols[row] for row in prediction.panel.rows(genes)))


def format_gene_label(prediction: Prediction, gene: str) -> str:
    """Format a gene with the kind of its values, as ``ERBB2 predicted``."""
    return f"{gene} {prediction.get_value_kind(gene)}"


def format_signature(result: SavedResult) -> str:
    """Format one line of provenance: program, checkpoint and the start of its hash."""
    record = result.prediction.provenance
    parts = ("napari-dkan", record.get("version"), record.get("checkpoint"))
    words = " ".join(str(p) for p in parts if p)
    return f"{words} {str(record.get('checkpoint_sha256', ''))[:12]}".strip()


def build_export_provenance(result: SavedResult, genes: Sequence[str]) -> dict[str, Any]:
    """Build the provenance of an exported file with these genes, as plain JSON."""
    prediction = result.prediction
    return {
        "about": "Predicted from H&E, not measured. Research only, not for diagnosis.",
        **prediction.provenance,
        "genes": list(genes),
        "zero_shot_genes": [g for g in genes if g in prediction.zero_shot_symbols],
        "label_scale": prediction.label_scale.name,
        "slide_record": vars(result.slide_record),
        "versions": dict(result.versions) or get_package_versions(),
    }


def find_result_slide(result: SavedResult, result_path: str | Path) -> Slide | None:
    """Open the slide of a result at its recorded path or in the folder of the result's file.

    A URL is never opened, as the user did not ask for network access.
    """
    for path in _iter_candidate_paths(result.slide_record.path, Path(result_path)):
        slide = open_matching_slide(result, path)
        if slide is not None:
            return slide
    return None


def find_scan_origin(result: SavedResult, result_path: str | Path) -> tuple[int, int]:
    """Find the corner of the scan area, which results of version 0.1.0 do not state.

    Raises
    ------
    OutputError
        When only the slide states it and is not found.
    """
    record = result.slide_record
    if record.scan_origin is not None:
        return record.scan_origin
    slide = find_result_slide(result, result_path)
    if slide is not None:
        with slide:
            return slide.scan_origin
    name = re.split(r"[\\/]", record.path)[-1]
    if name.lower().endswith(_SCAN_AREA_SUFFIXES):
        raise OutputError(
            f"{result_path} was not written: this result of napari-dkan 0.1.0 counts from the "
            f"corner of the glass and QuPath from the scan area, which only the slide states; put "
            f"{name} beside {Path(result_path).name} and export again."
        )
    return 0, 0


def open_matching_slide(result: SavedResult, path: str | Path) -> Slide | None:
    """Open a file with the color conversion of the prediction; None if it is not its slide."""
    from ..slide import open_slide

    record = result.slide_record
    has_icc = bool(result.prediction.provenance.get("slide_colours"))
    # Earlier versions counted from the corner of the glass.
    for whole_glass in (False, True):
        try:
            slide = open_slide(
                path, apply_icc=has_icc, image=record.image or None, whole_glass=whole_glass
            )
            if slide.fingerprint() == record.fingerprint:
                slide.prefetch()
                return slide
        except SlideError:
            return None
        slide.close()
    return None


def _iter_candidate_paths(stored_path: str, result_path: Path) -> Iterator[Path]:
    if "://" in stored_path or not stored_path:
        return
    name = re.split(r"[\\/]", stored_path.rstrip("\\/"))[-1]  # of any operating system
    for path in (Path(stored_path), result_path.absolute().parent / name):
        try:
            exists = path.exists()
        except (OSError, ValueError):  # too long a name, or a null character
            continue
        if exists:
            yield path
