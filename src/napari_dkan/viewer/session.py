"""One session per viewer: what is open, what is chosen, what was predicted.

Widgets read it and subscribe to its events; nothing about the state lives in a widget, in
a layer's name or in a module global. All events are emitted in the GUI thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from napari.layers import Image, Layer, Points, Shapes
from psygnal import Signal

from ..errors import SpotsError
from ..inference.engine import Predictor
from ..inference.timing import Stages
from ..slide import PixelSize, Slide
from .memory import remember_mpp, remembered_mpp
from .slides import AXES, UNITS, slide_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from shapely.geometry.base import BaseGeometry

    from ..expression.panel import Panel
    from ..inference.prediction import Prediction
    from ..inference.zero_shot import ZeroShotGenes
    from ..model import Checkpoint
    from .overlay import Overlay


class Where(StrEnum):
    """Where to predict, as the panel words it."""

    CLICK = "Click"
    SPOTS = "Spots layer"
    REGION = "Region"
    TISSUE = "Whole tissue"


RateKey = tuple[int, str, str]


@dataclass(frozen=True)
class Limits:
    """Contrast limits: robust percentiles of each gene, or the same for all genes."""

    fixed: tuple[float, float] | None = None


@dataclass(frozen=True)
class Settings:
    """What the person chose; the defaults are meant to be right."""

    where: Where = Where.CLICK
    device: str = "auto"
    encoder_weights: Path | None = None
    dense: bool = False
    tissue_only: bool = True
    store: bool = True  # keep tiles on disk for the next visit
    warm_up: bool = True  # compute around the view before it is asked for
    hatch: bool = True  # tiles that should not be relied on are hatched
    unproven: bool = False  # genes by their text even where the card has no proof of them
    colormap: str = "magma"
    opacity: float = 0.65
    limits: Limits = Limits()


@dataclass(eq=False)
class OpenSlide:
    """A slide in the viewer: its layer, its pixel size as far as known, its tissue once found."""

    layer: Image
    slide: Slide
    pixel_size: PixelSize | None
    tissue: BaseGeometry | None = None

    @property
    def mpp(self) -> float:
        """World units per level-0 pixel: micrometres, or 1 while the pixel size is unknown."""
        return 1.0 if self.pixel_size is None else self.pixel_size.mpp


class Session:
    """State and events of one viewer."""

    slides_changed = Signal()
    slide_changed = Signal()
    slide_edited = Signal()  # its tissue was edited by hand
    checkpoint_changed = Signal()
    zero_shot_changed = Signal()
    settings_changed = Signal()
    gene_changed = Signal()
    pinned_changed = Signal()
    overlays_changed = Signal()
    overlay_grew = Signal(object)  # an Overlay has new values
    spot_changed = Signal()
    message_changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = ref(viewer)  # the session is kept as long as its viewer, not the reverse
        self.slides: list[OpenSlide] = []
        self.slide: OpenSlide | None = None
        self.checkpoint: Checkpoint | None = None
        self.zero_shot: ZeroShotGenes | None = None  # genes beside the checkpoint's panel
        self.settings = Settings()
        self.gene: str | None = None
        self.pinned: tuple[str, ...] = ()
        self.overlays: list[Overlay] = []
        self.spot: Prediction | None = None  # the spot clicked last
        self.message = ""
        self.alarming = False
        self._predictor: tuple[tuple[object, ...], Predictor] | None = None
        self._lies_on: WeakKeyDictionary[Layer, OpenSlide] = WeakKeyDictionary()
        self.rates: dict[RateKey, float] = {}  # spots per second, as measured
        self.drawing = Stages()
        self._noted: set[str] = {""}
        # places of the canvas, as (y, x) in the world, that answer clicks and hovering themselves
        self.claims: list[Callable[[tuple[float, float]], bool]] = []
        self._lock = Lock()
        viewer.layers.events.inserted.connect(self._layers_changed)
        viewer.layers.events.removed.connect(self._layers_changed)
        viewer.layers.selection.events.active.connect(self._active_changed)
        self._layers_changed()

    @property
    def viewer(self) -> ViewerModel:
        viewer = self._viewer()
        if viewer is None:
            raise RuntimeError("the viewer of this session is gone")
        return viewer

    # ---- slides ----------------------------------------------------------------------

    def _layers_changed(self, event: object = None) -> None:
        """Follow the layer list by identity: names and order are the person's business."""
        layers = list(self.viewer.layers)
        kept = [s for s in self.slides if s.layer in layers]
        known = {id(s.layer) for s in kept}
        for layer in layers:
            if id(layer) not in known and (found := slide_of(layer)) is not None:
                kept.append(OpenSlide(layer, *found))
        removed = [o for o in self.overlays if o.layer not in layers]
        if removed:
            self.overlays = [o for o in self.overlays if o.layer in layers]
            self.overlays_changed.emit()
        if [id(s) for s in kept] == [id(s) for s in self.slides]:
            return
        opened = [s for s in kept if s not in self.slides]
        self.slides = kept
        if opened:
            self._take(opened[-1])
        elif self.slide not in kept:
            self._take(kept[-1] if kept else None)
        self.slides_changed.emit()
        self.slide_changed.emit()

    def _active_changed(self, event: object = None) -> None:
        """Selecting a slide's layer chooses that slide."""
        active = self.viewer.layers.selection.active
        for slide in self.slides:
            if slide.layer is active:
                self.choose_slide(slide)

    def choose_slide(self, slide: OpenSlide | None) -> None:
        if slide is not self.slide:
            self._take(slide)
            self.slide_changed.emit()

    def _take(self, slide: OpenSlide | None) -> None:
        self.slide = slide
        if slide is not None and slide.pixel_size is None:
            mpp = remembered_mpp(slide.slide.fingerprint())
            if mpp is not None:
                self._scale(slide, PixelSize(mpp, "entered before"))

    def set_mpp(self, mpp: float) -> None:
        """Pixel size entered by hand; remembered. Raises SlideError when it is absurd."""
        if self.slide is None:
            return
        self._scale(self.slide, PixelSize(mpp, "entered by hand"))
        remember_mpp(self.slide.slide.fingerprint(), mpp)
        self.slide_changed.emit()

    def _scale(self, slide: OpenSlide, size: PixelSize) -> None:
        """Everything that lies on the slide follows its new scale, and so keeps its place."""
        ratio = size.mpp / slide.mpp
        slide.pixel_size = size
        for layer in [slide.layer, *self._lying_on(slide)]:
            layer.scale = tuple(s * ratio for s in layer.scale)
            layer.translate = tuple(t * ratio for t in layer.translate)
            layer.units = UNITS
            layer.axis_labels = AXES

    def scale_slide(self, slide: OpenSlide, size: PixelSize) -> None:
        """A pixel size that was found out, e.g. from a spot array; nothing to remember."""
        self._scale(slide, size)
        self.slide_changed.emit()

    def put_on(self, slide: OpenSlide, layer: Layer) -> None:
        """Remember that a layer lies on this slide, whatever other slides are open."""
        self._lies_on[layer] = slide

    def put_beside(self, layer: Layer, new: Layer) -> None:
        """Remember that a new layer lies on the slide that another one lies on."""
        if layer in self._lies_on:
            self._lies_on[new] = self._lies_on[layer]

    def _lying_on(self, slide: OpenSlide) -> list[Layer]:
        """Layers made for the slide; with one slide open also what a person drew by hand."""

        def lies(layer: Layer) -> bool:
            if layer in self._lies_on:
                return self._lies_on[layer] is slide
            by_hand = isinstance(layer, Shapes | Points) and layer.ndim == 2
            return by_hand and len(self.slides) == 1

        return [layer for layer in self.viewer.layers if lies(layer)]

    # ---- checkpoint, gene, settings ----------------------------------------------------

    def use_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Take a loaded checkpoint; the gene stays where the new panel has it."""
        self.checkpoint, self.zero_shot = checkpoint, None
        panel = checkpoint.panel
        self.pinned = tuple(g for g in self.pinned if g in panel) or _first_genes(checkpoint)
        self.spot = None
        if self.gene not in panel:
            self.gene = self.pinned[0] if self.pinned else panel.symbols[0]
        self.checkpoint_changed.emit()
        self.pinned_changed.emit()
        self.spot_changed.emit()
        self.gene_changed.emit()

    @property
    def panel(self) -> Panel | None:
        """The checkpoint's genes, and after them those predicted from their text."""
        from ..expression.panel import Panel

        if self.checkpoint is None or self.zero_shot is None:
            return None if self.checkpoint is None else self.checkpoint.panel
        return Panel((*self.checkpoint.panel.genes, *self.zero_shot.genes))

    def use_zero_shot(self, genes: ZeroShotGenes | None) -> None:
        """Take genes outside the panel, and show the first; without any, back to the panel."""
        self.zero_shot = genes
        panel = self.panel
        if panel is None:
            return
        if genes is not None and genes.genes:
            self.gene = genes.symbols[0]
        elif self.gene not in panel:
            self.gene = panel.symbols[0]
        self.pinned = tuple(g for g in self.pinned if g in panel)
        self.zero_shot_changed.emit()
        self.pinned_changed.emit()
        self.gene_changed.emit()

    def set_gene(self, symbol: str) -> None:
        """Show a gene. Raises SpotsError when the panel does not have it."""
        panel = self.panel
        if panel is None:
            return
        symbol = panel.symbols[panel.row(symbol)]
        if symbol != self.gene:
            self.gene = symbol
            self.gene_changed.emit()

    def step_gene(self, step: int) -> None:
        """The next or the previous gene of the panel, round and round."""
        panel = self.panel
        if panel is None or self.gene is None:
            return
        symbols = panel.symbols
        self.set_gene(symbols[(symbols.index(self.gene) + step) % len(symbols)])

    def pin(self, symbol: str, pinned: bool = True) -> None:
        others = tuple(g for g in self.pinned if g != symbol)
        self.pinned = (*others, symbol) if pinned else others
        self.pinned_changed.emit()

    def change(self, **settings: object) -> None:
        self.settings = replace(self.settings, **settings)  # type: ignore[arg-type]
        self.settings_changed.emit()

    # ---- results ---------------------------------------------------------------------

    def add_overlay(self, overlay: Overlay, over: OpenSlide) -> None:
        """Add its layer without taking the person's selection away: maps above the slide
        and older maps, so that regions and clicked spots stay visible on top."""
        layers = self.viewer.layers
        selected = set(layers.selection)
        self.put_on(over, overlay.layer)
        below = [over.layer, *(o.layer for o in self.overlays if isinstance(o.layer, Image))]
        above = max(layers.index(layer) for layer in below) + 1
        layers.insert(above if isinstance(overlay.layer, Image) else len(layers), overlay.layer)
        layers.selection = selected
        self.overlays = [*self.overlays, overlay]
        self.overlays_changed.emit()

    def set_spot(self, prediction: Prediction | None) -> None:
        self.spot = prediction
        self.spot_changed.emit()

    def claimed(self, world: tuple[float, float]) -> bool:
        """Whether somebody else answers a click at this place of the canvas."""
        return any(claims(world) for claims in self.claims)

    def say(self, text: str, alarming: bool = False) -> None:
        """A sentence for the person, shown in the panel."""
        self.message, self.alarming = text, alarming
        self.message_changed.emit()

    def rate_key(self) -> RateKey:
        """What a measured rate holds for: another slide, checkpoint or device has its own."""
        checksum = "" if self.checkpoint is None else self.checkpoint.sha256
        return id(self.slide), checksum, self.settings.device

    # ---- the predictor, built in worker threads -----------------------------------------

    def ready_slide(self) -> OpenSlide:
        """The slide to predict on. Raises SpotsError saying what is still missing."""
        if self.slide is None:
            raise SpotsError("Open a slide first: drag one onto the window.")
        if self.slide.pixel_size is None:
            raise SpotsError(
                f"{self.slide.slide.path.name} does not state its pixel size; "
                "enter the micrometres per pixel at the top of the panel."
            )
        if self.checkpoint is None:
            raise SpotsError("The checkpoint is still being loaded; try again in a moment.")
        return self.slide

    def tissue_of(self, slide: OpenSlide) -> BaseGeometry:
        """The tissue in level-0 px, found when first asked for. Call it in a thread."""
        from ..inference.predict import tissue_region

        with self._lock:
            if slide.tissue is None:
                slide.tissue = tissue_region(slide.slide, slide.mpp)
            return slide.tissue

    def predictor(self, slide: OpenSlide, checkpoint: Checkpoint) -> Predictor:
        """The predictor of a slide; finds its tissue first. Call it in a thread."""
        from ..inference.device import leave_a_core

        leave_a_core()
        tissue = self.tissue_of(slide)
        with self._lock:
            options = self.settings.device, self.settings.encoder_weights, self.settings.store
            key = (id(slide), checkpoint.sha256, slide.mpp, *options)
            if self._predictor is None or self._predictor[0] != key:
                made = Predictor(slide.slide, checkpoint, slide.mpp, tissue, *options)
                self._predictor = (key, made)
            predictor = self._predictor[1]
            predictor.tissue = tissue
            return predictor

    def predictor_now(self) -> Predictor | None:
        """The predictor that was used last, if any."""
        return None if self._predictor is None else self._predictor[1]

    def store_note(self) -> str:
        """A sentence when the predictor of now cannot keep its tiles on disk, told once."""
        note = "" if self._predictor is None else self._predictor[1].kept.warning
        if note in self._noted:
            return ""
        self._noted.add(note)
        return note


def _first_genes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Genes to begin with: the card's, else those everybody asks for, else the panel's first."""
    card = checkpoint.card.get("first_genes", [])
    usual = ["ERBB2", "GATA3", "CD74", "COL1A1", "KRT8"]
    panel = checkpoint.panel
    chosen = [g for g in [*card, *usual] if g in panel]
    return tuple(dict.fromkeys(chosen))[:4] or panel.symbols[:4]


_sessions: WeakKeyDictionary[ViewerModel, Session] = WeakKeyDictionary()


def session_of(viewer: ViewerModel) -> Session:
    """The session of a viewer, made when first asked for.

    napari hands a widget that is opened from the menu a passing proxy of its viewer; the
    session belongs to the viewer itself.
    """
    viewer = getattr(viewer, "__wrapped__", viewer)
    if viewer not in _sessions:
        _sessions[viewer] = Session(viewer)
    return _sessions[viewer]
