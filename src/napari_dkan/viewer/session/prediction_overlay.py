"""A prediction that is shown as one layer: the interface that the session knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from napari.components.overlays import ColorBarOverlay
from napari.layers import Layer
from numpy.typing import NDArray

from ...inference.prediction import Prediction

if TYPE_CHECKING:
    from ...export.saved_result import SavedReliability
    from ...model.checkpoint.training_reference import TrainingReference


# Fused tokens (B, D) and columns (K,) of the panel -> values (B, K).
GeneDecoder = Callable[[NDArray[np.float32], Sequence[int]], NDArray[np.float32]]


class PredictionOverlay(Protocol):
    """One prediction and its layer.

    Attributes
    ----------
    prediction : Prediction
    rough : Prediction or None
        A coarse map of the same target, shown where tiles are not predicted yet.
    reference : TrainingReference or SavedReliability or None
        What reliability is computed from; or the saved reliability of a prediction from a file.
    from_file : bool
        The prediction comes from a file and may be of another checkpoint.
    from_clicks : bool
        Spots that were clicked one by one.
    is_mixed : bool
        Its layer is hidden, since another one shows its tiles in the colours of several genes.
    label : str
        What tells the prediction from the map of its slide in the layer's title, such as "clicked".
    place : str
        The slide in the layer's title where it is not open, "" for that of the layer.
    decode : GeneDecoder
        Decodes genes of the prediction.
    colorbar : ColorBarOverlay
    """

    prediction: Prediction
    rough: Prediction | None
    reference: TrainingReference | SavedReliability | None
    from_file: bool
    from_clicks: bool
    is_mixed: bool
    label: str
    place: str
    decode: GeneDecoder
    colorbar: ColorBarOverlay

    @property
    def layer(self) -> Layer:
        """The layer; an Image for a grid, Points for spots."""
        ...

    def fill(self, prediction: Prediction, decode: GeneDecoder) -> None:
        """Take the prediction that a job fills, of the spots of the placeholder so far."""
        ...

    def draw(self, gene: str, limits: tuple[float, float], colormap: str) -> None:
        """Draw a gene of the prediction with these contrast limits."""
        ...

    def value_at(self, world: tuple[float, float]) -> float | None:
        """Return the value of the shown gene at a world position (y, x), if there is one."""
        ...

    def row_at(self, world: tuple[float, float]) -> int | None:
        """Return the row of the prediction at a world position (y, x), if there is one."""
        ...
