"""Why here: explains the spot that was clicked last, as long as it is switched on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from ..inference.why import OccludedTokens, OcclusionAttribution, occlude_spot, gather_spot_inputs, attribute_gene
from .actions import register_actions
from .lane import JobFailure, JobRunner
from .links import SignalConnections
from .session import ViewerSlide, ViewerSession
from .why_picture import OcclusionLayer

if TYPE_CHECKING:
    from ..inference.prediction import Prediction
    from ..inference.zero_shot import ZeroShotGenes
    from ..model import Checkpoint


@dataclass(frozen=True, eq=False)
class ExplainedSpot:
    """A clicked spot with all that its numbers came from."""

    spot: Prediction
    slide: ViewerSlide
    checkpoint: Checkpoint
    zero_shot: ZeroShotGenes | None

    @property
    def xy(self) -> tuple[float, float]:
        x, y = self.spot.target.spots.xy[-1].tolist()
        return x, y


class OcclusionExplainer:
    """Keeps the picture in step with spot and gene; computes in a thread of its own."""

    changed = Signal()

    def __init__(self, session: ViewerSession, connections: SignalConnections) -> None:
        self.session = session
        self.active = False
        self.explanation: OcclusionAttribution | None = None  # of the gene and the place of now
        self.gene = ""
        self._runner = JobRunner("why")
        self._explained_spot: ExplainedSpot | None = None
        self._occlusions: OccludedTokens | None = None
        self._occlusion_layer: OcclusionLayer | None = None
        connections.connect(self._on_spot_changed, session.spot_changed)
        connections.connect(self._restart, session.gene_changed)
        connections.connect(self._on_slide_or_checkpoint_changed, session.slide_changed, session.checkpoint_changed)
        connections.connect(self._on_overlays_changed, session.overlays_changed)
        connections.connect(self._on_layer_removed, session.viewer.layers.events.removed)
        self._unregister_actions = register_actions(session.viewer, why=lambda: self.set_active(not self.active))

    @property
    def busy(self) -> bool:
        return self._runner.busy

    @property
    def has_spot(self) -> bool:
        """Whether there is a spot to explain."""
        return self._explained_spot is not None

    def close(self) -> None:
        self.set_active(False)
        self._unregister_actions()
        self._runner.wait()

    def set_active(self, active: bool) -> None:
        if active != self.active:
            self.active = active
            if active:
                self._restart()
            else:
                self._runner.cancel()
                self._remove_layer()
        self.changed.emit()

    # ---- following the session -------------------------------------------------------

    def _on_spot_changed(self) -> None:
        session, spot = self.session, self.session.spot
        self._explained_spot = self._occlusions = None
        checkpoint = session.checkpoint
        by = None if spot is None else spot.provenance.get("checkpoint_sha256")
        if spot and session.slide and checkpoint is not None and by == checkpoint.sha256:
            self._explained_spot = ExplainedSpot(spot, session.slide, checkpoint, session.zero_shot)
        self._restart()

    def _on_slide_or_checkpoint_changed(self) -> None:
        """Another slide or checkpoint: what was clicked there is not explained here."""
        place, session = self._explained_spot, self.session
        if place and (place.slide, place.checkpoint) != (session.slide, session.checkpoint):
            self._explained_spot = self._occlusions = None
        self._restart()

    def _restart(self) -> None:
        place, gene = self._explained_spot, self.session.gene
        self._runner.cancel()
        self.explanation = None
        if not self.active or place is None or gene is None or gene not in place.spot.panel:
            self._remove_layer()
        else:
            self.gene = gene
            self._runner.start(lambda: self._explain(place, gene), self._on_item, self._on_job_end)
        self.changed.emit()

    def _explain(self, explained_spot: ExplainedSpot, gene: str) -> Iterator[Any]:
        predictor = self.session.get_predictor(explained_spot.slide, explained_spot.checkpoint)
        coverings = self._occlusions
        if coverings is None:
            given = yield from gather_spot_inputs(predictor, *explained_spot.xy)
            coverings = occlude_spot(predictor, given)
            yield coverings
        yield attribute_gene(predictor, coverings, explained_spot.spot.panel.row(gene), explained_spot.zero_shot)

    def _on_item(self, item: Any) -> None:
        if isinstance(item, OccludedTokens):
            self._occlusions = item
        elif isinstance(item, OcclusionAttribution):
            self.explanation = item
            self._show_layer()
            self.changed.emit()

    def _on_job_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self.session.show_message(failure.message, warning=True)
            self._remove_layer()
        self.changed.emit()

    # ---- the picture -----------------------------------------------------------------

    def _show_layer(self) -> None:
        place, found = self._explained_spot, self.explanation
        if place is None or found is None:
            return
        if self._occlusion_layer is None:
            record = {"checkpoint_sha256": place.checkpoint.sha256}
            self._occlusion_layer = OcclusionLayer(self.session, place.slide, record)
        where = (*place.xy, place.checkpoint.patch.um / place.slide.mpp)
        self._occlusion_layer.draw(f"why {self.gene} here", where, found.tiles, found.blocks)

    def _remove_layer(self) -> None:
        picture, self._occlusion_layer = self._occlusion_layer, None
        if picture is not None:
            picture.remove()

    def _on_overlays_changed(self) -> None:
        if self._occlusion_layer is not None:
            self._occlusion_layer.hide_spots_below()

    def _on_layer_removed(self, event: object) -> None:
        if self._occlusion_layer is not None and not self._occlusion_layer.is_in_viewer:
            self.set_active(False)
