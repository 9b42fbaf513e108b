"""A fine-tuning as the window sees it: where it stands, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from psygnal import Signal

from ...errors import SpotsError
from ...training.tuning.events import (
    EpochDone,
    Event,
    Failed,
    Finished,
    GeneMap,
    Paused,
    Reading,
    Resumed,
    Started,
    Unsaved,
)
from ...training.tuning.process import COMMAND, TuneProcess, options
from ...training.tuning.settings import TuneSettings
from ..lane import Failure, Lane
from ..links import Links
from ..memory import remember_checkpoint
from ..quality.state import Quality
from ..session import Session
from ..torch_beside_gl import import_torch
from .handing import Handed, handed, write_sections
from .keeping import check_place, move, new_path

if TYPE_CHECKING:
    from ...model import Checkpoint
    from ..quality.section import LoadedSection


class State(StrEnum):
    """What the process is doing."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    UNSAVED = "unsaved"  # done, and waiting for a place where its result can be written


@dataclass(frozen=True)
class Wanted:
    """What Start asks for; sections teach, others are only measured before and after."""

    sections: tuple[LoadedSection, ...]
    others: tuple[LoadedSection, ...] = ()
    settings: TuneSettings = field(default_factory=TuneSettings)
    new_genes: Path | None = None


class Tuning:
    """Starts, follows and ends one run at a time; all signals come in the GUI thread."""

    changed = Signal()  # state, stage, result, saved
    epoch_came = Signal()  # `curve` is longer
    map_came = Signal(object)  # a GeneMap
    said = Signal(str, bool)  # a sentence, and whether it alarms

    def __init__(self, session: Session, quality: Quality, links: Links) -> None:
        self.session, self._quality = session, quality
        self.command: Sequence[str] = COMMAND
        self.state = State.IDLE
        self.stage = ""  # what is being done before the first epoch
        self.started: Started | None = None
        self.curve: tuple[EpochDone, ...] = ()
        self.result: Finished | None = None
        self.parent: Checkpoint | None = None
        self.tuned: Checkpoint | None = None  # once it is loaded
        self.kept: Path | None = None  # where the result lies
        self.lasting = False  # it is better, or somebody wanted it: it stays on disk
        self.teaching: tuple[Handed, ...] = ()
        self._gene = ""
        self._process: TuneProcess | None = None
        self._run, self._files = Lane("fine-tuning"), Lane("fine-tuned checkpoint")
        links.join(self._sections_gone, quality.sections_changed, session.slides_changed)

    @property
    def busy(self) -> bool:
        return self.state is not State.IDLE

    # ---- asked for -----------------------------------------------------------------------

    def start(self, wanted: Wanted) -> None:
        """Begin. Raises a DkanError saying what is missing."""
        parent = self.session.checkpoint
        if self.busy:
            return
        if parent is None or parent.path is None:
            raise SpotsError("The checkpoint is still being loaded; try again in a moment.")
        if not wanted.sections:
            raise SpotsError("Tick a section to learn from, or load measured ST.")
        teaching = handed(wanted.sections)
        others = handed(wanted.others, teaching)
        out = new_path(parent.path, [h.name for h in teaching])
        self._forget()
        process = self._process = TuneProcess(self.command)
        self.parent, self.teaching, self.kept = parent, teaching, out
        path, gene = parent.path, self._gene

        def job() -> Iterator[Event]:
            with TemporaryDirectory(prefix="napari-dkan-", ignore_cleanup_errors=True) as made_for:
                folder = Path(made_for) / "sections"  # the name goes on the card
                write_sections((*teaching, *others), folder)
                names = [h.name for h in teaching]
                made = options(path, folder, names, wanted.settings, out)
                if others:
                    made += ["--others", ",".join(h.name for h in others)]
                if wanted.new_genes is not None:
                    made += ["--new-genes", str(wanted.new_genes)]
                process.start(made, out)
                if gene:
                    process.show(gene)
                yield from process.events()

        self._be(State.STARTING, "handing over the sections")
        self.said.emit("", False)
        self._run.start(job, self._receive, self._end)

    def pause(self) -> None:
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        if self._process is not None:
            self._process.resume()

    def stop(self) -> None:
        """End and keep the best so far."""
        process = self._process
        if not self.busy or process is None:
            return
        if process.pid is None:  # nothing has begun
            self._drop()
            self.said.emit("Stopped before it began.", False)
            return
        process.stop()
        self._be(State.STOPPING, "keeping the best so far")

    def show_gene(self, gene: str) -> None:
        """The gene whose map comes with every epoch; "" for none."""
        self._gene = gene
        if self._process is not None:
            self._process.show(gene)

    def use(self, tuned: bool) -> None:
        """Choose the fine-tuned checkpoint, or the one it was made from."""
        wanted = self.tuned if tuned else self.parent
        if wanted is not None:
            self.lasting |= tuned
            if tuned and wanted.path is not None:
                remember_checkpoint(wanted.path)
            self.session.use_checkpoint(wanted)

    def save_as(self, path: Path) -> None:
        """Give the result its lasting place, and use it from there.

        Raises OutputError when that is the place of its parent.
        """
        kept, parent = self.kept, self.parent
        if kept is None or parent is None or parent.path is None:
            return
        check_place(path, parent.path)
        if self.state is State.UNSAVED and self._process is not None:
            self.kept, self.lasting = path, True
            self._process.save(path)
            return

        def end(failure: Failure | None) -> None:
            if failure is not None:
                self.said.emit(f"{failure.sentence} It is still kept.", True)
                return
            self.kept, self.lasting = path, True
            self.said.emit(f"Saved as {path}.", False)
            self._load(path, use=True)

        def job() -> Iterator[None]:
            move(kept, path)
            yield None

        self._files.start(job, lambda item: None, end)

    def close(self) -> None:
        """End whatever runs; no process, thread or half-made file is left."""
        self._drop()
        self._files.cancel()
        self._run.wait()
        self._files.wait()
        self._forget()

    # ---- followed ------------------------------------------------------------------------

    def _receive(self, event: Event) -> None:
        if isinstance(event, Reading):
            self._be(self.state, f"reading {event.section} ({event.done + 1} of {event.of})")
        elif isinstance(event, Started):
            self.started = event
            self._be(State.RUNNING if self.state is State.STARTING else self.state, "")
        elif isinstance(event, EpochDone):
            self.curve = (*self.curve, event)
            self.epoch_came.emit()
        elif isinstance(event, GeneMap):
            self.map_came.emit(event)
        elif isinstance(event, Paused | Resumed) and self.state is not State.STOPPING:
            self._be(State.PAUSED if isinstance(event, Paused) else State.RUNNING, "")
        elif isinstance(event, Unsaved):
            self._be(State.UNSAVED, "")
            self.said.emit(f"{event.sentence} The result waits: press Save as...", True)
        elif isinstance(event, Failed):
            self.said.emit(event.sentence, True)
        elif isinstance(event, Finished):
            self.result, self.kept = event, Path(event.path)

    def _end(self, failure: Failure | None) -> None:
        self._process = None
        self._be(State.IDLE, "")
        if failure is not None:
            self.said.emit(failure.sentence, True)
        if self.kept is not None and self.kept.is_file():
            better = self.result is not None and self.result.better
            self.lasting |= better or failure is not None  # what a crash left is not thrown away
            self._load(self.kept, use=better)

    def _load(self, path: Path, use: bool) -> None:
        loaded: list[Checkpoint] = []

        def job() -> Iterator[None]:
            import_torch()
            from ...model import load_checkpoint

            loaded.append(load_checkpoint(path))
            yield None

        def end(failure: Failure | None) -> None:
            if failure is not None:
                self.said.emit(failure.sentence, True)
                return
            self.tuned = loaded[0]
            if use:
                self.use(tuned=True)
            self.changed.emit()

        self._files.start(job, lambda item: None, end)

    def _sections_gone(self) -> None:
        """A section that teaches was removed, or its slide closed: there is nobody to learn for."""
        if self.state in (State.IDLE, State.STOPPING, State.UNSAVED):
            return
        there, slides = self._quality.sections, self.session.slides
        gone = [h for h in self.teaching if h.section not in there or h.slide not in slides]
        if gone:
            name = gone[0].section.name
            self.stop()
            self.said.emit(f"{name} was removed: fine-tuning stops and keeps its best.", True)

    # ---- ended ---------------------------------------------------------------------------

    def _be(self, state: State, stage: str) -> None:
        self.state, self.stage = state, stage
        self.changed.emit()

    def _drop(self) -> None:
        """End a run that nobody wants the result of."""
        if self._process is not None:
            self._run.cancel()
            self._process.kill()
            self._process = None
            self._be(State.IDLE, "")

    def _forget(self) -> None:
        """The run before: its file goes unless it was better or wanted."""
        if self.kept is not None and not self.lasting:
            with suppress(OSError):
                self.kept.unlink(missing_ok=True)
        self.started = self.result = self.parent = self.tuned = self.kept = None
        self.curve, self.teaching, self.lasting = (), (), False
