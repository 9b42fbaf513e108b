"""Genes with a map like that of one gene, and tiles like one tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import SpotsError
from ..training.metrics import gene_pcc

MIN_TILES = 10


@dataclass(frozen=True, eq=False)
class GeneSimilarity:
    """Correlations of the maps of G genes with one map.

    Attributes
    ----------
    r : (G,) array
        Pearson correlation over the tiles; NaN for a constant gene.
    r_beyond_mean : (G,) array
        The same after the mean of all standardised genes is regressed out of both maps. Where
        tissue is dense most genes rise together; this is what two maps share beyond that.
    n_tiles : int
    """

    r: NDArray[np.float64]
    r_beyond_mean: NDArray[np.float64]
    n_tiles: int


def correlate_with_gene(
    values: NDArray[np.floating], target: NDArray[np.floating]
) -> GeneSimilarity:
    """Correlate maps with one map.

    Parameters
    ----------
    values : (N, G) array
        Genes at the tiles of one slide.
    target : (N,) array
        The gene or score to compare with.

    Raises
    ------
    SpotsError
        With fewer than `MIN_TILES` tiles that have all values.
    """
    known = np.isfinite(values).all(axis=1) & np.isfinite(target)
    n_tiles = int(known.sum())
    if n_tiles < MIN_TILES:
        raise SpotsError(
            f"{n_tiles} tiles are too few to compare maps; it takes {MIN_TILES}. Predict a region."
        )
    x, y = np.asarray(values[known], np.float64), np.asarray(target[known], np.float64)[:, None]
    spread = x.std(axis=0)
    varied = spread > 1e-9
    mean = np.zeros((n_tiles, 1))
    if varied.any():
        mean = ((x - x.mean(axis=0))[:, varied] / spread[varied]).mean(axis=1, keepdims=True)
    r = gene_pcc(x, np.broadcast_to(y, x.shape))
    rest_of_y = np.broadcast_to(_residuals(y, mean), x.shape)
    return GeneSimilarity(r, gene_pcc(_residuals(x, mean), rest_of_y), n_tiles)


def _residuals(values: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values (N, K) after least squares on 1 and a covariate (N, 1) of mean 0."""
    centred = values - values.mean(axis=0)
    norm = float((mean**2).sum())
    if norm > 1e-12:
        centred = centred - mean @ (mean.T @ centred) / norm
    return np.asarray(centred, np.float64)


def compare_tiles(tokens: NDArray[np.floating], query: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compare tiles with one tile by the cosine of what the model sees in them.

    The result of a tile does not depend on which other tiles there are.

    Parameters
    ----------
    tokens : (N, D) array
        Fused tokens of the tiles of a slide.
    query : (D,) array
        Of the tile to compare with, by the same network.

    Returns
    -------
    (N,) array
        Cosine similarities from -1 to 1; NaN for a token of zeros.

    Raises
    ------
    SpotsError
        If there are too few tiles, or the tokens are of different networks.
    """
    if len(tokens) < MIN_TILES:
        raise SpotsError(
            f"{len(tokens)} tiles are too few to look for like ones; it takes {MIN_TILES}. "
            "Predict a region."
        )
    if tokens.shape[1] != len(query) or len(query) < 2:
        raise SpotsError(
            "The map and the clicked spot are not of the same model; click the spot again."
        )
    x, q = np.asarray(tokens, np.float64), np.asarray(query, np.float64)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(q)
    cosines = np.full(len(x), np.nan)
    np.divide(x @ q, norms, out=cosines, where=norms > 1e-12)
    return np.asarray(np.clip(cosines, -1, 1), np.float64)


def rank_tiles(
    cosines: NDArray[np.floating],
    xy: NDArray[np.floating],
    at: NDArray[np.floating],
    pitch: float,
    count: int,
) -> NDArray[np.int64]:
    """Return the rows of the tiles most like one at ``at`` (x, y), without the tile there.

    Parameters
    ----------
    cosines : (N,) array
    xy : (N, 2) array
        Centres in level-0 px.
    at : (2,) array
    pitch : float
        Side of a tile in level-0 px.
    count : int
        Number of rows at most, the most similar first.
    """
    is_other = np.abs(xy - at).max(axis=1) > pitch / 2
    rows = np.flatnonzero(is_other & np.isfinite(cosines))
    return rows[np.argsort(-cosines[rows], kind="stable")][:count]
