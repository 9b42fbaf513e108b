"""A worker process: takes jobs from a pipe, one after the other, and tells what comes of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from .events import EVERY, Ended, Tick
from .places import Place

if TYPE_CHECKING:
    from ..inference.job import Update

READY = "ready"


def serve(pipe: Connection, place: Place) -> None:
    """Live until the pipe closes; with it gone, as when the parent was killed, nothing goes on."""
    os.environ.update(place.environment)  # before torch looks at it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # tidies half-written files
    import torch

    from .task import Stopped, attempt

    torch.set_num_threads(place.threads)
    try:
        pipe.send(READY)
        while True:
            index, job, again = pipe.recv()
            outcome = attempt(replace(job, device=place.device), ticking(index, pipe.send), again)
            pipe.send(Ended(index, outcome))
    except (EOFError, OSError, Stopped):
        return


def ticking(index: int, send: Callable[[Tick], None], every: float = EVERY) -> Callable:
    """A function for updates of a job that sends a Tick now and then.

    What ``send`` raises because nobody listens becomes Stopped.
    """
    from .task import Stopped

    last = 0.0

    def watch(update: Update) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every:
            return
        last = now
        try:
            send(Tick(index, update.done, update.total, update.stage == "context"))
        except OSError as error:
            raise Stopped from error

    return watch
