"""Spatial domains: Leiden clusters of spots with similar profiles, by scanpy.

Traag, Waltman, van Eck, Scientific Reports 9, 5233, 2019; adjusted Rand index: Hubert and Arabie,
Journal of Classification 2, 193, 1985.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError

LEIDEN_SEED = 2021
MIN_SPOTS = 10
_N_COMPONENTS = 20
_N_NEIGHBOURS = 15


def cluster_domains(
    values: NDArray[np.floating], resolution: float = 1.0, seed: int = LEIDEN_SEED
) -> NDArray[np.int64]:
    """Return the domain (N,) of each spot, numbered from 1 by size, so that labels are stable.

    Parameters
    ----------
    values : (N, G) array
        Labels or predictions. Each gene is standardized before clustering, so the narrower
        spread of predictions has no effect.
    resolution : float
        Above 0; higher values give more domains.

    Raises
    ------
    SpotsError
        If there are fewer than ten spots or fewer than two genes that vary, if values are
        missing, or if the resolution is not above 0.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < MIN_SPOTS:
        raise SpotsError(f"{len(x)} spots are too few for domains; it takes {MIN_SPOTS}.")
    if not np.isfinite(x).all():
        raise SpotsError("Some spots have no value for some gene; predict all genes first.")
    if not (np.isfinite(resolution) and resolution > 0):
        raise SpotsError("The resolution of domains must be a number above 0, such as 1.")
    x = x[:, np.ptp(x, axis=0) > 1e-9]
    if x.shape[1] < 2:
        raise SpotsError("Fewer than two genes vary between the spots, so there are no domains.")
    return _renumber_by_size(
        _cluster_leiden((x - x.mean(axis=0)) / x.std(axis=0), resolution, seed)
    )


def adjusted_rand_index(a: NDArray[np.integer], b: NDArray[np.integer]) -> float:
    """Return the adjusted Rand index of two clusterings (N,): 1 when equal, about 0 by chance."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(a, b))


def _cluster_leiden(x: NDArray[np.float64], resolution: float, seed: int) -> NDArray[np.int64]:
    import anndata
    import scanpy

    data = anndata.AnnData(x)
    components = min(_N_COMPONENTS, *(side - 1 for side in x.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside of scanpy
        scanpy.pp.pca(data, n_comps=components, random_state=seed)
        scanpy.pp.neighbors(
            data, n_neighbors=min(_N_NEIGHBOURS, len(x) - 1), use_rep="X_pca", random_state=seed
        )
        scanpy.tl.leiden(
            data,
            resolution=resolution,
            random_state=seed,
            flavor="igraph",
            n_iterations=-1,
            directed=False,
        )
    labels: NDArray[np.int64] = data.obs["leiden"].astype(int).to_numpy()
    return labels


def _renumber_by_size(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Renumber from 1 by size, and by first spot where sizes are equal."""
    _, first, inverse, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(sizes), np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(1, len(sizes) + 1)
    return rank[inverse]
