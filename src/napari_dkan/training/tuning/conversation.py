"""Events out, commands in: of `napari-dkan finetune`, for a program or for a person."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from ...errors import OutputError
from .control import Control
from .events import EpochDone, Event, Finished, Reading, Started, Unsaved

if TYPE_CHECKING:
    from ...model import Checkpoint

Save = Callable[[Path, "Checkpoint"], "Checkpoint"]


class Conversation:
    """machine : JSON lines on stdout and commands from stdin; else words for a person.

    echo : prints a line; with ``err=True`` to stderr.
    """

    def __init__(self, machine: bool, echo: Callable[..., None]) -> None:
        self.machine, self._echo = machine, echo
        self.control = Control()
        self._places: SimpleQueue[str | None] = SimpleQueue()  # None: give up
        self._unsaved = self._alone = False
        if machine:
            Thread(target=self._listen, name="commands", daemon=True).start()

    def tell(self, event: Event) -> None:
        if self.machine:
            sys.stdout.write(event.to_json() + "\n")
            sys.stdout.flush()
            return
        words = _words(event)
        if words:
            self._echo(words, err=not isinstance(event, Finished))

    def saved(self, checkpoint: Checkpoint, out: Path, save: Save) -> Path:
        """Where it was written; with a program at the other end, it may name another place.

        Raises OutputError when it could not be written and no other place was named.
        """
        while True:
            try:
                save(out, checkpoint)
                return out
            except OutputError as error:
                if not self.machine:
                    raise
                self._unsaved = True
                self.tell(Unsaved(str(error)))
                place = None if self._alone else self._places.get()
                if place is None:
                    raise
                out = Path(place)

    def _listen(self) -> None:
        for line in sys.stdin:
            word, _, rest = line.strip().partition(" ")
            rest = rest.strip()
            if word == "pause":
                self.control.pause()
            elif word == "resume":
                self.control.resume()
            elif word == "stop":
                self.control.stop()
                if self._unsaved:
                    self._places.put(None)
            elif word == "gene":
                self.control.gene = rest or None
            elif word == "save" and rest:
                self._places.put(rest)
        self._alone = True
        self.control.stop()  # whoever asked for it is gone
        self._places.put(None)


def _words(event: Event) -> str:
    if isinstance(event, Reading):
        return f"reading {event.section} ({event.done + 1} of {event.of})"
    if isinstance(event, Started):
        return (
            f"{event.spots} spots teach, {event.held_out} are held out, {event.between} lie "
            f"between; adapting {event.adapt}"
        )
    if isinstance(event, EpochDone):
        loss, pcc = (f"{v:.4f}" for v in (_nan(event.loss), _nan(event.pcc)))
        return f"epoch {event.number}: loss {loss}, PCC {pcc}, best epoch {event.best}"
    if isinstance(event, Finished):
        return f"{event.verdict}\nwritten to {event.path}"
    return ""


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
