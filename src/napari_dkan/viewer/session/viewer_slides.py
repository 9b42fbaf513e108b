"""The slides of one viewer: their layers, the current slide and the pixel sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet, ref

from napari.layers import Image, Layer
from psygnal import Signal

from ...slide import PixelSize, Slide
from ...slide.pixel_size import MANUAL_ORIGIN
from .pixel_size_sources import (
    USER_ORIGINS,
    PixelSizeHistory,
    check_spot_array,
    is_uncertain,
    pixel_size_from_spots,
)
from .slide_arrangement import is_untransformed, lay_beside, overlap, show_slide
from .slide_layer import (
    LAYER_SCALE_ORIGIN,
    SlideLayerRegistry,
    ViewerSlide,
    make_layer_like,
    pixel_size_from_layer,
    slide_from_layer,
    sync_slide_name,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from .foreign_slides import ForeignSlide


class ViewerSlides:
    """The open slides, in step with the layer list.

    Layers are compared by identity; their names and order are the user's.

    Attributes
    ----------
    slides : list of ViewerSlide
    current : ViewerSlide or None
        The slide that the user chose.
    layer_registry : SlideLayerRegistry
    """

    slides_changed = Signal()
    slide_changed = Signal()
    slide_renamed = Signal()
    slide_replaced = Signal(object)  # the previous ViewerSlide; its layer has other pixels

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = ref(viewer)
        self.slides: list[ViewerSlide] = []
        self.current: ViewerSlide | None = None
        self.layer_registry = SlideLayerRegistry()
        self._pixel_size_history = PixelSizeHistory()
        self._rescaling = self._reopening = False
        self._moved_aside: WeakSet[ViewerSlide] = WeakSet()  # by this class, not by the user
        viewer.layers.events.inserted.connect(self._on_layers_changed)
        viewer.layers.events.removed.connect(self._on_layers_changed)
        viewer.layers.selection.events.active.connect(self._on_active_changed)
        # Slides that are open already stay where they are: something may be drawn on them.
        self._update_slides(arrange=False)

    @property
    def busy(self) -> bool:
        """Whether pixel sizes are being remembered or looked up."""
        return self._pixel_size_history.busy

    def set_current(self, slide: ViewerSlide | None) -> None:
        """Choose a slide; the camera goes there unless it looks at it already."""
        if slide is not self.current:
            self._make_current(slide)
            self._select_current()
            self.slide_changed.emit()
        self._show_current()

    def _select_current(self) -> None:
        """Select the current slide where another slide is selected, as a click on it would."""
        viewer = self._viewer()
        active = None if viewer is None else viewer.layers.selection.active
        others = [slide.layer for slide in self.slides if slide is not self.current]
        if viewer is not None and self.current is not None and any(o is active for o in others):
            viewer.layers.selection.active = self.current.layer

    def _show_current(self, always: bool = False) -> None:
        """Move the camera to the current slide; one that is alone is where napari looks."""
        viewer = self._viewer()
        if viewer is not None and self.current is not None and (always or len(self.slides) > 1):
            show_slide(viewer, self.current)

    def _layers(self) -> list[Layer]:
        viewer = self._viewer()
        return [] if viewer is None else list(viewer.layers)

    def _on_layers_changed(self, event: object = None) -> None:
        if not self._reopening:
            self._update_slides()

    def _update_slides(self, arrange: bool = True) -> None:
        layers = self._layers()
        slide_of_layer = {id(layer): slide_from_layer(layer) for layer in layers}
        slides = [
            s
            for s in self.slides
            if (found := slide_of_layer.get(id(s.layer))) and found[0] is s.slide
        ]
        known_layers = {id(s.layer) for s in slides}
        for layer in layers:
            found = slide_of_layer[id(layer)]
            if found is not None and id(layer) not in known_layers and isinstance(layer, Image):
                slides.append(self._add_slide(layer, *found))
        before = self.slides
        places = {id(s.layer): i for i, s in enumerate(before)}
        slides.sort(key=lambda s: places.get(id(s.layer), len(places)))  # replaced ones stay
        self.slides = slides
        for old in before:
            if old not in slides and old.layer in layers:
                self.slide_replaced.emit(old)
        opened = [s for s in slides if s not in before]
        for new in opened:
            if not arrange or len(slides) == 1:
                self.current = new  # the view stays on its tissue
            if new.pixel_size is not None and not _is_drawn_at_pixel_size(new):
                self._apply_pixel_size(new, new.pixel_size)
            if arrange and new.slide.location and is_untransformed(new):
                self._moved_aside.add(new)
        if opened:
            self._move_aside()
            self._make_current(opened[-1])
            self._show_current()
        elif self.current not in slides:
            self._make_current(slides[-1] if slides else None)
            if before:
                self._show_current(always=True)
        if [id(s) for s in slides] != [id(s) for s in before]:
            self.slides_changed.emit()
            self.slide_changed.emit()
        self.layer_registry.attach_opened_with(slides, layers)
        self._infer_from_spot_array()

    def _move_aside(self) -> None:
        """Lay slides that lie on an earlier one beside all others, with what is shown on them."""
        viewer = self._viewer()
        for i, slide in enumerate(self.slides):
            others = [s for s in self.slides if s is not slide]
            covers = any(overlap(slide, earlier) for earlier in self.slides[:i])
            if not covers or slide not in self._moved_aside:
                continue
            shift = lay_beside(slide, others)
            self.layer_registry.realign(slide, self._layers())
            if viewer is not None and slide is self.current:
                z, y, x = viewer.scene.camera.center
                viewer.scene.camera.center = (z, y, x + shift)

    def _add_slide(self, layer: Image, slide: Slide, size: PixelSize | None) -> ViewerSlide:
        """Make a slide that follows the layer's pixels, scale and name."""
        self._follow_layer(layer)
        is_from_user = size is not None and size.origin in USER_ORIGINS
        native = slide.pixel_size if is_from_user else size
        return ViewerSlide(layer, slide, size, native_pixel_size=native)

    def _follow_layer(self, layer: Image) -> None:
        layer.events.data.connect(self._on_layers_changed)
        layer.events.scale.connect(self._on_layer_scaled)
        layer.events.units.connect(self._on_layer_scaled)
        layer.events.name.connect(self._on_layer_renamed)

    def _on_active_changed(self, event: object = None) -> None:
        """Choose the slide whose layer was selected."""
        viewer = self._viewer()
        active = None if viewer is None else viewer.layers.selection.active
        for slide in self.slides:
            if slide.layer is active:
                self.set_current(slide)

    def _on_layer_renamed(self, event: object = None) -> None:
        for slide in self.slides:
            sync_slide_name(slide.slide, slide.layer)
        self.slide_renamed.emit()

    def _make_current(self, slide: ViewerSlide | None) -> None:
        self.current = slide
        if slide is not None and is_uncertain(slide.pixel_size):

            def receive(size: PixelSize) -> None:
                if slide in self.slides and is_uncertain(slide.pixel_size):
                    self.set_pixel_size(slide, size)

            self._pixel_size_history.recall(slide.slide, receive)

    def reopen(self, foreign: ForeignSlide) -> None:
        """Show a slide that another reader opened as a pyramid; the view stays where it is.

        What was predicted and drawn on it is kept, on the same tissue.
        """
        viewer = self._viewer()
        if viewer is None:
            return
        old = foreign.layers[0]
        known = next((s for s in self.slides if s.layer in foreign.layers), None)
        same_pixels = known is not None and known.slide is foreign.slide
        size = known.pixel_size if same_pixels and known is not None else foreign.slide.pixel_size
        layer = make_layer_like(old, foreign.slide, size)
        camera, index = viewer.scene.camera, min(map(viewer.layers.index, foreign.layers))
        center, zoom = camera.center, camera.zoom
        was_selected = any(m in viewer.layers.selection for m in foreign.layers)
        self._reopening = True
        try:
            if same_pixels and known is not None:
                known.layer = layer
                self._follow_layer(layer)
            for each in foreign.layers:
                viewer.layers.remove(each)
            viewer.layers.insert(index, layer)
            camera.center, camera.zoom = center, zoom
        finally:
            self._reopening = False
        self._update_slides(arrange=False)
        if was_selected:
            viewer.layers.selection.active = layer
        self.slides_changed.emit()
        self.slide_changed.emit()

    def set_mpp(self, mpp: float, origin: str = MANUAL_ORIGIN) -> None:
        """Set and remember the pixel size of the current slide.

        Raises
        ------
        SlideError
            If the pixel size is not plausible.
        """
        if self.current is not None:
            size = PixelSize(mpp, origin)
            self._pixel_size_history.save(self.current.slide, size)
            self.set_pixel_size(self.current, size)

    def reset_mpp(self) -> None:
        """Restore the native pixel size of the current slide, if any."""
        if self.current is not None:
            self._pixel_size_history.save(self.current.slide, None)
            self.set_pixel_size(self.current, self.current.native_pixel_size)

    def set_pixel_size(self, slide: ViewerSlide, size: PixelSize | None) -> None:
        """Set the pixel size of a slide; its layers keep their position on it."""
        if (
            size is not None
            and is_uncertain(slide.native_pixel_size)
            and size.origin not in USER_ORIGINS
        ):
            slide.native_pixel_size = size
        self._apply_pixel_size(slide, size)
        self.slide_changed.emit()

    def _apply_pixel_size(self, slide: ViewerSlide, size: PixelSize | None) -> None:
        before = float(slide.layer.scale[-1])
        self._rescaling = True
        try:
            self.layer_registry.rescale(slide, size, self._layers(), len(self.slides) == 1)
        finally:
            self._rescaling = False
        viewer = self._viewer()
        if viewer is not None and slide is self.current:  # the view stays on the same tissue
            ratio, camera = float(slide.layer.scale[-1]) / before, viewer.scene.camera
            camera.center = tuple(ratio * c for c in camera.center)
            camera.zoom = camera.zoom / ratio
        self._move_aside()

    def check_spot_arrays(self) -> None:
        """Check the pixel size of the current slide against the spot arrays on it.

        Raises
        ------
        SlideError
            One is more than 10 % apart from it, and the user has not entered it.
        """
        slide = self.current
        for layer in [] if slide is None else self._layers():
            if slide is not None and self._may_be_on(layer, slide):
                check_spot_array(layer, slide)

    def _may_be_on(self, layer: Layer, slide: ViewerSlide) -> bool:
        """Whether a layer belongs to a slide, or to none where only this one is open."""
        owner = self.layer_registry.slide_of(layer)
        return owner is slide or (owner is None and len(self.slides) == 1)

    def _on_layer_scaled(self, event: object = None) -> None:
        """Take the pixel size from the scale that the user set, unless it is known otherwise."""
        for slide in [] if self._rescaling else self.slides:
            size, current = pixel_size_from_layer(slide.layer).pixel_size, slide.pixel_size
            may_change = (
                current is None or current.is_estimated or current.origin == LAYER_SCALE_ORIGIN
            )
            if may_change and size is not None and not _is_drawn_at_pixel_size(slide):
                slide.native_pixel_size = None
                self.set_pixel_size(slide, size)

    def _infer_from_spot_array(self) -> None:
        """Take the pixel size from the pitch of a spot array if it is unknown."""
        slide = self.current
        if slide is None or not is_uncertain(slide.pixel_size):
            return
        for layer in self._layers():
            size = pixel_size_from_spots(layer, slide) if self._may_be_on(layer, slide) else None
            if size is not None:
                self.set_pixel_size(slide, size)
                return


def _is_drawn_at_pixel_size(slide: ViewerSlide) -> bool:
    """Whether the layer has the scale of the slide's pixel size."""
    layer = slide.layer
    drawn = all(abs(step - slide.mpp) <= 1e-9 * slide.mpp for step in layer.scale[-2:])
    return drawn and all(str(unit) == "micrometer" for unit in layer.units)
