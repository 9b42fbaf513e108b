"""Draw a synthetic H&E section with simulated expression.

The image is drawn cell by cell. Counts are simulated from the same layout, so that they depend on
the morphology in the image. No value was measured and nothing comes from a patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_dkan.errors import DkanError
from napari_dkan.spatial.spots import Spots

from .cell_nuclei import NECROSIS_DEPTH_UM, CellArrays, paint_nuclei, place_cells
from .stain_image import draw_staining, paint_background, render_rgb, upsample
from .tissue_layout import FloatArray, TissueLayout, compute_fibre_direction, draw_layout

SPOT_PITCH_UM, SPOT_DIAMETER_UM = 200.0, 100.0
NEIGHBOURHOOD_UM = 150.0  # radius around a spot's centre that influences its counts

# gene -> weights of the amounts of `measure_morphology`; no weights: a housekeeping gene
GENE_WEIGHTS: dict[str, dict[str, float]] = {
    "ACTB": {},
    "GAPDH": {},
    "EEF1A1": {},
    "RPLP0": {},
    "ERBB2": {"tumour": 9, "epithelium": 1.2},
    "KRT8": {"tumour": 7, "epithelium": 5},
    "KRT18": {"tumour": 6, "epithelium": 4},
    "KRT19": {"tumour": 8, "epithelium": 3},
    "EPCAM": {"tumour": 5, "epithelium": 3.5},
    "CDH1": {"tumour": 3, "epithelium": 3},
    "MUC1": {"tumour": 3.5, "epithelium": 3},
    "GATA3": {"tumour": 4, "epithelium": 1.5},
    "KRT5": {"epithelium": 3.5, "myoepithelium": 4},
    "KRT14": {"epithelium": 1, "myoepithelium": 6},
    "LTF": {"epithelium": 6},
    "MKI67": {"tumour": 1.2, "mitosis": 3.5},
    "TOP2A": {"tumour": 1.0, "mitosis": 3.0},
    "VEGFA": {"tumour": 0.6, "deep": 5},
    "NDRG1": {"tumour": 0.5, "deep": 6},
    "COL1A1": {"collagen": 9, "front": 5},
    "COL1A2": {"collagen": 7, "front": 3},
    "COL3A1": {"collagen": 8, "front": 3},
    "SPARC": {"collagen": 5, "front": 4, "vessel": 1.5},
    "VIM": {"collagen": 4, "fibroblast": 3, "lymphocyte": 2, "vessel": 2, "fat": 1.2},
    "DCN": {"collagen": 4, "fibroblast": 4},
    "LUM": {"collagen": 4, "fibroblast": 2.5},
    "FN1": {"collagen": 1, "front": 7},
    "POSTN": {"front": 8},
    "ACTA2": {"front": 2, "myoepithelium": 2, "vessel": 4},
    "PECAM1": {"vessel": 4, "fat": 0.4},
    "CD3D": {"lymphocyte": 5},
    "PTPRC": {"lymphocyte": 5, "plasma": 1},
    "CD74": {"lymphocyte": 9, "plasma": 2, "contact": 3},
    "HLA-DRA": {"lymphocyte": 7, "contact": 3},
    "MS4A1": {"lymphocyte": 4},
    "CXCL9": {"lymphocyte": 1, "contact": 6},
    "IGKC": {"plasma": 16, "lymphocyte": 1.5},
    "JCHAIN": {"plasma": 8},
    "FABP4": {"fat": 10, "vessel": 0.6},
    "ADIPOQ": {"fat": 7},
    "PLIN1": {"fat": 6},
}
AMBIENT_RATE = 0.12  # background of every gene
HOUSEKEEPING_SHARE = 0.16


def place_spots(layout: TissueLayout, mpp: float) -> Spots:
    """Return the spots of an ST array that are at least half on the tissue.

    Array coordinates start at 1; the centre of a spot is at (array - 0.5) pitches plus the margin
    that centres the array on the section.
    """
    across = int(layout.size_um / SPOT_PITCH_UM)
    margin = (layout.size_um - across * SPOT_PITCH_UM) / 2
    x, y = (g.ravel() for g in np.meshgrid(*(np.arange(1, across + 1),) * 2))
    xy = (np.stack([x, y], 1) - 0.5) * SPOT_PITCH_UM + margin
    dots = _disc_points(SPOT_DIAMETER_UM / 2, 37)
    places = xy[:, None] + dots[None]
    on = (layout.interpolate(layout.tissue, places[..., 0], places[..., 1]) > 0).mean(1) >= 0.5
    array = np.stack([x, y], 1)[on]
    names = tuple(f"{a}x{b}" for a, b in array)
    return Spots(xy[on] / mpp, array, names, SPOT_DIAMETER_UM, SPOT_PITCH_UM)


def measure_morphology(
    layout: TissueLayout, cells: CellArrays, xy_um: FloatArray
) -> dict[str, FloatArray]:
    """Return the amounts (N,) of cells and tissue in and around each spot, about 0..1, by name.

    Cells are counted within the spot, and with a fifth of the weight within `NEIGHBOURHOOD_UM`.
    Collagen and fat are shares of the area; front is collagen with tumour nearby, contact is
    tumour and lymphocytes together, deep is tumour far from its blood supply.

    Parameters
    ----------
    xy_um : (N, 2) array
        Centres of the spots in um.
    """
    full = {"tumour": 62, "mitosis": 1.6, "epithelium": 30, "myoepithelium": 17, "fibroblast": 14,
            "endothelium": 14, "lymphocyte": 90, "plasma": 30}  # fmt: skip
    inside = {
        k: _count_cells_near(cells, k, xy_um, SPOT_DIAMETER_UM / 2) / n for k, n in full.items()
    }
    share = (SPOT_DIAMETER_UM / 2 / NEIGHBOURHOOD_UM) ** 2
    near = {
        k: _count_cells_near(cells, k, xy_um, NEIGHBOURHOOD_UM) * share / n for k, n in full.items()
    }
    amounts = {k: 0.8 * inside[k] + 0.2 * near[k] for k in full}
    amounts["vessel"] = amounts.pop("endothelium")

    places = xy_um[:, None] + _disc_points(SPOT_DIAMETER_UM / 2, 91)[None]
    x, y = places[..., 0], places[..., 1]
    tissue = layout.interpolate(layout.tissue, x, y) > 0
    fat = tissue & (layout.interpolate(layout.fat, x, y) > 0)
    depth = layout.interpolate(layout.nests, x, y)
    open_ground = layout.clip_by_rings(np.minimum(-layout.nests, -layout.fat))
    collagen = tissue & (layout.interpolate(open_ground, x, y) > 0)
    dense = 1 - 0.5 * layout.interpolate(layout.looseness, x, y)
    amounts["fat"] = fat.mean(1)
    amounts["collagen"] = (collagen * dense).mean(1)
    amounts["front"] = amounts["collagen"] * np.clip(2.5 * near["tumour"], 0, 1)
    amounts["contact"] = np.sqrt(np.clip(near["tumour"] * near["lymphocyte"], 0, 1))
    amounts["deep"] = np.clip(depth / NECROSIS_DEPTH_UM, 0, 1.2).mean(1) ** 2
    return amounts


def compute_expected_shares(amounts: dict[str, FloatArray]) -> NDArray[np.float64]:
    """Return the expected share of each gene in the counts of a spot, (N, G); rows sum to 1."""
    first = next(iter(amounts.values()))
    rate = np.full((len(first), len(GENE_WEIGHTS)), AMBIENT_RATE)
    fixed = np.zeros(len(GENE_WEIGHTS), bool)
    for column, weights in enumerate(GENE_WEIGHTS.values()):
        fixed[column] = not weights
        for name, weight in weights.items():
            rate[:, column] += weight * amounts[name]
    share = np.empty_like(rate)
    share[:, fixed] = HOUSEKEEPING_SHARE / fixed.sum()
    free = rate[:, ~fixed]
    share[:, ~fixed] = (1 - HOUSEKEEPING_SHARE) * free / free.sum(1, keepdims=True)
    return share


def draw_counts(
    rng: np.random.Generator, amounts: dict[str, FloatArray], depth: float = 1600.0
) -> NDArray[np.int32]:
    """Draw raw counts (N, G), negative binomial around the expected shares of a library.

    The library of a spot is larger where it contains more cells; `depth` is that of a spot full
    of cells.
    """
    share = compute_expected_shares(amounts)
    cellular = sum(amounts[k] for k in ("tumour", "epithelium", "lymphocyte", "plasma"))
    library = depth * (0.30 + 0.70 * np.clip(cellular + 0.25 * amounts["collagen"], 0, 1))
    library *= np.exp(rng.normal(0, 0.22, len(library)))
    mean = share * library[:, None]
    return rng.poisson(rng.gamma(9.0, mean / 9.0)).astype(np.int32)


def _count_cells_near(cells: CellArrays, kind: str, xy_um: FloatArray, radius: float) -> FloatArray:
    from scipy.spatial import cKDTree

    rows = cells.rows_of_types(kind)
    if not len(rows):
        return np.zeros(len(xy_um))
    tree = cKDTree(np.stack([cells.x[rows], cells.y[rows]], 1))
    return tree.query_ball_point(xy_um, radius, return_length=True).astype(float)


def _disc_points(radius: float, n: int) -> FloatArray:
    """Return n points spread evenly over a disc (a sunflower spiral)."""
    k = np.arange(n) + 0.5
    r, turn = radius * np.sqrt(k / n), np.pi * (1 + 5**0.5) * k
    return np.stack([r * np.cos(turn), r * np.sin(turn)], 1)


SIMULATION_NOTICE = (
    "Synthetic H&E; the expression is simulated from the drawn morphology, not measured."
)
SAMPLE_SEED = 7  # the section of File > Open Sample; the bundled checkpoint never saw it


@dataclass(frozen=True)
class SyntheticSection:
    """An image with spots and raw counts.

    Attributes
    ----------
    image : (H, W, 3) uint8 array
    mpp : float
        um per px.
    spots : Spots
        Spots of 100 um every 200 um, on tissue only.
    counts : (N, G) int32 array
        Raw counts, columns in the order of `symbols`.
    expected_shares : (N, G) float64 array
        Share of each gene in the counts of a spot that its morphology gives; the counts are drawn
        around it. Rows sum to 1.
    """

    seed: int
    image: NDArray[np.uint8]
    mpp: float
    spots: Spots
    counts: NDArray[np.int32]
    expected_shares: NDArray[np.float64]
    symbols: tuple[str, ...]
    notice: str = SIMULATION_NOTICE


def draw_section(seed: int, size_px: int = 4608, mpp: float = 0.5) -> SyntheticSection:
    """Draw a section, the same one for the same seed, size and pixel size.

    The default size takes a few seconds and about 1 GB of memory.

    Parameters
    ----------
    size_px : int
        Side in px: even, and 1,000 to 6,000 um long.
    mpp : float
        0.25 to 1 um per px.

    Raises
    ------
    DkanError
        Outside these limits.
    """
    if not 0.25 <= mpp <= 1:
        raise DkanError(f"A synthetic section of {mpp:g} um/px is not offered; choose 0.25 to 1.")
    if size_px % 2 or not 1000 <= size_px * mpp <= 6000:
        raise DkanError(
            f"A synthetic section of {size_px} px at {mpp:g} um/px is not offered; choose an even "
            "number of pixels that spans 1,000 to 6,000 um."
        )
    # One random stream per step, so that a change of one step does not change the others.
    plan, placing, ground, nuclei, staining, counting = (
        np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(6)
    )
    layout = draw_layout(plan, size_px * mpp)
    along = compute_fibre_direction(plan, layout)
    cells = place_cells(placing, layout, along)
    half = paint_background(ground, layout, cells, along, size_px // 2)
    h, e = (upsample(field, size_px) for field in half)
    paint_nuclei(nuclei, h, e, cells, mpp)
    image = render_rgb(staining, h, e, draw_staining(staining))
    spots = place_spots(layout, mpp)
    amounts = measure_morphology(layout, cells, spots.xy * mpp)
    counts, shares = draw_counts(counting, amounts), compute_expected_shares(amounts)
    return SyntheticSection(seed, image, mpp, spots, counts, shares, tuple(GENE_WEIGHTS))
