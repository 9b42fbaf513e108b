"""Predictions that no longer fit their slide: another image, or another pixel size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .slide_layer import ViewerSlide

if TYPE_CHECKING:
    from .prediction_overlay import PredictionOverlay
    from .viewer_session import ViewerSession


def hide_predictions_of_image(session: ViewerSession, slide: ViewerSlide) -> None:
    """Hide the predictions of pixels that are no longer in the slide's layer."""
    outdated = _overlays_of(session, slide)
    for overlay in outdated:
        overlay.layer.visible = False
    if outdated:
        session.message.show(
            f"The image of {slide.layer.name} was replaced. Its maps were made of the image "
            "before and are hidden; predict again.",
            warning=True,
        )


class PixelSizeCheck:
    """Hides predictions that were made at another pixel size than their slide has now.

    Their layers are named after that pixel size. They are shown again when the slide gets it back.
    """

    def __init__(self) -> None:
        self._hidden: list[tuple[PredictionOverlay, str, bool]] = []  # name and visibility before

    def update(self, session: ViewerSession) -> None:
        """Compare all predictions with the slides that they are on."""
        self._hidden = [h for h in self._hidden if h[0] in session.overlays]
        for slide in session.slides:
            for overlay in _overlays_of(session, slide):
                self._restore_or_hide(session, overlay, slide)
        spot = session.spot
        for slide in session.slides:
            if (
                spot is not None
                and spot.provenance.get("slide_fingerprint") == slide.slide.fingerprint()
                and not _is_made_at(spot.provenance.get("mpp"), slide)
            ):
                session.set_spot(None)

    def _restore_or_hide(
        self, session: ViewerSession, overlay: PredictionOverlay, slide: ViewerSlide
    ) -> None:
        made_at = overlay.prediction.provenance.get("mpp")
        hidden = next((h for h in self._hidden if h[0] is overlay), None)
        if _is_made_at(made_at, slide) == (hidden is None):
            return
        if hidden is not None:
            self._hidden.remove(hidden)
            _, overlay.layer.name, overlay.layer.visible = hidden
            return
        self._hidden.append((overlay, overlay.layer.name, overlay.layer.visible))
        overlay.layer.name += f" (made at {made_at:.4g} um/px)"
        overlay.layer.visible = False
        now = "unknown" if slide.pixel_size is None else f"{slide.mpp:.4g} um/px"
        session.message.show(
            f"The pixel size of {slide.layer.name} is {now} now. Its maps were made at "
            f"{made_at:.4g} um/px and are hidden; predict again.",
            warning=True,
        )


def _is_made_at(mpp: float | None, slide: ViewerSlide) -> bool:
    """Whether a prediction fits the slide's pixel size; True where its own is not recorded."""
    if mpp is None:
        return True
    return slide.pixel_size is not None and math.isclose(mpp, slide.mpp, rel_tol=1e-6)


def _overlays_of(session: ViewerSession, slide: ViewerSlide) -> list[PredictionOverlay]:
    registry = session.viewer_slides.layer_registry
    layers = registry.layers_of(slide, [o.layer for o in session.overlays])
    return [o for o in session.overlays if any(o.layer is layer for layer in layers)]
