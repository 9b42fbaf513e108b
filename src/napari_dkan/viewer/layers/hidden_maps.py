"""Maps that are hidden while another layer shows their tiles in other colours."""

from __future__ import annotations

from ..session.prediction_overlay import PredictionOverlay
from ..session.slide_layer import ViewerSlide
from ..session.viewer_session import ViewerSession
from .overlay_lookup import find_overlay_slide


class HiddenMaps:
    """Hides the predictions of a slide and shows them again; clicks on their tiles still count.

    Two translucent layers on one another have colours that no legend explains.
    """

    def __init__(self, session: ViewerSession) -> None:
        self._session = session
        self._hidden: list[PredictionOverlay] = []

    def hide(self, slide: ViewerSlide) -> None:
        """Hide all visible predictions of a slide, also those that were added since."""
        session = self._session
        for overlay in session.overlays:
            is_here = find_overlay_slide(session, overlay) is slide
            if is_here and overlay.layer.visible and overlay not in self._hidden:
                self._hidden.append(overlay)
                overlay.is_mixed = True
                overlay.layer.visible = False

    def restore(self) -> None:
        """Show what was hidden."""
        hidden, self._hidden = self._hidden, []
        layers = {overlay.layer for overlay in hidden}  # a map that was extended kept its layer
        extended = [o for o in self._session.overlays if o.layer in layers and o not in hidden]
        for overlay in [*hidden, *extended]:
            overlay.is_mixed = False
            overlay.layer.visible = True  # also of a deleted map, which may come back by undo
