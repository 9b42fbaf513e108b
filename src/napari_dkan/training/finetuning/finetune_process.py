"""Run ``napari-dkan finetune --events`` in a child process.

The child releases its GPU memory when it ends, and a crash does not affect the parent. The child
never outlives the parent: its stdin closes, which ends it.
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

from ...errors import FinetuneError
from .finetune_settings import FinetuneSettings
from .tuning_protocol import (
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

FINETUNE_COMMAND = (
    sys.executable,
    "-P",
    "-m",
    "napari_dkan",
    "finetune",
)  # -P: nothing of the folder
EVENT_TYPES: dict[str, type[FinetuneEvent]] = {
    e.name: e
    for e in (
        SectionReadStarted,
        FinetuneStarted,
        EpochFinished,
        GeneMapComputed,
        FinetunePaused,
        FinetuneResumed,
        SaveFailed,
        FinetuneFinished,
        FinetuneFailed,
    )
}
MAX_LINE_BYTES = 64 * 2**20  # bytes of a line; a map of a large section is a long one
STOP_TIMEOUT = 60.0  # seconds that a child may take to keep its best and end
EXIT_TIMEOUT = 10.0  # seconds to exit after the last word
_UNEXPECTED_END = "The fine-tuning process ended unexpectedly"


def build_finetune_arguments(
    checkpoint: Path, data: Path, sections: Sequence[str], settings: FinetuneSettings, out: Path
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


class FinetuneProcess:
    """One run; it may be told things from any thread, its events are read in one.

    command : what is started, followed by the options of ``napari-dkan finetune``.
    """

    def __init__(self, command: Sequence[str] = FINETUNE_COMMAND) -> None:
        self._command = tuple(command)
        self._child: subprocess.Popen[bytes] | None = None
        self._checkpoint_path = Path()
        self._stderr_lines: deque[str] = deque(maxlen=60)  # the end of its stderr
        self._stderr_thread: threading.Thread | None = None
        self._stop_timer: threading.Timer | None = None
        self._is_killed = False
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
            if self._is_killed:
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
                raise FinetuneError(
                    f"The fine-tuning process could not be started ({error.strerror}); "
                    "close other programs and try again."
                ) from error
            self._checkpoint_path = out
            atexit.register(self.kill)
        _lower_priority(self._child.pid)
        self._stderr_thread = threading.Thread(target=self._read_stderr, daemon=True)
        self._stderr_thread.start()

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def events(self) -> Iterator[FinetuneEvent]:
        """What the child tells until it ends; lines that are no events are passed over.

        The child is gone when this ends. Ends quietly after `kill`.

        Raises TuneError when the child died by itself, saying why as far as that is known.
        """
        child = self._child
        if child is None:
            return
        assert child.stdout is not None
        try:
            for line in iter(partial(child.stdout.readline, MAX_LINE_BYTES), b""):
                event = _parse_event(line)
                if event is not None:
                    yield event
                    if isinstance(event, FinetuneFinished | FinetuneFailed):
                        return  # it has nothing more to say
            code = _wait_for_exit(child)
            if not self._is_killed:
                raise FinetuneError(self._format_failure(code))
        finally:
            self._clean_up(child)

    # ---- what it is told ---------------------------------------------------------------

    def pause(self) -> None:
        self._send_command("pause")

    def resume(self) -> None:
        self._send_command("resume")

    def request_gene_map(self, gene: str) -> None:
        """Ask for the map of a gene after every epoch; "" for none."""
        self._send_command(f"gene {gene}")

    def save_to(self, path: Path) -> None:
        """Write the result here, after it could not be written where it should go."""
        self._checkpoint_path = path
        self._send_command(f"save {path}")

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """End and keep the best so far; a child that does not is killed after `patience` s."""
        self._send_command("stop")
        if self._stop_timer is None:
            self._stop_timer = threading.Timer(timeout, self._kill_after_timeout)
            self._stop_timer.daemon = True
            self._stop_timer.start()

    def kill(self) -> None:
        """End it now; may be called at any time and more than once."""
        with self._lock:
            self._is_killed = True
        self._kill_child()

    def _kill_after_timeout(self) -> None:
        self._stderr_lines.append("It did not stop when it was asked to.")
        self._kill_child()

    def _kill_child(self) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            return
        with suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                child.kill()
            else:
                os.killpg(child.pid, signal.SIGKILL)  # and whatever it started itself
        with suppress(subprocess.TimeoutExpired):
            child.wait(EXIT_TIMEOUT)

    def _send_command(self, line: str) -> None:
        child = self._child
        if child is None or child.stdin is None or child.stdin.closed:
            return
        with suppress(OSError, ValueError):  # it is ending; `events` will say how
            child.stdin.write(f"{line}\n".encode())
            child.stdin.flush()

    # ---- how it ends -------------------------------------------------------------------

    def _read_stderr(self) -> None:
        assert self._child is not None and self._child.stderr is not None
        with suppress(ValueError):  # closed under our hands
            for line in iter(partial(self._child.stderr.readline, 4096), b""):
                self._stderr_lines.append(line.decode(errors="replace").rstrip())

    def _clean_up(self, child: subprocess.Popen[bytes]) -> None:
        """Whatever happened: the child is gone and its pipes are closed."""
        _close_pipe(child.stdin)
        if _wait_for_exit(child) is None:
            self._kill_child()
        if self._stop_timer is not None:
            self._stop_timer.cancel()
        if self._stderr_thread is not None:
            self._stderr_thread.join(2)
        for pipe in (child.stdout, child.stderr):
            _close_pipe(pipe)
        atexit.unregister(self.kill)

    def _format_failure(self, code: int | None) -> str:
        """One or two sentences on a child that died without a last word."""
        if self._stderr_thread is not None:
            self._stderr_thread.join(2)
        lines = [line for line in self._stderr_lines if line.strip()]
        last = lines[-1].strip() if lines else ""
        if code == 2 and last.startswith("napari-dkan: "):  # a sentence for the person
            return last.removeprefix("napari-dkan: ")
        kept = "was saved" if self._checkpoint_path.is_file() else "was not saved"
        return (
            f"{_UNEXPECTED_END} ({_describe_cause(code, last)}); nothing of the open checkpoint was changed. "
            f"The best so far {kept}."
        )


def _describe_cause(code: int | None, last: str) -> str:
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


def _parse_event(line: bytes) -> FinetuneEvent | None:
    """The event on a line; None where a library has printed something."""
    try:
        told = json.loads(line)
        return EVENT_TYPES[told.pop("event")](**told)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None


def _wait_for_exit(child: subprocess.Popen[bytes]) -> int | None:
    try:
        return child.wait(EXIT_TIMEOUT)
    except subprocess.TimeoutExpired:
        return None


def _close_pipe(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with suppress(OSError):  # flushing what a dead child will not read
            pipe.close()


def _lower_priority(pid: int) -> None:
    """The window comes first: the child takes what the window leaves of the processor."""
    lower = psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 5
    with suppress(psutil.Error):
        psutil.Process(pid).nice(lower)
