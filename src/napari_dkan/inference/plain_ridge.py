"""The plain baseline that a checkpoint carries, at the spots of a slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..spatial.spots import Spots
from .patches import compute_neighbor_masks, compute_neighbor_keys
from .reading import open_patch_loader

if TYPE_CHECKING:
    from .engine import Predictor


def predict_ridge(predictor: Predictor, spots: Spots) -> NDArray[np.float32] | None:
    """What a ridge regression on the checkpoint's own tile features says: (N, G) on its scale.

    None where the checkpoint carries none. Features of spots just predicted are known; others
    are read and encoded first. NaN where the slide is damaged. Raises SlideError when it is gone.
    """
    reference = predictor.checkpoint.reference
    if reference is None or reference.ridge is None:
        return None
    grid = predictor.checkpoint.network.config.grid
    keys = compute_neighbor_keys(spots.xy, predictor.patch_side_px, grid)
    mask = compute_neighbor_masks(predictor.slide, spots.xy, predictor.patch_side_px, grid)
    with open_patch_loader(predictor.patch_reader, predictor.patch_side_px, predictor.stage_timer) as pool:
        for _ in predictor.feature_cache.compute_missing(pool, keys[mask]):
            pass
    near, known = predictor.feature_cache.array.get(keys.reshape(-1, 2))
    whole = (known.reshape(mask.shape) | ~mask).all(axis=1)
    made = np.full((len(spots), len(predictor.checkpoint.panel)), np.nan, np.float32)
    made[whole] = reference.ridge.predict_neighborhoods(near.reshape(*mask.shape, -1)[whole], mask[whole])
    return made
