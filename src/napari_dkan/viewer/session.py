"""One session per viewer: what is open, what is chosen, what was predicted.

Widgets read it and subscribe to its events; nothing about the state lives in a widget, in
a layer's name or in a module global. All events are emitted in the GUI thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from napari.layers import Image, Layer
from psygnal import Signal

from ..errors import SpotsError
from ..inference.engine import Predictor
from ..inference.timing import Stages
from .feature_files import FeatureFiles
from .open_slides import OpenSlide as OpenSlide
from .open_slides import OpenSlides
from .preferences import preferred
from .settings import Limits as Limits
from .settings import Settings as Settings
from .settings import Where as Where

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from shapely.geometry.base import BaseGeometry

    from ..export.saved import Judgement
    from ..expression.panel import Panel
    from ..inference.prediction import Prediction
    from ..inference.zero_shot import ZeroShotGenes
    from ..model import Checkpoint
    from ..slide import PixelSize
    from .overlay import Overlay


RateKey = tuple[int, str, str]


class Session:
    """State and events of one viewer."""

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
        self._viewer = ref(viewer)
        self.checkpoint: Checkpoint | None = None
        self.zero_shot: ZeroShotGenes | None = None  # genes beside the checkpoint's panel
        self.settings = preferred()
        self.gene: str | None = None
        self.pinned: tuple[str, ...] = ()
        self.overlays: list[Overlay] = []
        self.spot: Prediction | None = None  # the spot clicked last
        self.spot_judged: Judgement | None = None  # where it is not judged by the checkpoint
        self.message = ""
        self.alarming = False
        self._predictor: tuple[tuple[object, ...], Predictor] | None = None
        self.feature_files = FeatureFiles()
        self.rates: dict[RateKey, float] = {}  # spots per second, as measured
        self.drawing = Stages()
        self._noted: set[str] = {""}
        # places of the canvas, as (y, x) in the world, that answer clicks and hovering themselves
        self.claims: list[Callable[[tuple[float, float]], bool]] = []
        self.companions: dict[object, object] = {}  # by their kind
        self._lock = Lock()
        self.opened = OpenSlides(viewer)
        self.slides_changed = self.opened.slides_changed
        self.slide_changed = self.opened.slide_changed
        self.opened.replaced.connect(self._replaced)

    @property
    def viewer(self) -> ViewerModel:
        viewer = self._viewer()
        if viewer is None:
            raise RuntimeError("the viewer of this session is gone")
        return viewer

    # ---- slides ----------------------------------------------------------------------

    @property
    def slides(self) -> list[OpenSlide]:
        return self.opened.all

    @property
    def slide(self) -> OpenSlide | None:
        """The slide that was chosen."""
        return self.opened.chosen

    def choose_slide(self, slide: OpenSlide | None) -> None:
        self.opened.choose(slide)

    def set_mpp(self, mpp: float) -> None:
        """Pixel size entered by hand; remembered. Raises SlideError when it is absurd."""
        self.opened.set_mpp(mpp)

    def scale_slide(self, slide: OpenSlide, size: PixelSize) -> None:
        """A pixel size that was found out, e.g. from a spot array; nothing to remember."""
        self.opened.scale(slide, size)

    def layers_gone(self, event: object = None) -> None:
        layers = self.viewer.layers
        kept = [o for o in self.overlays if o.layer in layers]
        if len(kept) < len(self.overlays):
            self.overlays = kept
            self.overlays_changed.emit()

    def _replaced(self, slide: OpenSlide) -> None:
        """Other pixels are in the slide's layer: what was made of the others is hidden."""
        lying = self.opened.lying.lying(slide, [o.layer for o in self.overlays])
        for layer in lying:
            layer.visible = False
        if lying:
            self.say(
                f"The image of {slide.layer.name} was replaced. Its maps were made of the image "
                "before and are hidden; predict again.",
                alarming=True,
            )

    def put_on(self, slide: OpenSlide, layer: Layer) -> None:
        """Remember that a layer lies on this slide, whatever other slides are open."""
        self.opened.lying.put(slide, layer)

    def put_beside(self, layer: Layer, new: Layer) -> None:
        """Remember that a new layer lies on the slide that another one lies on."""
        self.opened.lying.put_beside(layer, new)

    # ---- checkpoint, gene, settings ----------------------------------------------------

    def use_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Take a loaded checkpoint; the gene stays where the new panel has it."""
        self.checkpoint, self.zero_shot = checkpoint, None
        panel = self.panel or checkpoint.panel
        self.pinned = tuple(g for g in self.pinned if g in panel) or _first_genes(checkpoint)
        self.spot = None
        if self.gene not in panel:
            self.gene = self.pinned[0] if self.pinned else panel.symbols[0]
        self.checkpoint_changed.emit()
        self.pinned_changed.emit()
        self.spot_changed.emit()
        self.gene_changed.emit()

    @property
    def own_panel(self) -> Panel | None:
        """The checkpoint's genes, and after them those predicted from their text."""
        from ..expression.panel import Panel

        if self.checkpoint is None or self.zero_shot is None:
            return None if self.checkpoint is None else self.checkpoint.panel
        return Panel((*self.checkpoint.panel.genes, *self.zero_shot.genes))

    @property
    def panel(self) -> Panel | None:
        """All genes that can be shown: after these those that only reopened maps have."""
        from ..expression.panel import Panel

        own = self.own_panel
        saved = {g.symbol: g for o in self.overlays if o.reopened for g in o.prediction.panel.genes}
        more = [g for g in saved.values() if own is None or g.symbol not in own]
        return Panel((*(own.genes if own is not None else ()), *more)) if more else own

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

    def add_overlay(self, overlay: Overlay, over: OpenSlide | None) -> None:
        """Add its layer without taking the person's selection away: maps above the slide (None:
        it is not here) and older maps, so that regions and clicked spots stay visible on top."""
        layers = self.viewer.layers
        selected = set(layers.selection)
        if over is not None:
            self.put_on(over, overlay.layer)
        below = [o.layer for o in self.overlays if isinstance(o.layer, Image)]
        below += [] if over is None else [over.layer]
        above = max((layers.index(layer) for layer in below), default=len(layers) - 1) + 1
        layers.insert(above if isinstance(overlay.layer, Image) else len(layers), overlay.layer)
        layers.selection = selected
        self.overlays = [*self.overlays, overlay]
        self.overlays_changed.emit()

    def set_spot(self, prediction: Prediction | None, judged: Judgement | None = None) -> None:
        """judged : how far to trust its last spot, where a file tells; else by the checkpoint."""
        self.spot, self.spot_judged = prediction, judged
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
                f"{self.slide.slide.label} does not state its pixel size; enter the micrometres "
                "per pixel at the top of the panel, or measure them with the ruler."
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
            key = (id(slide), checkpoint.sha256, slide.mpp, *options, self.feature_files.of(slide))
            if self._predictor is None or self._predictor[0] != key:
                ready = self.feature_files.read(slide, checkpoint, self.settings.encoder_weights)
                made = Predictor(slide.slide, checkpoint, slide.mpp, tissue, *options, ready=ready)
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


_sessions: WeakKeyDictionary[ViewerModel, ref[Session]] = WeakKeyDictionary()


def open_sessions() -> list[Session]:
    """Those of all viewers."""
    return [session for known in list(_sessions.values()) if (session := known()) is not None]


def session_if_any(viewer: ViewerModel) -> Session | None:
    """The session of a viewer, if anybody has asked for it yet."""
    known = _sessions.get(getattr(viewer, "__wrapped__", viewer))
    return None if known is None else known()


def session_of(viewer: ViewerModel) -> Session:
    """The session of a viewer, made when first asked for.

    napari hands a widget that is opened from the menu a passing proxy of its viewer; the
    session belongs to the viewer itself.
    """
    viewer = getattr(viewer, "__wrapped__", viewer)
    session = session_if_any(viewer)
    if session is None:
        session = Session(viewer)
        _sessions[viewer] = ref(session)
        # The viewer keeps its session: of a method its events would keep a weak reference only.
        viewer.layers.events.removed.connect(partial(Session.layers_gone, session))
    return session
