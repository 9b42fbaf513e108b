"""One session per viewer: open slides, checkpoint, gene, settings and predictions.

Widgets read the session and subscribe to its events. No state lives in a widget, in a layer name
or in a module global. All events are emitted in the GUI thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast
from weakref import WeakKeyDictionary, ref

from napari.layers import Image
from psygnal import Signal

from ...errors import SpotsError
from ...inference.device_errors import DeviceError
from ...inference.prediction_progress import StageTimer
from .layer_stack import LayerStack
from .layer_titles import LayerTitles
from .outdated_predictions import OutdatedPredictions, fits_pixel_size
from .predictor_pool import PredictorOptions, PredictorPool, RateKey
from .slide_layer import ViewerSlide
from .status_message import StatusMessage
from .viewer_settings import settings_from_preferences
from .viewer_slides import ViewerSlides

if TYPE_CHECKING:
    from pathlib import Path

    from napari.components import ViewerModel

    from ...export.saved_result import SavedReliability
    from ...expression.panel import Panel
    from ...inference.gene_set_score import GeneSetScore
    from ...inference.prediction import Prediction
    from ...inference.zero_shot_genes import ZeroShotGenes
    from ...model import Checkpoint
    from ..worker import JobFailure
    from .prediction_overlay import GeneDecoder, PredictionOverlay


class ViewerSession:
    """State and events of one viewer."""

    tissue_edited = Signal()  # by the user
    checkpoint_changed = Signal()
    zero_shot_changed = Signal()
    settings_changed = Signal()
    gene_changed = Signal()
    pinned_changed = Signal()
    overlays_changed = Signal()
    overlay_updated = Signal(object)  # a PredictionOverlay has new values
    spot_changed = Signal()
    device_failed = Signal()  # after the message that says so

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = ref(viewer)
        self.checkpoint: Checkpoint | None = None
        self.zero_shot: ZeroShotGenes | None = None  # genes outside the checkpoint's panel
        self.scores: tuple[GeneSetScore, ...] = ()  # of genes of the checkpoint's panel
        self.settings = settings_from_preferences()
        self.gene: str | None = None
        self.pinned: tuple[str, ...] = ()
        self.overlays: list[PredictionOverlay] = []
        self.spot: Prediction | None = None  # the spot clicked last
        self.spot_reliability: SavedReliability | None = None  # of a spot from a file
        self.message = StatusMessage()
        self.predictors = PredictorPool(self._predictor_options)
        self.draw_stages = StageTimer()
        # Each claims a world position (y, x) whose clicks and tooltips it handles itself.
        self.click_claims: list[Callable[[tuple[float, float]], bool]] = []
        self.components: dict[object, object] = {}  # see get_component
        self.viewer_slides = ViewerSlides(viewer)
        self.layers = LayerStack(viewer, self.viewer_slides.layer_registry)
        self.slides_changed = self.viewer_slides.slides_changed
        self.slide_changed = self.viewer_slides.slide_changed
        self.titles = LayerTitles(viewer, self.viewer_slides)
        self._outdated = OutdatedPredictions(
            self.viewer_slides.layer_registry, self.titles, self.message
        )
        self.viewer_slides.slide_replaced.connect(self._on_slide_replaced)
        self.slide_changed.connect(self._on_slide_changed)
        self.slides_changed.connect(self._on_slides_changed)

    @property
    def viewer(self) -> ViewerModel:
        """The viewer; held weakly."""
        viewer = self._viewer()
        if viewer is None:
            raise RuntimeError("the viewer of this session is gone")
        return viewer

    @property
    def slides(self) -> list[ViewerSlide]:
        """All open slides."""
        return self.viewer_slides.slides

    @property
    def slide(self) -> ViewerSlide | None:
        """The current slide."""
        return self.viewer_slides.current

    def show_failure(self, failure: JobFailure, note: str = "") -> None:
        """Show why a prediction ended; after a failure of the device another one is chosen."""
        self.message.show(failure.message + note, warning=True)
        if isinstance(failure.error, DeviceError):
            self.device_failed.emit()

    def drop_removed_overlays(self, event: object = None) -> None:
        """Drop predictions whose layer was removed."""
        layers = self.viewer.layers
        overlays = [o for o in self.overlays if o.layer in layers]
        if len(overlays) < len(self.overlays):
            self.overlays = overlays
            self.overlays_changed.emit()

    def _on_slide_replaced(self, slide: ViewerSlide) -> None:
        self._outdated.hide_image(slide, self.overlays)
        self.overlays_changed.emit()

    def _on_slide_changed(self) -> None:
        """Hide what was predicted at another pixel size, and drop such a spot."""
        if self._outdated.check_pixel_sizes(self.slides, self.overlays):
            self.overlays_changed.emit()
        spot = self.spot
        if spot is None:
            return
        fingerprint = spot.provenance.get("slide_fingerprint")
        own_slides = [s for s in self.slides if s.slide.fingerprint() == fingerprint]
        if not all(fits_pixel_size(spot, slide) for slide in own_slides):
            self.set_spot(None)

    def _on_slides_changed(self) -> None:
        """Drop the spot of a slide that was closed; one from a file needs no slide."""
        spot = self.spot
        if spot is None or self.spot_reliability is not None:
            return
        open_slides = {s.slide.fingerprint() for s in self.slides}
        if spot.provenance.get("slide_fingerprint") not in open_slides:
            self.set_spot(None)

    def set_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Use a loaded checkpoint; the gene does not change if the new panel has it."""
        self.checkpoint, self.zero_shot, self.scores = checkpoint, None, ()
        panel = self.gene_panel or checkpoint.panel
        self.pinned = tuple(g for g in self.pinned if g in panel) or _initial_genes(checkpoint)
        self.spot = None
        if self.gene not in panel:
            self.gene = self.pinned[0] if self.pinned else panel.symbols[0]
        self.checkpoint_changed.emit()
        self.pinned_changed.emit()
        self.spot_changed.emit()
        self.gene_changed.emit()

    @property
    def model_gene_panel(self) -> Panel | None:
        """The genes of the checkpoint, then the zero-shot genes."""
        from ...expression.panel import Panel

        if self.checkpoint is None or self.zero_shot is None:
            return None if self.checkpoint is None else self.checkpoint.panel
        return Panel((*self.checkpoint.panel.genes, *self.zero_shot.genes))

    @property
    def gene_panel(self) -> Panel | None:
        """All that can be shown: genes of the model and of reopened maps, then gene set scores."""
        from ...expression.panel import Panel

        model_panel = self.model_gene_panel
        saved = {
            g.symbol: g for o in self.overlays if o.from_file for g in o.prediction.panel.genes
        }
        if model_panel is None:
            return Panel(tuple(saved.values())) if saved else None
        others = [g for g in saved.values() if g.symbol not in model_panel]
        others += [s.as_gene for s in self.scores if s.symbol not in saved]
        return Panel((*model_panel.genes, *others)) if others else model_panel

    def set_zero_shot_genes(self, genes: ZeroShotGenes | None) -> None:
        """Add genes outside the panel and show the first of them; None removes them."""
        self.zero_shot = genes
        panel = self.gene_panel
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

    def add_score(self, score: GeneSetScore) -> None:
        """Show a gene set score on all maps; one of the same symbol is replaced."""
        self.scores = (*(s for s in self.scores if s.symbol != score.symbol), score)
        for overlay in self.overlays:
            overlay.prediction = self._with_scores(overlay.prediction)
            if overlay.rough is not None:
                overlay.rough = self._with_scores(overlay.rough)
        if self.spot is not None:
            self.spot = self._with_scores(self.spot)
        self.gene = score.symbol
        self.overlays_changed.emit()
        self.gene_changed.emit()

    def _with_scores(self, prediction: Prediction) -> Prediction:
        """The prediction with the current scores; its arrays are not copied."""
        if prediction.scores == self.scores:
            return prediction
        return replace(prediction, scores=self.scores)

    def set_gene(self, symbol: str) -> None:
        """Show a gene.

        Raises
        ------
        SpotsError
            If the panel does not have it.
        """
        panel = self.gene_panel
        if panel is None:
            return
        symbol = panel.symbols[panel.row(symbol)]
        if symbol != self.gene:
            self.gene = symbol
            self.gene_changed.emit()

    def step_gene(self, step: int) -> None:
        """Show the gene ``step`` positions later in the panel, in a circle."""
        panel = self.gene_panel
        if panel is None or self.gene is None:
            return
        symbols = panel.symbols
        self.set_gene(symbols[(symbols.index(self.gene) + step) % len(symbols)])

    def set_pinned(self, symbol: str, pinned: bool = True) -> None:
        """Pin or unpin a gene."""
        others = tuple(g for g in self.pinned if g != symbol)
        self.pinned = (*others, symbol) if pinned else others
        self.pinned_changed.emit()

    def set_all_pinned(self, symbols: tuple[str, ...]) -> bool:
        """Pin those of the genes that can be shown, and no others; return whether any is new."""
        panel = self.gene_panel
        known = tuple(s for s in symbols if panel is not None and s in panel)
        if known == self.pinned:
            return False
        self.pinned = known
        self.pinned_changed.emit()
        return True

    def change_settings(self, **settings: object) -> None:
        """Replace fields of `ViewerSettings`."""
        self.settings = replace(self.settings, **settings)  # type: ignore[arg-type]
        self.settings_changed.emit()

    def use_feature_file(self, path: Path | None, encoder: str = "") -> None:
        """Use the features of a file on the current slide; None computes them again.

        Raises
        ------
        SpotsError
            When no slide is open.
        """
        if self.slide is None:
            raise SpotsError("Open the slide first that the features were made of.")
        self.predictors.set_feature_file(self.slide, path, encoder)
        self.settings_changed.emit()

    def add_overlay(self, overlay: PredictionOverlay, slide: ViewerSlide | None) -> None:
        """Add a prediction and its layer; the selection does not change.

        Maps are inserted above the slide and older maps, so that regions and clicked spots stay
        visible on top of them.

        Parameters
        ----------
        overlay : PredictionOverlay
        slide : ViewerSlide or None
            None if the slide of the prediction is not open.
        """
        below = [o.layer for o in self.overlays if isinstance(o.layer, Image)]
        below += [] if slide is None else [slide.layer]
        is_map = isinstance(overlay.layer, Image)
        overlay.prediction = self._with_scores(overlay.prediction)
        self.layers.insert(overlay.layer, slide, above=below if is_map else None)
        self.overlays = [*self.overlays, overlay]
        self.overlays_changed.emit()

    def is_outdated(self, overlay: PredictionOverlay) -> bool:
        """Whether a prediction is of another image or pixel size than its slide has now."""
        return self._outdated.is_outdated(overlay)

    def fill_overlay(
        self, overlay: PredictionOverlay, prediction: Prediction, decode: GeneDecoder
    ) -> None:
        """Give a prediction of the same spots to an overlay; see `PredictionOverlay.fill`."""
        overlay.fill(self._with_scores(prediction), decode)
        self.overlays_changed.emit()

    def replace_overlay(self, old: PredictionOverlay, new: PredictionOverlay) -> None:
        """Put a prediction in the place of another one whose layer it has taken."""
        new.prediction = self._with_scores(new.prediction)
        self.overlays = [*(o for o in self.overlays if o is not old), new]
        self.overlays_changed.emit()

    def restore_overlay(self, overlay: PredictionOverlay) -> None:
        """Take back a prediction whose layer was removed and is in the list again."""
        self.overlays = [*self.overlays, overlay]
        self._outdated.check_pixel_sizes(self.slides, self.overlays)
        self.overlays_changed.emit()

    def set_spot(
        self, prediction: Prediction | None, reliability: SavedReliability | None = None
    ) -> None:
        """Set the clicked spot.

        Parameters
        ----------
        prediction : Prediction or None
        reliability : SavedReliability or None
            That of a spot from a file; otherwise it is computed with the checkpoint.
        """
        if prediction is not None:
            prediction = self._with_scores(prediction)
        self.spot, self.spot_reliability = prediction, reliability
        self.spot_changed.emit()

    def is_click_claimed(self, world: tuple[float, float]) -> bool:
        """Return whether another tool handles clicks at this world position (y, x)."""
        return any(claims(world) for claims in self.click_claims)

    def rate_key(self) -> RateKey:
        """Return the key of the measured rate of the current slide, checkpoint and device."""
        checksum = "" if self.checkpoint is None else self.checkpoint.sha256
        return id(self.slide), checksum, self.settings.device

    def require_slide(self) -> ViewerSlide:
        """Return the slide to predict on.

        Raises
        ------
        SpotsError
            States what is missing: a slide, its pixel size or a checkpoint.
        """
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

    def _predictor_options(self) -> PredictorOptions:
        settings = self.settings
        return settings.device, settings.encoder_weights, settings.store_tiles


def _initial_genes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """First pinned genes: those of the card, else well-known ones, else the first of the panel."""
    card = checkpoint.card.get("first_genes", [])
    well_known = ["ERBB2", "GATA3", "CD74", "COL1A1", "KRT8"]
    panel = checkpoint.panel
    chosen = [g for g in [*card, *well_known] if g in panel]
    return tuple(dict.fromkeys(chosen))[:4] or panel.symbols[:4]


_session_of_viewer: WeakKeyDictionary[ViewerModel, ref[ViewerSession]] = WeakKeyDictionary()


def list_sessions() -> list[ViewerSession]:
    """List the sessions of all viewers."""
    sessions = [reference() for reference in list(_session_of_viewer.values())]
    return [session for session in sessions if session is not None]


def find_session(viewer: ViewerModel) -> ViewerSession | None:
    """Return the session of a viewer if it exists."""
    reference = _session_of_viewer.get(getattr(viewer, "__wrapped__", viewer))
    return None if reference is None else reference()


def get_session(viewer: ViewerModel) -> ViewerSession:
    """Return the session of a viewer; created on the first call.

    napari passes a temporary proxy of the viewer to widgets that are opened from the menu. The
    session belongs to the viewer itself.
    """
    viewer = getattr(viewer, "__wrapped__", viewer)
    session = find_session(viewer)
    if session is None:
        session = ViewerSession(viewer)
        _session_of_viewer[viewer] = ref(session)
        # The viewer owns its session. Its events hold methods weakly, but a partial strongly.
        viewer.layers.events.removed.connect(partial(ViewerSession.drop_removed_overlays, session))
    return session


ComponentT = TypeVar("ComponentT")


def get_component(
    session: ViewerSession, factory: Callable[[ViewerSession], ComponentT]
) -> ComponentT:
    """Return the session's instance of a class; created on the first call."""
    if factory not in session.components:
        session.components[factory] = factory(session)
    return cast(ComponentT, session.components[factory])
