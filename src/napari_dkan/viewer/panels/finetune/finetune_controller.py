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

from ....errors import FewGenesError, SpotsError
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
    """Settings of a run.

    Attributes
    ----------
    sections : tuple of LoadedSection
        Sections to train on.
    other_sections : tuple of LoadedSection
        Sections that are only evaluated before and after.
    settings : FinetuneSettings
    new_genes_path : Path or None
        Gene file with genes that join the panel.
    """

    sections: tuple[LoadedSection, ...]
    other_sections: tuple[LoadedSection, ...] = ()
    settings: FinetuneSettings = field(default_factory=FinetuneSettings)
    new_genes_path: Path | None = None


class FinetuneController:
    """Starts, follows and ends one run at a time.

    All signals are emitted in the GUI thread.

    Attributes
    ----------
    command : sequence of str
        Starts the fine-tuning process.
    state : FinetuneState
    stage : str
        What is being done before the first epoch.
    start_event : FinetuneStarted or None
    epochs : tuple of EpochFinished
    result : FinetuneFinished or None
    parent_checkpoint, tuned_checkpoint : Checkpoint or None
        The latter is set once it is loaded.
    checkpoint_path : Path or None
        File of the result.
    keep_checkpoint : bool
        The result is better or was chosen by the user: its file is not deleted.
    training_sections : tuple of SectionSnapshot
    """

    changed = Signal()  # state, stage, result, tuned_checkpoint
    epoch_finished = Signal()  # `epochs` is longer
    gene_map_received = Signal(object)  # a GeneMapComputed
    message_changed = Signal(str, bool)  # a sentence, and whether it is a warning

    def __init__(self, quality: QualityController, connections: SignalConnections) -> None:
        model = quality.model
        self.session, self._model, self._quality = model.session, model, quality
        self.command: Sequence[str] = FINETUNE_COMMAND
        self.state = FinetuneState.IDLE
        self.stage = ""
        self.start_event: FinetuneStarted | None = None
        self.epochs: tuple[EpochFinished, ...] = ()
        self.result: FinetuneFinished | None = None
        self.parent_checkpoint: Checkpoint | None = None
        self.tuned_checkpoint: Checkpoint | None = None
        self.checkpoint_path: Path | None = None
        self.keep_checkpoint = False
        self.training_sections: tuple[SectionSnapshot, ...] = ()
        self._gene = ""
        self._process: FinetuneProcess | None = None
        self._process_runner = JobRunner("fine-tuning")
        self._file_runner = JobRunner("fine-tuned checkpoint")
        connections.connect(
            self._stop_if_section_removed, model.sections_changed, model.session.slides_changed
        )

    @property
    def busy(self) -> bool:
        return self.state is not FinetuneState.IDLE

    @property
    def is_file_job_running(self) -> bool:
        """Whether the result is being loaded or saved."""
        return self._file_runner.busy

    @property
    def process_id(self) -> int | None:
        return None if self._process is None else self._process.pid

    # ---- commands ------------------------------------------------------------------------

    def start(self, request: FinetuneRequest) -> None:
        """Start a run.

        Raises
        ------
        DkanError
            Something is missing; the message says what.
        """
        parent = self.session.checkpoint
        if self.busy:
            return
        if parent is None or parent.path is None:
            raise SpotsError("The checkpoint is still being loaded; try again in a moment.")
        if not request.sections:
            raise SpotsError("Tick a section to learn from, or load measured ST.")
        training = snapshot_sections(request.sections)
        others = snapshot_sections(request.other_sections, training)
        sections = [snapshot.section for snapshot in (*training, *others)]
        self._require_genes(sections, parent)
        names = [s.name for s in training]
        output_path = new_checkpoint_path(parent.path, names)
        self._reset()
        process = self._process = FinetuneProcess(self.command)
        self.parent_checkpoint, self.training_sections = parent, training
        self.checkpoint_path = output_path
        parent_path, gene, device = parent.path, self._gene, self.session.settings.device

        def job() -> Iterator[FinetuneEvent]:
            with TemporaryDirectory(prefix="napari-dkan-", ignore_cleanup_errors=True) as temporary:
                folder = Path(temporary) / "sections"  # the name is recorded in the card
                write_sections((*training, *others), folder)
                arguments = build_finetune_arguments(
                    parent_path, folder, names, request.settings, output_path, device
                )
                if others:
                    arguments += ["--others", ",".join(s.name for s in others)]
                if any(section.accepts_few_genes for section in sections):
                    arguments.append("--few-genes")  # every other section is checked already
                if request.new_genes_path is not None:
                    arguments += ["--new-genes", str(request.new_genes_path)]
                process.start(arguments, output_path)
                if gene:
                    process.request_gene_map(gene)
                yield from process.events()

        self._set_state(FinetuneState.STARTING, "handing over the sections")
        self.message_changed.emit("", False)
        self._process_runner.start(job, self._on_event, self._on_process_finished)

    def _require_genes(self, sections: Sequence[LoadedSection], parent: Checkpoint) -> None:
        """Raise SpotsError for a section with few genes, unless the user accepts it."""
        from ....training.data.measured_section import match_panel_columns, require_panel_genes

        for section in sections:
            columns = match_panel_columns(parent.panel, section.data)
            n_measured = sum(column is not None for column in columns)
            try:
                require_panel_genes(
                    section.data, parent.panel, n_measured, section.accepts_few_genes
                )
            except FewGenesError as error:
                self._quality.set_few_genes_refusal(section, error.finding)
                raise

    def pause(self) -> None:
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        if self._process is not None:
            self._process.resume()

    def stop(self) -> None:
        """Stop and keep the best epoch so far."""
        process = self._process
        if not self.busy or process is None:
            return
        if process.pid is None:  # the process has not started
            self._discard_run()
            self.message_changed.emit("Stopped before it began.", False)
            return
        process.stop()
        self._set_state(FinetuneState.STOPPING, "keeping the best so far")

    def set_map_gene(self, gene: str) -> None:
        """Request the map of a gene after every epoch; "" for none."""
        self._gene = gene
        if self._process is not None:
            self._process.request_gene_map(gene)

    def choose_checkpoint(self, tuned: bool) -> None:
        """Use the fine-tuned checkpoint, or the one it was made from, in the session."""
        checkpoint = self.tuned_checkpoint if tuned else self.parent_checkpoint
        if checkpoint is not None:
            self.keep_checkpoint |= tuned
            if tuned and checkpoint.path is not None:
                add_recent_checkpoint(checkpoint.path)
            self.session.set_checkpoint(checkpoint)

    def save_as(self, path: Path) -> None:
        """Move the result to a path and use it from there.

        Raises
        ------
        OutputError
            The path is that of the parent checkpoint.
        """
        source, parent = self.checkpoint_path, self.parent_checkpoint
        if source is None or parent is None or parent.path is None:
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
            move_checkpoint(source, path)
            yield None

        self._file_runner.start(job, lambda item: None, end)

    def close(self) -> None:
        """End the run and leave no process, thread or temporary file behind."""
        self._discard_run()
        self._file_runner.cancel()
        self.wait()
        self._reset()

    def wait(self, seconds: float = 10.0) -> bool:
        """Wait for the worker threads; return whether they have ended."""
        has_process_ended = self._process_runner.wait(seconds)
        return self._file_runner.wait(seconds) and has_process_ended

    # ---- events of the process -----------------------------------------------------------

    def _on_event(self, event: FinetuneEvent) -> None:
        if isinstance(event, SectionReadStarted):
            self._set_state(self.state, f"reading {event.section} ({event.done + 1} of {event.of})")
        elif isinstance(event, FinetuneStarted):
            self.start_event = event
            is_starting = self.state is FinetuneState.STARTING
            self._set_state(FinetuneState.RUNNING if is_starting else self.state, "")
        elif isinstance(event, EpochFinished):
            self.epochs = (*self.epochs, event)
            self.epoch_finished.emit()
        elif isinstance(event, GeneMapComputed):
            self.gene_map_received.emit(event)
        elif isinstance(event, FinetunePaused | FinetuneResumed):
            is_paused = isinstance(event, FinetunePaused)
            if self.state is not FinetuneState.STOPPING:
                self._set_state(FinetuneState.PAUSED if is_paused else FinetuneState.RUNNING, "")
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
            is_better = self.result is not None and self.result.better
            # Also after a crash: the process saves its best epoch while it runs.
            self.keep_checkpoint |= is_better or failure is not None
            self._load_checkpoint(self.checkpoint_path, use=is_better)

    def _load_checkpoint(self, path: Path, use: bool) -> None:
        def job() -> Iterator[Checkpoint]:
            import_torch()
            from ....model import load_checkpoint

            yield load_checkpoint(path)

        def receive(checkpoint: Checkpoint) -> None:
            self.tuned_checkpoint = checkpoint

        def end(failure: JobFailure | None) -> None:
            if failure is not None:
                self.message_changed.emit(failure.message, True)
                return
            if use:
                self.choose_checkpoint(tuned=True)
            self.changed.emit()

        self._file_runner.start(job, receive, end)

    def _stop_if_section_removed(self) -> None:
        """Stop when a training section is removed or its slide is closed."""
        if self.state in (FinetuneState.IDLE, FinetuneState.STOPPING, FinetuneState.UNSAVED):
            return
        sections, slides = self._model.sections, self.session.slides
        removed = [
            s for s in self.training_sections if s.section not in sections or s.slide not in slides
        ]
        if removed:
            name = removed[0].section.name
            self.stop()
            self.message_changed.emit(
                f"{name} was removed: fine-tuning stops and keeps its best.", True
            )

    # ---- state ---------------------------------------------------------------------------

    def _set_state(self, state: FinetuneState, stage: str) -> None:
        self.state, self.stage = state, stage
        self.changed.emit()

    def _discard_run(self) -> None:
        """End a run and drop its result."""
        if self._process is not None:
            self._process_runner.cancel()
            self._process.kill()
            self._process = None
            self._set_state(FinetuneState.IDLE, "")

    def _reset(self) -> None:
        """Forget the previous run; its file is deleted unless it is to be kept."""
        if self.checkpoint_path is not None and not self.keep_checkpoint:
            with suppress(OSError):
                self.checkpoint_path.unlink(missing_ok=True)
        self.start_event, self.result, self.checkpoint_path = None, None, None
        self.parent_checkpoint = self.tuned_checkpoint = None
        self.epochs, self.training_sections, self.keep_checkpoint = (), (), False
