"""Keeps the comparison of a section up to date, one job at a time off the GUI thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..lane import JobFailure, JobRunner
from ..session import ViewerSession
from .comparing import ComparisonProgress, compare_section
from .section import LoadedSection

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, eq=False)
class _ComparisonInputs:
    """What is compared with what; when any of it changes, it is compared anew."""

    section: LoadedSection
    data: AnnData  # another one after every registration
    sha256: str
    mpp: float

    def is_same(self, other: _ComparisonInputs | None) -> bool:
        if other is None or self.section is not other.section or self.data is not other.data:
            return False
        return (self.sha256, self.mpp) == (other.sha256, other.mpp)


class ComparisonWorker:
    """receive : gets a Placement, a Pair, Stages whose values grew, the Comparison, as
    `comparing` yields them. tell : what is being done, how far and of how much."""

    def __init__(
        self,
        session: ViewerSession,
        on_item: Callable[[Any], None],
        on_progress: Callable[[str, int, int], None],
    ) -> None:
        self._session, self._on_item, self._on_progress = session, on_item, on_progress
        self._runner = JobRunner("comparison")
        self._inputs: _ComparisonInputs | None = None

    @property
    def busy(self) -> bool:
        return self._runner.busy

    def is_up_to_date(self, section: LoadedSection) -> bool:
        """Whether this section is compared, or being compared, as things stand."""
        work = self._inputs_for(section)
        return work is not None and work.is_same(self._inputs)

    def start(self, section: LoadedSection) -> None:
        """Compare it; what was running ends."""
        session, slide, checkpoint = self._session, section.slide, self._session.checkpoint
        if slide is None:
            return
        self._inputs = self._inputs_for(section)
        self._runner.start(
            lambda: compare_section(session, section, slide, checkpoint), self._handle_item, self._handle_end
        )
        self._on_progress("Looking for the tissue", 0, 0)

    def reset(self) -> None:
        """End the job; nothing counts as compared."""
        self._inputs = None
        if self._runner.busy:
            self._runner.cancel()
            self._on_progress("", 0, 0)

    def close(self) -> None:
        self._runner.cancel()
        self._runner.wait()

    def _inputs_for(self, section: LoadedSection) -> _ComparisonInputs | None:
        checkpoint, slide = self._session.checkpoint, section.slide
        if slide is None:
            return None
        checksum = "" if checkpoint is None else checkpoint.sha256
        return _ComparisonInputs(section, section.data, checksum, slide.mpp)

    def _handle_item(self, item: object) -> None:
        if isinstance(item, ComparisonProgress):
            self._on_progress(item.description, item.done, item.total)
            if not item.has_new_values:
                return
        self._on_item(item)

    def _handle_end(self, failure: JobFailure | None) -> None:
        if failure is not None:
            self._session.show_message(failure.message, warning=True)
        self._on_progress("", 0, 0)
