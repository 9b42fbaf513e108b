"""Why here: explains the spot that was clicked last, as long as it is switched on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from ..inference.why import Coverings, Why, cover, given_at, why
from .actions import answer
from .lane import Failure, Lane
from .links import Links
from .session import OpenSlide, Session
from .why_picture import WhyPicture

if TYPE_CHECKING:
    from ..inference.prediction import Prediction
    from ..inference.zero_shot import ZeroShotGenes
    from ..model import Checkpoint


@dataclass(frozen=True, eq=False)
class Place:
    """A clicked spot with all that its numbers came from."""

    spot: Prediction
    slide: OpenSlide
    checkpoint: Checkpoint
    zero_shot: ZeroShotGenes | None

    @property
    def xy(self) -> tuple[float, float]:
        x, y = self.spot.target.spots.xy[-1].tolist()
        return x, y


class Explainer:
    """Keeps the picture in step with spot and gene; computes in a thread of its own."""

    changed = Signal()

    def __init__(self, session: Session, links: Links) -> None:
        self.session = session
        self.on = False
        self.found: Why | None = None  # of the gene and the place of now
        self.gene = ""
        self._lane = Lane("why")
        self._place: Place | None = None
        self._coverings: Coverings | None = None
        self._picture: WhyPicture | None = None
        links.join(self._clicked, session.spot_changed)
        links.join(self._refresh, session.gene_changed)
        links.join(self._left, session.slide_changed, session.checkpoint_changed)
        links.join(self._spots_drawn, session.overlays_changed)
        links.join(self._layer_gone, session.viewer.layers.events.removed)
        self._forget_key = answer(session.viewer, why=lambda: self.switch(not self.on))

    @property
    def busy(self) -> bool:
        return self._lane.busy

    @property
    def clicked(self) -> bool:
        """Whether there is a spot to explain."""
        return self._place is not None

    def close(self) -> None:
        self.switch(False)
        self._forget_key()
        self._lane.wait()

    def switch(self, on: bool) -> None:
        if on != self.on:
            self.on = on
            if on:
                self._refresh()
            else:
                self._lane.cancel()
                self._wipe()
        self.changed.emit()

    # ---- following the session -------------------------------------------------------

    def _clicked(self) -> None:
        session, spot = self.session, self.session.spot
        self._place = self._coverings = None
        checkpoint = session.checkpoint
        by = None if spot is None else spot.provenance.get("checkpoint_sha256")
        if spot and session.slide and checkpoint is not None and by == checkpoint.sha256:
            self._place = Place(spot, session.slide, checkpoint, session.zero_shot)
        self._refresh()

    def _left(self) -> None:
        """Another slide or checkpoint: what was clicked there is not explained here."""
        place, session = self._place, self.session
        if place and (place.slide, place.checkpoint) != (session.slide, session.checkpoint):
            self._place = self._coverings = None
        self._refresh()

    def _refresh(self) -> None:
        place, gene = self._place, self.session.gene
        self._lane.cancel()
        self.found = None
        if not self.on or place is None or gene is None or gene not in place.spot.panel:
            self._wipe()
        else:
            self.gene = gene
            self._lane.start(lambda: self._job(place, gene), self._take, self._ended)
        self.changed.emit()

    def _job(self, place: Place, gene: str) -> Iterator[Any]:
        predictor = self.session.predictor(place.slide, place.checkpoint)
        coverings = self._coverings
        if coverings is None:
            given = yield from given_at(predictor, *place.xy)
            coverings = cover(predictor, given)
            yield coverings
        yield why(predictor, coverings, place.spot.panel.row(gene), place.zero_shot)

    def _take(self, item: Any) -> None:
        if isinstance(item, Coverings):
            self._coverings = item
        elif isinstance(item, Why):
            self.found = item
            self._draw()
            self.changed.emit()

    def _ended(self, failure: Failure | None) -> None:
        if failure is not None:
            self.session.say(failure.sentence, alarming=True)
            self._wipe()
        self.changed.emit()

    # ---- the picture -----------------------------------------------------------------

    def _draw(self) -> None:
        place, found = self._place, self.found
        if place is None or found is None:
            return
        if self._picture is None:
            record = {"checkpoint_sha256": place.checkpoint.sha256}
            self._picture = WhyPicture(self.session, place.slide, record)
        where = (*place.xy, place.checkpoint.patch.um / place.slide.mpp)
        self._picture.show(f"why {self.gene} here", where, found.tiles, found.blocks)

    def _wipe(self) -> None:
        picture, self._picture = self._picture, None
        if picture is not None:
            picture.take_away()

    def _spots_drawn(self) -> None:
        if self._picture is not None:
            self._picture.clear_view()

    def _layer_gone(self, event: object) -> None:
        if self._picture is not None and not self._picture.there:
            self.switch(False)
