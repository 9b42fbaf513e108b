"""Events out, commands in: of `napari-dkan finetune`, for a program or for a person."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from ...errors import OutputError
from .control import FinetuneControl
from .events import EpochFinished, FinetuneEvent, FinetuneFinished, SectionReadStarted, FinetuneStarted, SaveFailed

if TYPE_CHECKING:
    from ...model import Checkpoint

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
