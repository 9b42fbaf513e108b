"""What can be undone: changes of regions, removed layers, limits and pins."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import ref

from napari.layers import Layer, Shapes

from ..session.layer_stack import preserve_selection
from ..session.prediction_overlay import PredictionOverlay
from ..session.slide_layer import ViewerSlide
from ..session.viewer_session import ViewerSession
from ..session.viewer_settings import ContrastLimits
from .overlay_lookup import find_overlay_slide
from .shapes_state import ShapesState, describe_difference


@dataclass(frozen=True, eq=False)
class ShapesChange:
    """Shapes that were drawn, changed or deleted, or their names, classes or colours."""

    session: ViewerSession
    layer: Shapes
    before: ShapesState
    after: ShapesState

    @property
    def text(self) -> str:
        return describe_difference(self.before, self.after)

    @property
    def nbytes(self) -> int:
        return self.before.nbytes + self.after.nbytes

    def undo(self) -> bool:
        return self._restore(self.before)

    def redo(self) -> bool:
        return self._restore(self.after)

    def _restore(self, state: ShapesState) -> bool:
        if self.layer not in self.session.viewer.layers:
            return False
        state.restore(self.layer)
        return True


@dataclass(frozen=True, eq=False)
class RemovedLayer:
    """A layer of regions or of a prediction that the user removed.

    Attributes
    ----------
    layer : Layer
    index : int
        Its place in the layer list.
    above : weak reference to Layer, or None
        The layer above it; unlike the index, it still tells the place when layers that belong to
        the removed one, such as the names of regions, have gone with it.
    overlay : PredictionOverlay or None
    slide : ViewerSlide or None
    mpp : float or None
        Pixel size of the slide at that time.
    """

    layer: Layer
    index: int
    above: ref[Layer] | None
    overlay: PredictionOverlay | None
    slide: ViewerSlide | None
    mpp: float | None


@dataclass(frozen=True, eq=False)
class LayersRemoved:
    """Layers that were removed together, in the order of their removal."""

    session: ViewerSession
    removed: tuple[RemovedLayer, ...]

    @property
    def text(self) -> str:
        n = len(self.removed)
        return f"delete {self.removed[0].layer.name if n == 1 else f'{n} layers'}"

    @property
    def nbytes(self) -> int:
        predictions = [r.overlay.prediction for r in self.removed if r.overlay is not None]
        return sum(p.values.nbytes + p.tokens.nbytes for p in predictions)

    def undo(self) -> bool:
        session = self.session
        layers = session.viewer.layers
        if any(one.layer in layers for one in self.removed):
            return False
        for one in reversed(self.removed):
            slide = self._find_slide(one)
            if slide is not None:
                if one.mpp is not None and one.mpp != slide.mpp:  # it was corrected since
                    one.layer.scale = one.layer.scale * (slide.mpp / one.mpp)
                session.layers.attach(slide, one.layer)
            with preserve_selection(layers):
                above = None if one.above is None else one.above()
                index = layers.index(above) if above in layers else one.index
                layers.insert(min(index, len(layers)), one.layer)
            if one.overlay is not None:
                one.overlay.rough = None  # the job that would replace it has ended
                session.restore_overlay(one.overlay)
        return True

    def redo(self) -> bool:
        self.session.layers.remove(*(one.layer for one in self.removed))
        return True

    def _find_slide(self, one: RemovedLayer) -> ViewerSlide | None:
        """The slide of a layer, which may have been closed and opened again."""
        slides = self.session.slides
        if one.overlay is not None:
            return find_overlay_slide(self.session, one.overlay)
        if one.slide is None or one.slide in slides:
            return one.slide
        fingerprint = one.slide.slide.fingerprint()
        return next((s for s in slides if s.slide.fingerprint() == fingerprint), None)


@dataclass(frozen=True)
class LimitsChange:
    """Other contrast limits."""

    session: ViewerSession
    before: ContrastLimits
    after: ContrastLimits
    text: str = "colour limits"
    nbytes: int = 0

    def undo(self) -> bool:
        self.session.change_settings(contrast_limits=self.before)
        return True

    def redo(self) -> bool:
        self.session.change_settings(contrast_limits=self.after)
        return True


@dataclass(frozen=True)
class PinsChange:
    """Genes that were pinned or let go."""

    session: ViewerSession
    before: tuple[str, ...]
    after: tuple[str, ...]
    nbytes: int = 0

    @property
    def text(self) -> str:
        gone = [g for g in self.before if g not in self.after]
        new = [g for g in self.after if g not in self.before]
        return f"pin {', '.join(new)}" if new else f"let go {', '.join(gone)}"

    def undo(self) -> bool:
        return self.session.set_all_pinned(self.before)

    def redo(self) -> bool:
        return self.session.set_all_pinned(self.after)
