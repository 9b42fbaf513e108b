"""Events and commands of a running fine-tuning: one JSON object a line with `finetune --events`.

Events on stdout, in this order: ``reading`` for each section, ``started``, then ``epoch``
repeatedly (with ``map`` after each epoch where a gene was requested, ``paused`` and ``resumed`` in
between), and last either ``finished`` or ``failed``. If the result cannot be written (a full disk),
``unsaved`` is sent and the result stays in memory until ``save PATH`` or ``stop`` arrives.

Commands on stdin, one line each: ``pause``, ``resume``, ``stop`` (restores the best epoch), ``gene
SYMBOL`` (``gene`` alone: no map), ``save PATH``. End of input counts as ``stop``.

A number that does not exist is null, never NaN.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from queue import SimpleQueue
from threading import Event as ThreadEvent
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import OutputError

if TYPE_CHECKING:
    from ...model import Checkpoint


@dataclass(frozen=True)
class FinetuneEvent:
    """Base class of the events; the fields of each are the keys of its JSON object."""

    name: ClassVar[str] = ""

    def to_json(self) -> str:
        """Format the event as a line."""
        values = {f.name: _to_json_value(getattr(self, f.name)) for f in fields(self)}
        return json.dumps({"event": self.name, **values}, allow_nan=False)


@dataclass(frozen=True)
class SectionReadStarted(FinetuneEvent):
    """The pixels of a section are about to be read, after `done` sections `of` so many."""

    name: ClassVar[str] = "reading"
    section: str
    done: int
    of: int


@dataclass(frozen=True)
class FinetuneStarted(FinetuneEvent):
    """Training starts.

    Attributes
    ----------
    spots, choosing, held_out, between
        Number of training, validation, test and buffer spots.
    adapt
        Modules that are trained, never "auto".
    epochs, seconds
        Limits; None for no limit.
    pcc
        Depth-partial PCC on the validation spots at the start of training; None where nothing
        is trained.
    shallow
        Sentences about sections of far fewer counts than the checkpoint was trained on.
    plain
        Which of the closed-form fits would be kept, and why; "" where it is not known.
    device
        Where it is trained, as "the CPU"; "" where it is not known.
    """

    name: ClassVar[str] = "started"
    spots: int
    choosing: int
    held_out: int
    between: int
    adapt: str
    epochs: int | None
    seconds: float | None
    pcc: float | None
    sections: tuple[str, ...]
    genes: int
    shallow: tuple[str, ...] = ()
    plain: str = ""
    device: str = ""


@dataclass(frozen=True)
class EpochFinished(FinetuneEvent):
    """An epoch is finished.

    Attributes
    ----------
    number
        Number of the epoch, from 1.
    loss
        Loss on the training spots.
    pcc
        Depth-partial PCC on the validation spots.
    seconds, left
        Time since the first epoch began, and estimated time to the end.
    best
        Best epoch so far, 0 for the checkpoint before fine-tuning.
    """

    name: ClassVar[str] = "epoch"
    number: int
    loss: float | None
    pcc: float | None
    seconds: float
    left: float | None
    best: int


@dataclass(frozen=True)
class GeneMapComputed(FinetuneEvent):
    """Predicted values of a gene at all spots of a section, None for a spot without a label."""

    name: ClassVar[str] = "map"
    section: str
    gene: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class FinetunePaused(FinetuneEvent):
    """Training waits for ``resume`` or ``stop``."""

    name: ClassVar[str] = "paused"


@dataclass(frozen=True)
class FinetuneResumed(FinetuneEvent):
    """Training continues after a pause."""

    name: ClassVar[str] = "resumed"


@dataclass(frozen=True)
class SaveFailed(FinetuneEvent):
    """The result could not be written; it stays in memory until ``save PATH`` or ``stop``."""

    name: ClassVar[str] = "unsaved"
    sentence: str


@dataclass(frozen=True)
class FinetuneFinished(FinetuneEvent):
    """The checkpoint is written to `path`; `report` is the JSON that `--report` writes."""

    name: ClassVar[str] = "finished"
    better: bool
    verdict: str
    path: str
    report: dict[str, Any]


@dataclass(frozen=True)
class FinetuneFailed(FinetuneEvent):
    """Fine-tuning ended without a result."""

    name: ClassVar[str] = "failed"
    sentence: str


EVENT_TYPES: dict[str, type[FinetuneEvent]] = {e.name: e for e in FinetuneEvent.__subclasses__()}


def parse_event(line: bytes) -> FinetuneEvent | None:
    """Parse the event on a line; None for other output, such as that of a library."""
    try:
        values = json.loads(line)
        return EVENT_TYPES[values.pop("event")](**values)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None


def _to_json_value(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, (list, tuple)):
        return [_to_json_value(v) for v in value]
    if isinstance(value, dict):
        return {k: _to_json_value(v) for k, v in value.items()}
    return value


class FinetuneControl:
    """Pause, resume and stop of a running fine-tuning, and the gene whose map is requested."""

    def __init__(self) -> None:
        self._running, self._stopped = ThreadEvent(), ThreadEvent()
        self._running.set()
        self.requested_gene: str | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def pause(self) -> None:
        """Pause after the current epoch."""
        if not self.is_stopped:
            self._running.clear()

    def resume(self) -> None:
        """End a pause."""
        self._running.set()

    def stop(self) -> None:
        """End after the current epoch, paused or not, with the weights of the best epoch."""
        self._stopped.set()
        self._running.set()

    def wait_while_paused(self, on_event: Callable[[FinetuneEvent], None]) -> None:
        """Wait between epochs while it is paused."""
        if self._running.is_set():
            return
        on_event(FinetunePaused())
        self._running.wait()
        if not self.is_stopped:
            on_event(FinetuneResumed())


SaveFunction = Callable[[Path, "Checkpoint"], "Checkpoint"]


class TuningProtocol:
    """The side of the running fine-tuning: it sends events and receives commands.

    Parameters
    ----------
    is_machine_readable
        Whether to write JSON lines to stdout and read commands from stdin; else it prints text.
    echo
        Function that prints a line; with ``err=True`` to stderr.
    """

    def __init__(self, is_machine_readable: bool, echo: Callable[..., None]) -> None:
        self.is_machine_readable, self._echo = is_machine_readable, echo
        self.control = FinetuneControl()
        self._save_paths: SimpleQueue[str | None] = SimpleQueue()  # None: do not save
        self._is_unsaved = self._is_disconnected = False
        if is_machine_readable:
            Thread(target=self._read_commands, name="commands", daemon=True).start()

    def send_event(self, event: FinetuneEvent) -> None:
        """Write an event to stdout, as JSON or as text."""
        if self.is_machine_readable:
            sys.stdout.write(event.to_json() + "\n")
            sys.stdout.flush()
            return
        text = _format_event(event)
        if text:
            self._echo(text, err=not isinstance(event, FinetuneFinished))

    def save_with_retry(self, checkpoint: Checkpoint, out: Path, save: SaveFunction) -> Path:
        """Save a checkpoint; after a failure the parent process may give another path.

        Returns
        -------
        The path of the file.

        Raises
        ------
        OutputError
            When it could not be written and no other path was given.
        """
        while True:
            try:
                save(out, checkpoint)
                return out
            except OutputError as error:
                if not self.is_machine_readable:
                    raise
                self._is_unsaved = True
                self.send_event(SaveFailed(str(error)))
                path = None if self._is_disconnected else self._save_paths.get()
                if path is None:
                    raise
                out = Path(path)

    def _read_commands(self) -> None:
        for line in sys.stdin:
            word, _, rest = line.strip().partition(" ")
            rest = rest.strip()
            if word == "pause":
                self.control.pause()
            elif word == "resume":
                self.control.resume()
            elif word == "stop":
                self.control.stop()
                if self._is_unsaved:
                    self._save_paths.put(None)
            elif word == "gene":
                self.control.requested_gene = rest or None
            elif word == "save" and rest:
                self._save_paths.put(rest)
        self._is_disconnected = True
        self.control.stop()  # the parent process has ended
        self._save_paths.put(None)


def _format_event(event: FinetuneEvent) -> str:
    if isinstance(event, SectionReadStarted):
        return f"reading {event.section} ({event.done + 1} of {event.of})"
    if isinstance(event, FinetuneStarted):
        spots = (
            f"{event.spots} training spots, {event.held_out} held out, {event.between} between; "
            f"adapting {event.adapt}{f' on {event.device}' if event.device else ''}"
        )
        return "\n".join(t for t in (*event.shallow, spots, event.plain) if t)
    if isinstance(event, EpochFinished):
        loss, pcc = (f"{v:.4f}" for v in (_nan_if_none(event.loss), _nan_if_none(event.pcc)))
        return f"epoch {event.number}: loss {loss}, PCC {pcc}, best epoch {event.best}"
    if isinstance(event, FinetuneFinished):
        return f"{event.verdict}\nwritten to {event.path}"
    return ""


def _nan_if_none(value: float | None) -> float:
    return float("nan") if value is None else value
