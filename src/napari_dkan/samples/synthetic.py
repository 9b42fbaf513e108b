"""A synthetic H&E section with simulated spatial expression, made here and needing no network.

The image is drawn cell by cell (layout -> cells -> collagen and cytoplasm -> nuclei -> stain);
the expression is *simulated* from the same plan, so it truly depends on what the image shows.
Nothing in it comes from a patient and nothing was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DkanError
from ..spatial.spots import Spots

SIMULATION_NOTICE = "Synthetic H&E; the expression is simulated from the drawn morphology, not measured."
SAMPLE_SEED = 7  # the section of File > Open Sample; the bundled checkpoint never saw it


@dataclass(frozen=True)
class SyntheticSection:
    """An image with spots and raw counts.

    image : (H, W, 3) uint8; mpp : um per px; spots : 200 um array, 100 um spots, tissue only;
    counts : (N, G) int32 raw counts, columns in the order of symbols.
    """

    seed: int
    image: NDArray[np.uint8]
    mpp: float
    spots: Spots
    counts: NDArray[np.int32]
    symbols: tuple[str, ...]
    notice: str = SIMULATION_NOTICE


def draw_section(seed: int, size_px: int = 4608, mpp: float = 0.5) -> SyntheticSection:
    """Draw a section, the same one for the same seed, size and pixel size.

    size_px : side in px, even, at least 1,000 um worth; mpp : 0.25 to 1 um per px. The default
    size takes a few seconds and about 1 GB of memory.

    Raises DkanError outside these limits.
    """
    if not 0.25 <= mpp <= 1:
        raise DkanError(f"A synthetic section of {mpp:g} um/px is not offered; choose 0.25 to 1.")
    if size_px % 2 or not 1000 <= size_px * mpp <= 6000:
        raise DkanError(
            f"A synthetic section of {size_px} px at {mpp:g} um/px is not offered; choose an even "
            "number of pixels that spans 1,000 to 6,000 um."
        )
    from .cells import place_cells
    from .fibres import compute_fibre_direction
    from .ground import upsample, paint_background
    from .layout import draw_layout
    from .nuclei import paint_nuclei
    from .simulate import GENE_WEIGHTS, draw_counts, measure_morphology, place_spots
    from .stain import render_rgb, draw_staining

    # One stream for each step: a change in one leaves the others as they were.
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
    counts = draw_counts(counting, measure_morphology(layout, cells, spots.xy * mpp))
    return SyntheticSection(seed, image, mpp, spots, counts, tuple(GENE_WEIGHTS))
