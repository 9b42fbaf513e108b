"""Fine-tuning in a process of its own: what it is told, what it tells, how it ends.

It runs ``napari-dkan finetune --events``: JSON objects come out, one a line, and short
commands go in. GPU memory returns when it ends, and a crash stays in it. It never outlives
the process that started it: its input closes then, and that ends it.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import psutil

from ...errors import TuneError
from .events import (
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
from .settings import TuneSettings

COMMAND = (sys.executable, "-P", "-m", "napari_dkan", "finetune")  # -P: nothing of the folder
EVENTS: dict[str, type[Event]] = {
    e.name: e
    for e in (Reading, Started, EpochDone, GeneMap, Paused, Resumed, Unsaved, Finished, Failed)
}
LONGEST = 64 * 2**20  # bytes of a line; a map of a large section is a long one
PATIENCE = 60.0  # seconds that a child may take to keep its best and end
PARTING = 10.0  # seconds to exit after the last word
_NOT_TOLD = "The fine-tuning process ended unexpectedly"


def options(
    checkpoint: Path, data: Path, sections: Sequence[str], settings: TuneSettings, out: Path
) -> list[str]:
    """The command line of ``napari-dkan finetune`` for these sections of the folder `data`."""
    limits = {"--epochs": settings.epochs, "--seconds": settings.seconds}
    return [
        *("--checkpoint", str(checkpoint), "--data", str(data), "--sections", ",".join(sections)),
        *("--out", str(out), "--adapt", settings.adapt.value),
        *("--hold-out", settings.hold_out.value, "--share", f"{settings.share:g}"),
        *("--seed", str(settings.seed)),
        *(word for key, v in limits.items() if v is not None for word in (key, f"{v:g}")),
    ]


class TuneProcess:
    """One run; it may be told things from any thread, its events are read in one.

    command : what is started, followed by the options of ``napari-dkan finetune``.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = tuple(command)
        self._child: subprocess.Popen[bytes] | None = None
        self._out = Path()
        self._complaints: deque[str] = deque(maxlen=60)  # the end of its stderr
        self._listener: threading.Thread | None = None
        self._clock: threading.Timer | None = None
        self._given_up = False
        self._lock = threading.Lock()

    def start(self, options: Sequence[str], out: Path) -> None:
        """Start it; `out` is where ``options`` make it write the checkpoint.

        Raises TuneError when the process cannot be started.
        """
        apart: dict[str, Any] = {"start_new_session": True}  # Ctrl-C is not meant for it
        if sys.platform == "win32":
            apart = {
                "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            }
        with self._lock:
            if self._given_up:
                return
            try:
                self._child = subprocess.Popen(
                    [*self._command, *options, "--events"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
                    **apart,
                )
            except OSError as error:
                raise TuneError(
                    f"The fine-tuning process could not be started ({error.strerror}); "
                    "close other programs and try again."
                ) from error
            self._out = out
            atexit.register(self.kill)
        _step_back(self._child.pid)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def events(self) -> Iterator[Event]:
        """What the child tells until it ends; lines that are no events are passed over.

        The child is gone when this ends. Ends quietly after `kill`.

        Raises TuneError when the child died by itself, saying why as far as that is known.
        """
        child = self._child
        if child is None:
            return
        assert child.stdout is not None
        try:
            for line in iter(partial(child.stdout.readline, LONGEST), b""):
                event = _event(line)
                if event is not None:
                    yield event
                    if isinstance(event, Finished | Failed):
                        return  # it has nothing more to say
            code = _wait(child)
            if not self._given_up:
                raise TuneError(self._obituary(code))
        finally:
            self._bury(child)

    # ---- what it is told ---------------------------------------------------------------

    def pause(self) -> None:
        self._tell("pause")

    def resume(self) -> None:
        self._tell("resume")

    def show(self, gene: str) -> None:
        """Ask for the map of a gene after every epoch; "" for none."""
        self._tell(f"gene {gene}")

    def save(self, path: Path) -> None:
        """Write the result here, after it could not be written where it should go."""
        self._out = path
        self._tell(f"save {path}")

    def stop(self, patience: float = PATIENCE) -> None:
        """End and keep the best so far; a child that does not is killed after `patience` s."""
        self._tell("stop")
        if self._clock is None:
            self._clock = threading.Timer(patience, self._lose_patience)
            self._clock.daemon = True
            self._clock.start()

    def kill(self) -> None:
        """End it now; may be called at any time and more than once."""
        with self._lock:
            self._given_up = True
        self._end()

    def _lose_patience(self) -> None:
        self._complaints.append("It did not stop when it was asked to.")
        self._end()

    def _end(self) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            return
        with suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                child.kill()
            else:
                os.killpg(child.pid, signal.SIGKILL)  # and whatever it started itself
        with suppress(subprocess.TimeoutExpired):
            child.wait(PARTING)

    def _tell(self, line: str) -> None:
        child = self._child
        if child is None or child.stdin is None or child.stdin.closed:
            return
        with suppress(OSError, ValueError):  # it is ending; `events` will say how
            child.stdin.write(f"{line}\n".encode())
            child.stdin.flush()

    # ---- how it ends -------------------------------------------------------------------

    def _listen(self) -> None:
        assert self._child is not None and self._child.stderr is not None
        with suppress(ValueError):  # closed under our hands
            for line in iter(partial(self._child.stderr.readline, 4096), b""):
                self._complaints.append(line.decode(errors="replace").rstrip())

    def _bury(self, child: subprocess.Popen[bytes]) -> None:
        """Whatever happened: the child is gone and its pipes are closed."""
        _close(child.stdin)
        if _wait(child) is None:
            self._end()
        if self._clock is not None:
            self._clock.cancel()
        if self._listener is not None:
            self._listener.join(2)
        for pipe in (child.stdout, child.stderr):
            _close(pipe)
        atexit.unregister(self.kill)

    def _obituary(self, code: int | None) -> str:
        """One or two sentences on a child that died without a last word."""
        if self._listener is not None:
            self._listener.join(2)
        lines = [line for line in self._complaints if line.strip()]
        last = lines[-1].strip() if lines else ""
        if code == 2 and last.startswith("napari-dkan: "):  # a sentence for the person
            return last.removeprefix("napari-dkan: ")
        kept = "was saved" if self._out.is_file() else "was not saved"
        return (
            f"{_NOT_TOLD} ({_cause(code, last)}); nothing of the open checkpoint was changed. "
            f"The best so far {kept}."
        )


def _cause(code: int | None, last: str) -> str:
    """Why it ended, from its exit code and the last line it wrote."""
    memory = any(word in last.lower() for word in ("out of memory", "memoryerror", "bad_alloc"))
    if memory:
        return "out of memory"
    if last.startswith("It did not stop"):
        return "it did not stop when it was asked to"
    if code == -9:
        return "signal 9: probably out of memory"
    if code is not None and code < 0:
        return f"signal {-code}"
    if code and last:
        return last[:200]
    return "it ended without a result" if code in (0, None) else f"exit code {code}"


def _event(line: bytes) -> Event | None:
    """The event on a line; None where a library has printed something."""
    try:
        told = json.loads(line)
        return EVENTS[told.pop("event")](**told)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None


def _wait(child: subprocess.Popen[bytes]) -> int | None:
    try:
        return child.wait(PARTING)
    except subprocess.TimeoutExpired:
        return None


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with suppress(OSError):  # flushing what a dead child will not read
            pipe.close()


def _step_back(pid: int) -> None:
    """The window comes first: the child takes what the window leaves of the processor."""
    lower = psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 5
    with suppress(psutil.Error):
        psutil.Process(pid).nice(lower)
