"""Events and commands of a running fine-tuning: one JSON object a line with `finetune --events`.

Events on stdout, in this order: ``reading`` for each section, ``started``, then ``epoch`` repeatedly
(with ``map`` after each epoch where a gene was requested, ``paused`` and ``resumed`` in between), and
last either ``finished`` or ``failed``. If the result cannot be written (a full disk), ``unsaved`` is
sent and the result stays in memory until ``save PATH`` or ``stop`` arrives.

Commands on stdin, one line each: ``pause``, ``resume``, ``stop`` (keeps the best epoch), ``gene
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
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import OutputError

if TYPE_CHECKING:
    from ...model import Checkpoint


@dataclass(frozen=True)
class FinetuneEvent:
    """One of those below; `to_json` gives its line."""

    name: ClassVar[str] = ""

    def to_json(self) -> str:
        values = {f.name: _to_json_value(getattr(self, f.name)) for f in fields(self)}
        return json.dumps({"event": self.name, **values}, allow_nan=False)


@dataclass(frozen=True)
class SectionReadStarted(FinetuneEvent):
    """The pixels of a section are about to be read; done : sections before it, of so many."""

    name: ClassVar[str] = "reading"
    section: str
    done: int
    of: int


@dataclass(frozen=True)
class FinetuneStarted(FinetuneEvent):
    """Counts of spots: to fit, to choose the epoch by, held out for the report, left between.

    adapt : what is adapted, never "auto". epochs : at most, None when only the clock limits it.
    pcc : of the checkpoint as it was, on the spots that choose.
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


@dataclass(frozen=True)
class EpochFinished(FinetuneEvent):
    """number : from 1. loss : on the fitted spots. pcc : PCC-ALL on the spots that choose the
    epoch, which are not those reported on. seconds : since the first epoch began; left : about so
    many to go. best : the epoch that is kept so far, 0 for the checkpoint as it was."""

    name: ClassVar[str] = "epoch"
    number: int
    loss: float | None
    pcc: float | None
    seconds: float
    left: float | None
    best: int


@dataclass(frozen=True)
class GeneMapComputed(FinetuneEvent):
    """values : of the gene at every spot of the section as it was handed over, in its order, on
    the label scale; None where a spot has no label."""

    name: ClassVar[str] = "map"
    section: str
    gene: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class FinetunePaused(FinetuneEvent):
    """It waits for ``resume`` or ``stop``."""

    name: ClassVar[str] = "paused"


@dataclass(frozen=True)
class FinetuneResumed(FinetuneEvent):
    """It goes on."""

    name: ClassVar[str] = "resumed"


@dataclass(frozen=True)
class SaveFailed(FinetuneEvent):
    """The result could not be written; it is kept until ``save PATH`` or ``stop``."""

    name: ClassVar[str] = "unsaved"
    sentence: str


@dataclass(frozen=True)
class FinetuneFinished(FinetuneEvent):
    """path : of the checkpoint. report : the JSON that `--report` writes."""

    name: ClassVar[str] = "finished"
    better: bool
    verdict: str
    path: str
    report: dict[str, Any]


@dataclass(frozen=True)
class FinetuneFailed(FinetuneEvent):
    """Nothing came of it."""

    name: ClassVar[str] = "failed"
    sentence: str


def _to_json_value(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, (list, tuple)):
        return [_to_json_value(v) for v in value]
    if isinstance(value, dict):
        return {k: _to_json_value(v) for k, v in value.items()}
    return value


class FinetuneControl:
    """Pause, resume, stop, and the gene whose map is wanted."""

    def __init__(self) -> None:
        self._running, self._stopped = Flag(), Flag()
        self._running.set()
        self.requested_gene: str | None = None

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def pause(self) -> None:
        """It waits after the epoch it is in."""
        if not self.is_stopped:
            self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def stop(self) -> None:
        """It ends after the epoch it is in, paused or not; the best so far is kept."""
        self._stopped.set()
        self._running.set()

    def wait_while_paused(self, on_event: Callable[[FinetuneEvent], None]) -> None:
        """Called between epochs: waits for as long as it is paused."""
        if self._running.is_set():
            return
        on_event(FinetunePaused())
        self._running.wait()
        if not self.is_stopped:
            on_event(FinetuneResumed())


SaveFunction = Callable[[Path, "Checkpoint"], "Checkpoint"]


class TuningProtocol:
    """machine : JSON lines on stdout and commands from stdin; else words for a person.

    echo : prints a line; with ``err=True`` to stderr.
    """

    def __init__(self, is_machine_readable: bool, echo: Callable[..., None]) -> None:
        self.is_machine_readable, self._echo = is_machine_readable, echo
        self.control = FinetuneControl()
        self._save_paths: SimpleQueue[str | None] = SimpleQueue()  # None: give up
        self._is_unsaved = self._is_disconnected = False
        if is_machine_readable:
            Thread(target=self._read_commands, name="commands", daemon=True).start()

    def send_event(self, event: FinetuneEvent) -> None:
        if self.is_machine_readable:
            sys.stdout.write(event.to_json() + "\n")
            sys.stdout.flush()
            return
        words = _format_event(event)
        if words:
            self._echo(words, err=not isinstance(event, FinetuneFinished))

    def save_with_retry(self, checkpoint: Checkpoint, out: Path, save: SaveFunction) -> Path:
        """Where it was written; with a program at the other end, it may name another place.

        Raises OutputError when it could not be written and no other place was named.
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
                place = None if self._is_disconnected else self._save_paths.get()
                if place is None:
                    raise
                out = Path(place)

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
        self.control.stop()  # whoever asked for it is gone
        self._save_paths.put(None)


def _format_event(event: FinetuneEvent) -> str:
    if isinstance(event, SectionReadStarted):
        return f"reading {event.section} ({event.done + 1} of {event.of})"
    if isinstance(event, FinetuneStarted):
        return (
            f"{event.spots} spots teach, {event.held_out} are held out, {event.between} lie "
            f"between; adapting {event.adapt}"
        )
    if isinstance(event, EpochFinished):
        loss, pcc = (f"{v:.4f}" for v in (_nan_if_none(event.loss), _nan_if_none(event.pcc)))
        return f"epoch {event.number}: loss {loss}, PCC {pcc}, best epoch {event.best}"
    if isinstance(event, FinetuneFinished):
        return f"{event.verdict}\nwritten to {event.path}"
    return ""


def _nan_if_none(value: float | None) -> float:
    return float("nan") if value is None else value
