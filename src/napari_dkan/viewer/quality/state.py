"""Measured beside predicted: what is loaded, compared and chosen, one `Quality` a session.

Widgets read it, call it and subscribe to its signals, all of them emitted in the GUI thread;
what it has to say goes to the session's message.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Points
from psygnal import Signal

from ..companions import companion
from ..links import Links
from ..session import Session
from .comparer import Comparer
from .comparing import Pair, Stage, labels_at
from .following import Following
from .keys import Keys
from .layers import SpotMaps
from .layout import Arrangement
from .loading import Offered, Order, Read
from .picking import Picking
from .placing import lay
from .reading import Reading
from .registration import Landmarks
from .section import Choice, LoadedSection, by_landmarks, show_alone
from .views import Layout, Shown

if TYPE_CHECKING:
    from ...inference.prediction import Prediction
    from ...quality.compare import Comparison
    from ...spatial.landmarks import Affine


class Quality:
    """Measured sections of one session and their comparison with its checkpoint."""

    sections_changed = Signal()  # loaded or removed, or what is offered in `choices`
    section_changed = Signal()  # another one is chosen, or it was registered anew
    comparison_changed = Signal()
    grew = Signal()  # the prediction at the spots has new values
    spot_changed = Signal()
    layout_changed = Signal()  # layout, shown, swipe
    progress_changed = Signal()  # busy, progress, stage
    landmarks_changed = Signal()  # begun, one more click, ended

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sections: list[LoadedSection] = []
        self.section: LoadedSection | None = None
        self.choices: tuple[Choice, ...] = ()  # further sections of the folder loaded last
        self.comparison: Comparison | None = None
        self.pair: Pair | None = None  # labels, and the prediction as far as it is there
        self.spot: int | None = None  # row of `pair` and of `comparison`
        self.landmarks: Landmarks | None = None  # set while they are being clicked
        self.layout = Layout.STACKED
        self.shown = Shown.MEASURED
        self.swipe = False
        self.stage = ""  # what is being done, for people
        self.progress = (0, 0)
        self._comparer = Comparer(session, self._receive, self._tell)
        self._reading = Reading(session, self._offered, self._read, self._tell)
        self._links = links = Links()
        self._maps = SpotMaps(self, links)
        self._arrangement = Arrangement(self, links, self._maps)
        self._picking, self._keys = Picking(self), Keys(self)
        links.join(self.compare, session.checkpoint_changed, session.slide_changed)
        links.join(self._replace, session.slide_edited)
        links.join(self._other_spot, session.spot_changed)
        self._following = Following(self, links, self._reading)

    @property
    def busy(self) -> bool:
        return self._reading.busy or self._comparer.busy

    def close(self) -> None:
        """Let go of the viewer; the layers stay."""
        self._reading.close()
        self._comparer.close()
        self.end_landmarks()
        self.set_layout(Layout.STACKED)
        self._picking.close()
        self._keys.close()
        self._arrangement.close()
        self._links.cut()
        self.session.companions.pop(Quality, None)

    # ---- loading ---------------------------------------------------------------------

    def load(self, paths: Sequence[Path], image: Path | None = None) -> None:
        """Read a folder, a file, or counts and spots; of several sections in a folder the one
        of the open slide, else the first. The others are `choices`."""
        self._reading.order(Order(tuple(Path(p) for p in paths), image))

    def take(self, choice: Choice) -> None:
        """Read one of the sections on offer."""
        self._reading.order(Order((choice.source,), choice.image, choice))

    def cancel(self) -> None:
        """Stop reading and comparing; what is loaded stays."""
        if not self.busy:
            return
        self._reading.cancel()
        self._comparer.forget()
        self._tell("")
        self.session.say("Cancelled.")

    def _offered(self, item: Offered) -> None:
        self.choices = item.choices
        self.sections_changed.emit()

    def _read(self, order: Order, item: Read) -> None:
        session, section = self.session, item.section
        known = next((s for s in self.sections if s.same_as(section)), None)
        if known is not None and (item.where is None or known is not section):
            self._reading.drop_empty(order)
            self.choose(known)
            return
        if item.where is None:
            note = f"Open the slide of {section.name} to see its spots on it."
        else:
            note = lay(session, section, item.where)
        if known is None:
            self._maps.begin(section, order.layer)
            self.sections = [*self.sections, section]
            self.sections_changed.emit()
        else:
            self._maps.moved(section)
        self.choose(section)
        self.section_changed.emit()
        if note:
            session.say(note, alarming=True)

    # ---- sections ----------------------------------------------------------------------

    def choose(self, section: LoadedSection | None) -> None:
        """Show and compare this section, on its slide."""
        if section is not self.section:
            self.end_landmarks()
            self.section = section
            self._forget()
            if section is not None and section.slide is not None:
                self.session.choose_slide(section.slide)
                show_alone(section, self.sections, self.session)
            self.section_changed.emit()
        self.compare()

    def remove(self, section: LoadedSection) -> None:
        """Let go of a section and its layers."""
        layers = self.session.viewer.layers
        if section.layer is not None and section.layer in layers:
            layers.remove(section.layer)  # which comes back here
            return
        if section not in self.sections:
            return
        self.sections = [s for s in self.sections if s is not section]
        if section is self.section:
            self.choose(self.sections[-1] if self.sections else None)
        self.sections_changed.emit()

    def lost_slide(self, section: LoadedSection) -> None:
        """Its slide was closed: the section waits until it is opened again."""
        section.slide, section.placement = None, None
        if section is self.section:
            self.end_landmarks()
            self._forget()
            self.section_changed.emit()
            sentence = f"The slide of {section.name} was closed; open it again to compare."
            self.session.say(sentence, alarming=True)

    # ---- registration --------------------------------------------------------------------

    def register(self, affine: Affine, how: str, slide: Any = None) -> None:
        """Lay the chosen section on a slide (default: where it lies, else the chosen slide);
        the affine map takes its own px to the slide's level-0 px."""
        section = self.section
        slide = slide or (section and section.slide) or self.session.slide
        if section is None or slide is None:
            return
        section.put(slide, affine, how)
        self._forget()
        self._maps.moved(section)
        self.session.say("")  # what was said of where it lay before
        self.session.choose_slide(slide)
        show_alone(section, self.sections, self.session)
        self.section_changed.emit()
        self.compare()

    def begin_landmarks(self) -> None:
        """Start clicking the same places on the section's own image (or its spots) and on the
        chosen slide; see `registration.Landmarks`, which is in `landmarks` until it ends."""
        session, section = self.session, self.section
        if section is None or session.slide is None:
            session.say("Load measured spots and open a slide first.", alarming=True)
            return
        self.end_landmarks()
        self.set_layout(Layout.STACKED)
        self.landmarks = Landmarks(self, section, session.slide)
        self.landmarks_changed.emit()

    def end_landmarks(self, keep: bool = False) -> None:
        """Leave the guided mode; keep : use what was clicked."""
        landmarks, self.landmarks = self.landmarks, None
        if landmarks is None:
            return
        affine, count = landmarks.affine, len(landmarks.pairs)
        landmarks.close()
        self.landmarks_changed.emit()
        if keep and affine is not None and landmarks.section is self.section:
            self.register(affine, by_landmarks(count), landmarks.slide)

    def _replace(self) -> None:
        """The tissue was edited by hand: count again which spots lie off it."""
        if self.section is not None:
            self.section.placement = None
            self._comparer.forget()
            self.compare()

    # ---- comparing -----------------------------------------------------------------------

    def compare(self) -> None:
        """Predict at the spots of the chosen section, unless that is what is there."""
        section = self.section
        if section is None or section.slide is None or self._comparer.up_to_date(section):
            return
        self._forget()
        self._comparer.start(section)

    def _receive(self, item: Any) -> None:
        from ...quality.placement import Placement

        section = self.section
        if section is None:
            return
        if isinstance(item, Placement):
            section.placement = item
            if item.warning:
                self.session.say(f"{section.name}: {item.warning}", alarming=True)
            self.section_changed.emit()
        elif isinstance(item, Pair):
            self.pair = item
            self.grew.emit()
        elif isinstance(item, Stage):
            self.grew.emit()
        else:
            self.comparison = item
            self.comparison_changed.emit()

    def _forget(self) -> None:
        """The comparison no longer holds."""
        had = self.comparison is not None or self.pair is not None
        self._comparer.forget()
        self.comparison = self.pair = None
        if self.spot is not None:
            self.spot = None
            self.spot_changed.emit()
        if had:
            self.comparison_changed.emit()

    def _tell(self, stage: str, done: int = 0, total: int = 0) -> None:
        self.stage, self.progress = stage, (done, total)
        self.progress_changed.emit()

    # ---- looking -------------------------------------------------------------------------

    def choose_spot(self, row: int | None) -> None:
        """Choose a spot by its row; its genes are shown in the Predict panel too."""
        if row == self.spot or (row is not None and self.comparison is None):
            return
        self.spot = row
        self.spot_changed.emit()
        if row is not None and self.pair is not None:
            self.session.set_spot(self.pair.at(row))

    def measured_here(self, spot: Prediction) -> dict[str, float]:
        """By gene, the labels at the place of a clicked spot, where that is the chosen one."""
        if self.comparison is None or self.spot is None:
            return {}
        return labels_at(self.comparison, self.spot, spot)

    def _other_spot(self) -> None:
        """Another place was clicked, or none holds any more: that spot is no longer chosen."""
        spot = self.session.spot
        if self.spot is not None and (spot is None or not self.measured_here(spot)):
            self.choose_spot(None)

    def map_layers(self) -> tuple[Points, ...]:
        """Measured, predicted and residual of the chosen section, as far as they are there."""
        return self._maps.all()

    def set_layout(self, layout: Layout) -> None:
        self.layout = layout
        self._lay_out()

    def show(self, shown: Shown) -> None:
        """Of the stacked maps, show this one."""
        self.layout, self.shown, self.swipe = Layout.STACKED, shown, False
        self._lay_out()

    def blink(self) -> None:
        """Measured, predicted, measured, ..."""
        was_measured = self.shown is Shown.MEASURED
        self.show(Shown.PREDICTED if was_measured else Shown.MEASURED)

    def set_swipe(self, on: bool) -> None:
        """A divider that follows the mouse: measured on its left, predicted on its right."""
        self.swipe = on
        if on:
            self.layout = Layout.STACKED
        self._lay_out()

    def _lay_out(self) -> None:
        self._maps.complete()
        self.layout_changed.emit()


def quality_of(session: Session) -> Quality:
    """The state of a session, made when first asked for."""
    return companion(session, Quality)
