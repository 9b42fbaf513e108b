"""Run a whole prediction job, record its provenance and compute the ridge baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..expression.panel import Panel
from ..spatial.spots import Spots
from .patch_features.patch_geometry import compute_neighbor_keys, compute_neighbor_masks
from .patch_features.patch_loader import open_patch_loader
from .prediction import Prediction
from .prediction_context import PredictionContext
from .prediction_progress import PredictionUpdate
from .predictor import Predictor
from .target import Target

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from ..model import Checkpoint
    from ..slide import Slide
    from .zero_shot_genes import ZeroShotGenes


def build_provenance(predictor: Predictor, target: Target, mpp_origin: str) -> dict[str, Any]:
    """Build the JSON-able record of version, checkpoint, slide, scale and parameters."""
    checkpoint, slide = predictor.checkpoint, predictor.slide
    encoder = predictor.feature_cache.encoder_spec
    pitch = target.grid.pitch_um if target.grid else target.spots.pitch_um
    return {
        "kind": "predicted",
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": checkpoint.card.get("title", ""),
        "checkpoint_sha256": checkpoint.sha256,
        "label_scale": checkpoint.label_scale.name,
        "encoder": encoder.name,
        "encoder_revision": encoder.revision,
        "encoder_sha256": encoder.sha256,
        "stain": "none" if checkpoint.stain is None else checkpoint.stain.method,
        "slide": slide.label,
        "slide_fingerprint": slide.fingerprint(),
        "slide_colours": slide.color_conversion or "as stored",
        "mpp": predictor.mpp,
        "mpp_origin": mpp_origin,
        "patch_um": checkpoint.patch.um,
        "pitch_um": checkpoint.spot_pitch_um if pitch is None else pitch,
        "where": str(target.kind),
        **(
            {}
            if predictor.precomputed_features is None
            else {"features": predictor.precomputed_features.to_provenance()}
        ),
        "device": str(predictor.device),
    }


def build_zero_shot_record(checkpoint: Checkpoint, genes: ZeroShotGenes) -> dict[str, Any]:
    """Build the record of zero-shot genes: their units, text and expected accuracy."""
    from .zero_shot_genes import ZERO_SHOT_UNITS, read_zero_shot_expectation

    expectation = read_zero_shot_expectation(checkpoint)
    return {
        "genes": list(genes.symbols),
        "text": genes.source,
        "units": ZERO_SHOT_UNITS,
        "expected_pcc": expectation.pcc,
        "shuffled_pcc": expectation.shuffled_pcc,
        "panel_mean_pcc": expectation.panel_mean_pcc,
        "beats_shuffled": expectation.beats_shuffled,
        "expectation": expectation.summary,
    }


def predict_ridge(context: PredictionContext, spots: Spots) -> NDArray[np.float32] | None:
    """Predict with the ridge regression on tile features that the checkpoint may contain.

    Cached features are used; other patches are read and encoded first.

    Returns
    -------
    ndarray or None
        (N, G) values on the checkpoint's label scale, NaN where the slide is damaged; None when
        the checkpoint has no ridge regression.

    Raises
    ------
    SlideError
        When the slide is gone.
    """
    reference = context.checkpoint.reference
    if reference is None or reference.ridge is None:
        return None
    side, features = context.patch_side_px, context.feature_cache
    keys = compute_neighbor_keys(spots.xy, side, context.grid_size)
    mask = compute_neighbor_masks(context.slide, spots.xy, side, context.grid_size)
    with open_patch_loader(context.patch_reader, side, context.stage_timer) as loader:
        for _ in features.compute_missing(loader, keys[mask]):
            pass
    neighbors, known = features.array.get(keys.reshape(-1, 2))
    complete = (known.reshape(mask.shape) | ~mask).all(axis=1)
    values = np.full((len(spots), len(context.checkpoint.panel)), np.nan, np.float32)
    values[complete] = reference.ridge.predict_neighborhoods(
        neighbors.reshape(*mask.shape, -1)[complete], mask[complete]
    )
    return values


def find_tissue_region(slide: Slide, mpp: float | None) -> BaseGeometry:
    """Find the tissue of a slide as polygons in level-0 px, empty where there is none."""
    from ..slide.tissue import find_tissue

    return find_tissue(slide, mpp).polygons()


def create_empty_prediction(
    predictor: Predictor,
    target: Target,
    mpp_origin: str,
    genes: Sequence[str] | None = None,
    zero_shot: ZeroShotGenes | None = None,
    with_spread: bool = False,
) -> tuple[Prediction, list[int] | None]:
    """Create the prediction that a job fills.

    Parameters
    ----------
    genes : sequence of str, optional
        Symbols of the panel's genes; all when None.
    zero_shot : ZeroShotGenes, optional
        Genes outside the panel; their columns follow it.

    Returns
    -------
    tuple
        The prediction, and the rows of the checkpoint's panel to decode, None for all.

    Raises
    ------
    SpotsError
        When a gene is not in the panel.
    """
    panel = predictor.checkpoint.panel
    rows = None if genes is None else panel.rows(genes)
    if rows is not None:
        panel = Panel(tuple(panel.genes[r] for r in rows))
    record = build_provenance(predictor, target, mpp_origin)
    scale = predictor.checkpoint.label_scale
    zero_shot_symbols: tuple[str, ...] = ()
    if zero_shot is not None and zero_shot.genes:
        panel, zero_shot_symbols = Panel((*panel.genes, *zero_shot.genes)), zero_shot.symbols
        record["zero_shot"] = build_zero_shot_record(predictor.checkpoint, zero_shot)
    token_dim = predictor.prediction_context.token_dim
    prediction = Prediction.create_empty(target, panel, scale, record, zero_shot_symbols, token_dim)
    if with_spread and predictor.network.has_spread:
        record["spread"] = predictor.network.spread_meaning
        prediction = replace(prediction, spread=np.full_like(prediction.values, np.nan))
    return prediction, rows


def predict(
    predictor: Predictor,
    target: Target,
    mpp_origin: str = "given",
    genes: Sequence[str] | None = None,
    on_update: Callable[[PredictionUpdate], None] = lambda update: None,
    zero_shot: ZeroShotGenes | None = None,
    with_spread: bool = False,
) -> Prediction:
    """Predict a target completely.

    Spots where the slide is damaged stay NaN and are marked in ``failed_mask``.

    Parameters
    ----------
    mpp_origin : str
        Source of the slide's um per px, for the provenance.
    genes : sequence of str, optional
        Symbols of the panel's genes; all when None.
    on_update : callable
        Called after each batch.
    zero_shot : ZeroShotGenes, optional
        Genes outside the panel; their columns follow it.
    with_spread : bool
        Whether the prediction has the spread of its values, where the network has one.

    Raises
    ------
    DkanError
        As `Predictor.stream`.
    """
    prediction, rows = create_empty_prediction(
        predictor, target, mpp_origin, genes, zero_shot, with_spread
    )
    columns = rows
    if rows is not None and zero_shot is not None:
        count = len(predictor.checkpoint.panel)
        columns = [*rows, *range(count, count + len(zero_shot.genes))]
    for update in predictor.stream(
        target, genes=columns, zero_shot=zero_shot, with_spread=with_spread
    ):
        # The decoded columns are all columns of this prediction, in their order.
        prediction.apply_update(replace(update, gene_columns=None))
        on_update(update)
    return prediction
