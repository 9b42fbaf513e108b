"""Binomial thinning of counts: the same section, as if fewer molecules had been caught.

If counts are Poisson, keeping each molecule independently with probability p gives exactly the
counts of an experiment with p times the depth (Kingman, Poisson Processes, 1993, section 5.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from .counts import is_integer_valued
from .panel import Panel

if TYPE_CHECKING:
    from anndata import AnnData

THINNING_SEED = 2021


def thin_counts(
    counts: NDArray[np.floating], fraction: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Keep each molecule with a probability.

    Counts are rounded to whole molecules first.

    Parameters
    ----------
    counts
        Counts of any shape.
    fraction
        Probability to keep a molecule, 0 to 1.
    """
    kept = rng.binomial(np.rint(counts).astype(np.int64), fraction)
    return np.asarray(kept, np.float32)


def thin_section(
    data: AnnData, panel: Panel, median_total: float, seed: int = THINNING_SEED
) -> AnnData:
    """Thin the counts of a section to a median panel total.

    All genes are thinned by one fraction, so that the section is what a shallower experiment
    would have measured. Spots can be left without a panel count; they have no label then.

    Parameters
    ----------
    data
        Section with raw counts.
    panel
        Genes that the total is taken over; those that the section does not measure are left out.
    median_total
        Median panel total over the spots with panel counts, after thinning.
    seed
        Seed of the draw.

    Returns
    -------
    A copy with thinned counts; ``uns['thinned']`` has the fraction, the median total and the seed.

    Raises
    ------
    SpotsError
        The section has fewer panel counts than that, or values that are no counts.
    """
    from scipy import sparse

    name = data.uns.get("section", "The section")
    counts = sparse.csr_matrix(data.X, dtype=np.float64, copy=True)
    if (counts.data < 0).any() or not is_integer_valued(counts.data):
        raise SpotsError(f"{name} holds something other than counts; give raw counts.")
    columns = [i for i, symbol in enumerate(map(str, data.var_names)) if symbol in panel]
    totals = np.asarray(counts[:, columns].sum(axis=1)).ravel()
    present = float(np.median(totals[totals > 0])) if (totals > 0).any() else 0.0
    if not 0 < median_total <= present:
        raise SpotsError(
            f"{name} has a median of {present:,.0f} panel counts a spot and cannot be thinned to "
            f"{median_total:,.0f}; give a lower, positive number."
        )
    fraction = median_total / present
    counts.data = thin_counts(counts.data, fraction, np.random.default_rng(seed)).astype(float)
    counts.eliminate_zeros()
    thinned = data.copy()
    thinned.X = sparse.csr_matrix(counts, dtype=np.float32)
    thinned.uns["thinned"] = {"fraction": fraction, "median_total": median_total, "seed": seed}
    return thinned
