"""Keeps the comparison of a section up to date, one job at a time off the GUI thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..lane import Failure, Lane
from ..session import Session
from .comparing import Stage, comparing
from .section import LoadedSection

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, eq=False)
class _Work:
    """What is compared with what; when any of it changes, it is compared anew."""

    section: LoadedSection
    data: AnnData  # another one after every registration
    sha256: str
    mpp: float

    def same(self, other: _Work | None) -> bool:
        if other is None or self.section is not other.section or self.data is not other.data:
            return False
        return (self.sha256, self.mpp) == (other.sha256, other.mpp)


class Comparer:
    """receive : gets a Placement, a Pair, Stages whose values grew, the Comparison, as
    `comparing` yields them. tell : what is being done, how far and of how much."""

    def __init__(
        self,
        session: Session,
        receive: Callable[[Any], None],
        tell: Callable[[str, int, int], None],
    ) -> None:
        self._session, self._receive_item, self._tell = session, receive, tell
        self._lane = Lane("comparison")
        self._work: _Work | None = None

    @property
    def busy(self) -> bool:
        return self._lane.busy

    def up_to_date(self, section: LoadedSection) -> bool:
        """Whether this section is compared, or being compared, as things stand."""
        work = self._of(section)
        return work is not None and work.same(self._work)

    def start(self, section: LoadedSection) -> None:
        """Compare it; what was running ends."""
        session, slide, checkpoint = self._session, section.slide, self._session.checkpoint
        if slide is None:
            return
        self._work = self._of(section)
        self._lane.start(
            lambda: comparing(session, section, slide, checkpoint), self._receive, self._end
        )
        self._tell("Looking for the tissue", 0, 0)

    def forget(self) -> None:
        """End the job; nothing counts as compared."""
        self._work = None
        if self._lane.busy:
            self._lane.cancel()
            self._tell("", 0, 0)

    def close(self) -> None:
        self._lane.cancel()
        self._lane.wait()

    def _of(self, section: LoadedSection) -> _Work | None:
        checkpoint, slide = self._session.checkpoint, section.slide
        if slide is None:
            return None
        checksum = "" if checkpoint is None else checkpoint.sha256
        return _Work(section, section.data, checksum, slide.mpp)

    def _receive(self, item: object) -> None:
        if isinstance(item, Stage):
            self._tell(item.what, item.done, item.total)
            if not item.grew:
                return
        self._receive_item(item)

    def _end(self, failure: Failure | None) -> None:
        if failure is not None:
            self._session.say(failure.sentence, alarming=True)
        self._tell("", 0, 0)
