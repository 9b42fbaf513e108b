"""The slides of one viewer: which layers show them, which is chosen, how large a pixel is.

All signals are emitted in the GUI thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import ref

from napari.layers import Image, Layer
from psygnal import Signal

from ..slide import PixelSize, Slide
from .array_spots import size_by_spots
from .on_slide import OnSlide
from .pixel_sizes import BY_HAND, BY_PERSON, PixelSizes, unsure
from .slides import BY_SCALE, rename, scale_of, slide_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from shapely.geometry.base import BaseGeometry


@dataclass(eq=False)
class OpenSlide:
    """A slide in the viewer: its layer, its pixel size as far as known, its tissue once found.

    stated : the pixel size that it came with, which nobody in front of the screen gave.
    """

    layer: Image
    slide: Slide
    pixel_size: PixelSize | None
    tissue: BaseGeometry | None = None
    stated: PixelSize | None = None

    @property
    def mpp(self) -> float:
        """World units per level-0 pixel: micrometres, or 1 while the pixel size is unknown."""
        return 1.0 if self.pixel_size is None else self.pixel_size.mpp


class OpenSlides:
    """Follows the layer list by identity: names and order are the person's business."""

    slides_changed = Signal()
    slide_changed = Signal()
    replaced = Signal(object)  # the OpenSlide before: other pixels were put into its layer

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = ref(viewer)
        self.all: list[OpenSlide] = []
        self.chosen: OpenSlide | None = None
        self.lying = OnSlide()
        self._sizes = PixelSizes()
        self._scaling = False
        viewer.layers.events.inserted.connect(self._layers_changed)
        viewer.layers.events.removed.connect(self._layers_changed)
        viewer.layers.selection.events.active.connect(self._active_changed)
        self._layers_changed()

    def choose(self, slide: OpenSlide | None) -> None:
        if slide is not self.chosen:
            self._take(slide)
            self.slide_changed.emit()

    # ---- which there are -----------------------------------------------------------------

    def _layers(self) -> list[Layer]:
        viewer = self._viewer()
        return [] if viewer is None else list(viewer.layers)

    def _layers_changed(self, event: object = None) -> None:
        layers = self._layers()
        shown = {id(layer): slide_of(layer) for layer in layers}
        kept = [s for s in self.all if (here := shown.get(id(s.layer))) and here[0] is s.slide]
        known = {id(s.layer) for s in kept}
        for layer in layers:
            here = shown[id(layer)]
            if here is not None and id(layer) not in known and isinstance(layer, Image):
                kept.append(self._open(layer, *here))
        before, self.all = self.all, kept
        for old in before:
            if old not in kept and old.layer in layers:
                self.replaced.emit(old)
        opened = [s for s in kept if s not in before]
        for new in opened:
            if new.pixel_size is not None and not _drawn_so(new):
                self._scale(new, new.pixel_size)
        if opened:
            self._take(opened[-1])
        elif self.chosen not in kept:
            self._take(kept[-1] if kept else None)
        if [id(s) for s in kept] != [id(s) for s in before]:
            self.slides_changed.emit()
            self.slide_changed.emit()
        self._look_at_spots()

    def _open(self, layer: Image, slide: Slide, size: PixelSize | None) -> OpenSlide:
        """Follow the layer's pixels, scale and name."""
        layer.events.data.connect(self._layers_changed)
        layer.events.scale.connect(self._layer_scaled)
        layer.events.units.connect(self._layer_scaled)
        layer.events.name.connect(self._layer_named)
        given = size is not None and size.origin in BY_PERSON
        return OpenSlide(layer, slide, size, stated=slide.pixel_size if given else size)

    def _active_changed(self, event: object = None) -> None:
        """Selecting a slide's layer chooses that slide."""
        viewer = self._viewer()
        active = None if viewer is None else viewer.layers.selection.active
        for slide in self.all:
            if slide.layer is active:
                self.choose(slide)

    def _layer_named(self, event: object = None) -> None:
        for slide in self.all:
            rename(slide.slide, slide.layer)

    def _take(self, slide: OpenSlide | None) -> None:
        self.chosen = slide
        if slide is not None and unsure(slide.pixel_size):

            def receive(size: PixelSize) -> None:
                if slide in self.all and unsure(slide.pixel_size):
                    self.scale(slide, size)

            self._sizes.recall(slide.slide, receive)

    # ---- how large a pixel is --------------------------------------------------------------

    def set_mpp(self, mpp: float, origin: str = BY_HAND) -> None:
        """Pixel size that a person gives; remembered. Raises SlideError when it is absurd."""
        if self.chosen is not None:
            size = PixelSize(mpp, origin)
            self._sizes.keep(self.chosen.slide, size)
            self.scale(self.chosen, size)

    def reset_mpp(self) -> None:
        """Back to the pixel size that the slide came with, if any."""
        if self.chosen is not None:
            self._sizes.keep(self.chosen.slide, None)
            self.scale(self.chosen, self.chosen.stated)

    def scale(self, slide: OpenSlide, size: PixelSize | None) -> None:
        """A pixel size that was found out. What lies on the slide keeps its place there."""
        if size is not None and unsure(slide.stated) and size.origin not in BY_PERSON:
            slide.stated = size
        self._scale(slide, size)
        self.slide_changed.emit()

    def _scale(self, slide: OpenSlide, size: PixelSize | None) -> None:
        before = float(slide.layer.scale[-1])
        self._scaling = True
        try:
            self.lying.rescale(slide, size, self._layers(), len(self.all) == 1)
        finally:
            self._scaling = False
        viewer = self._viewer()
        if viewer is not None and slide is self.chosen:  # what was in view stays in view
            ratio, camera = float(slide.layer.scale[-1]) / before, viewer.scene.camera
            camera.center = tuple(ratio * at for at in camera.center)
            camera.zoom = camera.zoom / ratio

    def _layer_scaled(self, event: object = None) -> None:
        """A person gives a layer its scale and units: it says the pixel size, if nobody else."""
        for slide in [] if self._scaling else self.all:
            size, known = scale_of(slide.layer).size, slide.pixel_size
            free = known is None or known.estimated or known.origin == BY_SCALE
            if free and size is not None and not _drawn_so(slide):
                slide.stated = None
                self.scale(slide, size)

    def _look_at_spots(self) -> None:
        """The array that spots lie on has a known pitch: a slide without a pixel size gets it."""
        slide = self.chosen
        if slide is None or not unsure(slide.pixel_size):
            return
        for layer in self._layers():
            size = size_by_spots(layer, slide)
            if size is not None:
                self.scale(slide, size)
                return


def _drawn_so(slide: OpenSlide) -> bool:
    """Whether its layer is drawn at the pixel size that is known."""
    layer = slide.layer
    drawn = all(abs(step - slide.mpp) <= 1e-9 * slide.mpp for step in layer.scale[-2:])
    return drawn and all(str(unit) == "micrometer" for unit in layer.units)
