"""Predictions that no longer fit their slide: another image, or another pixel size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .layer_titles import LayerTitles
from .slide_layer import SlideLayerRegistry, ViewerSlide
from .status_message import StatusMessage

if TYPE_CHECKING:
    from ...inference.prediction import Prediction
    from .prediction_overlay import PredictionOverlay


class OutdatedPredictions:
    """Hides predictions of another image, or of another pixel size than their slide has now.

    Layers of another pixel size are named after it. They are shown again when the slide gets it
    back.

    Parameters
    ----------
    registry : SlideLayerRegistry
        Knows the slides of layers.
    titles : LayerTitles
    message : StatusMessage
    """

    def __init__(
        self, registry: SlideLayerRegistry, titles: LayerTitles, message: StatusMessage
    ) -> None:
        self._registry, self._titles, self._message = registry, titles, message
        self._hidden: list[tuple[PredictionOverlay, bool]] = []  # and its visibility before
        self._of_old_image: list[PredictionOverlay] = []

    def is_outdated(self, overlay: PredictionOverlay) -> bool:
        """Whether a prediction is of another image or pixel size than its slide has now."""
        outdated = [*(o for o, _ in self._hidden), *self._of_old_image]
        return any(o is overlay for o in outdated)

    def hide_image(self, slide: ViewerSlide, overlays: Sequence[PredictionOverlay]) -> None:
        """Hide the predictions of pixels that are no longer in the slide's layer."""
        outdated = self._overlays_of(slide, overlays)
        self._of_old_image = [o for o in self._of_old_image if o in overlays] + outdated
        for overlay in outdated:
            overlay.layer.visible = False
        if outdated:
            self._message.show(
                f"The image of {slide.layer.name} was replaced. Its maps were made of the image "
                "before and are hidden; predict again.",
                warning=True,
            )

    def check_pixel_sizes(
        self, slides: Sequence[ViewerSlide], overlays: Sequence[PredictionOverlay]
    ) -> bool:
        """Compare all predictions with the slides that they are on; return whether any changed."""
        self._hidden = [h for h in self._hidden if h[0] in overlays]
        before = [id(overlay) for overlay, _ in self._hidden]
        for slide in slides:
            for overlay in self._overlays_of(slide, overlays):
                self._restore_or_hide(overlay, slide)
        return [id(overlay) for overlay, _ in self._hidden] != before

    def _restore_or_hide(self, overlay: PredictionOverlay, slide: ViewerSlide) -> None:
        hidden = next((h for h in self._hidden if h[0] is overlay), None)
        if fits_pixel_size(overlay.prediction, slide) == (hidden is None):
            return
        if hidden is not None:
            self._hidden.remove(hidden)
            self._titles.set_note(overlay.layer, "")
            overlay.layer.visible = hidden[1]
            return
        made_at = f"{overlay.prediction.provenance['mpp']:.4g} um/px"
        self._hidden.append((overlay, overlay.layer.visible))
        self._titles.set_note(overlay.layer, f"(made at {made_at})")
        overlay.layer.visible = False
        now = "unknown" if slide.pixel_size is None else f"{slide.mpp:.4g} um/px"
        self._message.show(
            f"The pixel size of {slide.layer.name} is {now} now. Its maps were made at {made_at} "
            "and are hidden; predict again.",
            warning=True,
        )

    def _overlays_of(
        self, slide: ViewerSlide, overlays: Sequence[PredictionOverlay]
    ) -> list[PredictionOverlay]:
        layers = self._registry.layers_of(slide, [o.layer for o in overlays])
        return [o for o in overlays if any(o.layer is layer for layer in layers)]


def fits_pixel_size(prediction: Prediction, slide: ViewerSlide) -> bool:
    """Whether a prediction was made at the slide's pixel size; True where it is not recorded."""
    mpp = prediction.provenance.get("mpp")
    if mpp is None:
        return True
    return slide.pixel_size is not None and math.isclose(mpp, slide.mpp, rel_tol=1e-6)
