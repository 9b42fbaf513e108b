"""Controller of a fine-tuning run: state, events and result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from psygnal import Signal

from ....errors import SpotsError
from ....training.finetuning.finetune_process import (
    FINETUNE_COMMAND,
    FinetuneProcess,
    build_finetune_arguments,
)
from ....training.finetuning.finetune_settings import FinetuneSettings
from ....training.finetuning.tuning_protocol import (
    EpochFinished,
    FinetuneEvent,
    FinetuneFailed,
    FinetuneFinished,
    FinetunePaused,
    FinetuneResumed,
    FinetuneStarted,
    GeneMapComputed,
    SaveFailed,
    SectionReadStarted,
)
from ...session.user_history import add_recent_checkpoint
from ...session.viewer_session import ViewerSession
from ...widgets.gl_compat import import_torch
from ...widgets.signal_connections import SignalConnections
from ...worker import JobFailure, JobRunner
from ..quality.quality_controller import QualityController
from .checkpoint_store import check_save_path, move_checkpoint, new_checkpoint_path
from .export_sections import SectionSnapshot, snapshot_sections, write_sections

if TYPE_CHECKING:
    from ....model import Checkpoint
    from ..quality.data.loaded_section import LoadedSection


class FinetuneState(StrEnum):
    """What the process is doing."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    UNSAVED = "unsaved"  # done, and waiting for a place where its result can be written


@dataclass(frozen=True)
class FinetuneRequest:
    """What Start asks for; sections teach, others are only measured before and after."""

    sections: tuple[LoadedSection, ...]
    other_sections: tuple[LoadedSection, ...] = ()
    settings: FinetuneSettings = field(default_factory=FinetuneSettings)
    new_genes_path: Path | None = None


class FinetuneController:
    """Starts, follows and ends one run at a time; all signals come in the GUI thread."""

    changed = Signal()  # state, stage, result, saved
    epoch_finished = Signal()  # `curve` is longer
    gene_map_received = Signal(object)  # a GeneMap
    message_changed = Signal(str, bool)  # a sentence, and whether it alarms

    def __init__(
        self, session: ViewerSession, quality: QualityController, connections: SignalConnections
    ) -> None:
        self.session, self._quality = session, quality
        self.command: Sequence[str] = FINETUNE_COMMAND
        self.state = FinetuneState.IDLE
        self.stage = ""  # what is being done before the first epoch
        self.start_event: FinetuneStarted | None = None
        self.epochs: tuple[EpochFinished, ...] = ()
        self.result: FinetuneFinished | None = None
        self.parent_checkpoint: Checkpoint | None = None
        self.tuned_checkpoint: Checkpoint | None = None  # once it is loaded
        self.checkpoint_path: Path | None = None  # where the result lies
        self.keep_checkpoint = False  # it is better, or somebody wanted it: it stays on disk
        self.training_sections: tuple[SectionSnapshot, ...] = ()
        self._gene = ""
        self._process: FinetuneProcess | None = None
        self._process_runner, self._file_runner = (
            JobRunner("fine-tuning"),
            JobRunner("fine-tuned checkpoint"),
        )
        connections.connect(
            self._stop_if_section_removed, quality.sections_changed, session.slides_changed
        )

    @property
    def busy(self) -> bool:
        return self.state is not FinetuneState.IDLE

    # ---- asked for -----------------------------------------------------------------------

    def start(self, request: FinetuneRequest) -> None:
        """Begin. Raises a DkanError saying what is missing."""
        parent = self.session.checkpoint
        if self.busy:
            return
        if parent is None or parent.path is None:
            raise SpotsError("The checkpoint is still being loaded; try again in a moment.")
        if not request.sections:
            raise SpotsError("Tick a section to learn from, or load measured ST.")
        teaching = snapshot_sections(request.sections)
        others = snapshot_sections(request.other_sections, teaching)
        out = new_checkpoint_path(parent.path, [h.name for h in teaching])
        self._reset()
        process = self._process = FinetuneProcess(self.command)
        self.parent_checkpoint, self.training_sections, self.checkpoint_path = parent, teaching, out
        path, gene = parent.path, self._gene

        def job() -> Iterator[FinetuneEvent]:
            with TemporaryDirectory(prefix="napari-dkan-", ignore_cleanup_errors=True) as made_for:
                folder = Path(made_for) / "sections"  # the name goes on the card
                write_sections((*teaching, *others), folder)
                names = [h.name for h in teaching]
                made = build_finetune_arguments(path, folder, names, request.settings, out)
                if others:
                    made += ["--others", ",".join(h.name for h in others)]
                if request.new_genes_path is not None:
                    made += ["--new-genes", str(request.new_genes_path)]
                process.start(made, out)
                if gene:
                    process.request_gene_map(gene)
                yield from process.events()

        self._set_state(FinetuneState.STARTING, "handing over the sections")
        self.message_changed.emit("", False)
        self._process_runner.start(job, self._on_event, self._on_process_finished)

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
            self._discard_run()
            self.message_changed.emit("Stopped before it began.", False)
            return
        process.stop()
        self._set_state(FinetuneState.STOPPING, "keeping the best so far")

    def set_map_gene(self, gene: str) -> None:
        """The gene whose map comes with every epoch; "" for none."""
        self._gene = gene
        if self._process is not None:
            self._process.request_gene_map(gene)

    def choose_checkpoint(self, tuned: bool) -> None:
        """Choose the fine-tuned checkpoint, or the one it was made from."""
        wanted = self.tuned_checkpoint if tuned else self.parent_checkpoint
        if wanted is not None:
            self.keep_checkpoint |= tuned
            if tuned and wanted.path is not None:
                add_recent_checkpoint(wanted.path)
            self.session.set_checkpoint(wanted)

    def save_as(self, path: Path) -> None:
        """Give the result its lasting place, and use it from there.

        Raises OutputError when that is the place of its parent.
        """
        kept, parent = self.checkpoint_path, self.parent_checkpoint
        if kept is None or parent is None or parent.path is None:
            return
        check_save_path(path, parent.path)
        if self.state is FinetuneState.UNSAVED and self._process is not None:
            self.checkpoint_path, self.keep_checkpoint = path, True
            self._process.save_to(path)
            return

        def end(failure: JobFailure | None) -> None:
            if failure is not None:
                self.message_changed.emit(f"{failure.message} It is still kept.", True)
                return
            self.checkpoint_path, self.keep_checkpoint = path, True
            self.message_changed.emit(f"Saved as {path}.", False)
            self._load_checkpoint(path, use=True)

        def job() -> Iterator[None]:
            move_checkpoint(kept, path)
            yield None

        self._file_runner.start(job, lambda item: None, end)

    def close(self) -> None:
        """End whatever runs; no process, thread or half-made file is left."""
        self._discard_run()
        self._file_runner.cancel()
        self._process_runner.wait()
        self._file_runner.wait()
        self._reset()

    # ---- followed ------------------------------------------------------------------------

    def _on_event(self, event: FinetuneEvent) -> None:
        if isinstance(event, SectionReadStarted):
            self._set_state(self.state, f"reading {event.section} ({event.done + 1} of {event.of})")
        elif isinstance(event, FinetuneStarted):
            self.start_event = event
            self._set_state(
                FinetuneState.RUNNING if self.state is FinetuneState.STARTING else self.state, ""
            )
        elif isinstance(event, EpochFinished):
            self.epochs = (*self.epochs, event)
            self.epoch_finished.emit()
        elif isinstance(event, GeneMapComputed):
            self.gene_map_received.emit(event)
        elif (
            isinstance(event, FinetunePaused | FinetuneResumed)
            and self.state is not FinetuneState.STOPPING
        ):
            self._set_state(
                FinetuneState.PAUSED
                if isinstance(event, FinetunePaused)
                else FinetuneState.RUNNING,
                "",
            )
        elif isinstance(event, SaveFailed):
            self._set_state(FinetuneState.UNSAVED, "")
            self.message_changed.emit(f"{event.sentence} The result waits: press Save as...", True)
        elif isinstance(event, FinetuneFailed):
            self.message_changed.emit(event.sentence, True)
        elif isinstance(event, FinetuneFinished):
            self.result, self.checkpoint_path = event, Path(event.path)

    def _on_process_finished(self, failure: JobFailure | None) -> None:
        self._process = None
        self._set_state(FinetuneState.IDLE, "")
        if failure is not None:
            self.message_changed.emit(failure.message, True)
        if self.checkpoint_path is not None and self.checkpoint_path.is_file():
            better = self.result is not None and self.result.better
            self.keep_checkpoint |= (
                better or failure is not None
            )  # what a crash left is not thrown away
            self._load_checkpoint(self.checkpoint_path, use=better)

    def _load_checkpoint(self, path: Path, use: bool) -> None:
        loaded: list[Checkpoint] = []

        def job() -> Iterator[None]:
            import_torch()
            from ....model import load_checkpoint

            loaded.append(load_checkpoint(path))
            yield None

        def end(failure: JobFailure | None) -> None:
            if failure is not None:
                self.message_changed.emit(failure.message, True)
                return
            self.tuned_checkpoint = loaded[0]
            if use:
                self.choose_checkpoint(tuned=True)
            self.changed.emit()

        self._file_runner.start(job, lambda item: None, end)

    def _stop_if_section_removed(self) -> None:
        """A section that teaches was removed, or its slide closed: there is nobody to learn for."""
        if self.state in (FinetuneState.IDLE, FinetuneState.STOPPING, FinetuneState.UNSAVED):
            return
        there, slides = self._quality.sections, self.session.slides
        gone = [
            h for h in self.training_sections if h.section not in there or h.slide not in slides
        ]
        if gone:
            name = gone[0].section.name
            self.stop()
            self.message_changed.emit(
                f"{name} was removed: fine-tuning stops and keeps its best.", True
            )

    # ---- ended ---------------------------------------------------------------------------

    def _set_state(self, state: FinetuneState, stage: str) -> None:
        self.state, self.stage = state, stage
        self.changed.emit()

    def _discard_run(self) -> None:
        """End a run that nobody wants the result of."""
        if self._process is not None:
            self._process_runner.cancel()
            self._process.kill()
            self._process = None
            self._set_state(FinetuneState.IDLE, "")

    def _reset(self) -> None:
        """The run before: its file goes unless it was better or wanted."""
        if self.checkpoint_path is not None and not self.keep_checkpoint:
            with suppress(OSError):
                self.checkpoint_path.unlink(missing_ok=True)
        self.start_event = self.result = self.parent_checkpoint = self.tuned_checkpoint = (
            self.checkpoint_path
        ) = None
        self.epochs, self.training_sections, self.keep_checkpoint = (), (), False
