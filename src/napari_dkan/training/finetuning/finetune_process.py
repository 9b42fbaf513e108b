"""Run ``napari-dkan finetune --events`` in a child process.

The child releases its GPU memory when it ends, and a crash does not affect the parent. The child
ends with the parent, because its stdin closes.
"""

from __future__ import annotations

import atexit
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
from .tuning_protocol import FinetuneEvent, FinetuneFailed, FinetuneFinished, parse_event

# -P keeps modules of the current folder off the path
FINETUNE_COMMAND = (sys.executable, "-P", "-m", "napari_dkan", "finetune")
MAX_LINE_BYTES = 64 * 2**20  # the map of a large section is a long line
STOP_TIMEOUT = 60.0  # seconds for a child to save its best epoch and end
EXIT_TIMEOUT = 10.0  # seconds to exit after the last event
_UNEXPECTED_END = "The fine-tuning process ended unexpectedly"


def build_finetune_arguments(
    checkpoint: Path,
    data: Path,
    sections: Sequence[str],
    settings: FinetuneSettings,
    out: Path,
    device: str = "auto",
) -> list[str]:
    """Make the options of ``napari-dkan finetune`` for these sections of the folder `data`."""
    limits = {"--epochs": settings.epochs, "--seconds": settings.seconds}
    return [
        *("--checkpoint", str(checkpoint), "--data", str(data), "--sections", ",".join(sections)),
        *("--out", str(out), "--adapt", settings.adapt.value),
        *("--hold-out", settings.hold_out.value, "--share", f"{settings.share:g}"),
        *("--seed", str(settings.seed), "--device", device),
        *(word for key, v in limits.items() if v is not None for word in (key, f"{v:g}")),
    ]


class FinetuneProcess:
    """One run in a child process; commands may come from any thread, events are read in one.

    Parameters
    ----------
    command
        Program and its first arguments; the options of ``napari-dkan finetune`` follow.
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
        """Start the child; `out` is the checkpoint path among the options.

        Raises
        ------
        FinetuneError
            When the process cannot be started.
        """
        group: dict[str, Any] = {"start_new_session": True}  # Ctrl-C does not reach the child
        if sys.platform == "win32":
            group = {
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
                    **group,
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
        """Process id of the child; None before the start."""
        return None if self._child is None else self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.poll() is None

    def events(self) -> Iterator[FinetuneEvent]:
        """Yield the events of the child until it ends; other lines are skipped.

        The child has ended when the iterator ends. After `kill` it ends without an error.

        Raises
        ------
        FinetuneError
            When the child died, with the reason as far as it is known.
        """
        child = self._child
        if child is None:
            return
        assert child.stdout is not None
        try:
            for line in iter(partial(child.stdout.readline, MAX_LINE_BYTES), b""):
                event = parse_event(line)
                if event is not None:
                    yield event
                    if isinstance(event, FinetuneFinished | FinetuneFailed):
                        return
            code = _wait_for_exit(child)
            if not self._is_killed:
                raise FinetuneError(self._format_failure(code))
        finally:
            self._clean_up(child)

    # ---- commands ----------------------------------------------------------------------

    def pause(self) -> None:
        """Pause after the current epoch."""
        self._send_command("pause")

    def resume(self) -> None:
        """End a pause."""
        self._send_command("resume")

    def request_gene_map(self, gene: str) -> None:
        """Request the map of a gene after every epoch; "" for none."""
        self._send_command(f"gene {gene}")

    def save_to(self, path: Path) -> None:
        """Save the result to another path, after it could not be written."""
        self._checkpoint_path = path
        self._send_command(f"save {path}")

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """End with the best epoch so far; a child that does not is killed after `timeout` s."""
        self._send_command("stop")
        if self._stop_timer is None:
            self._stop_timer = threading.Timer(timeout, self._kill_after_timeout)
            self._stop_timer.daemon = True
            self._stop_timer.start()

    def kill(self) -> None:
        """End the child immediately; may be called at any time and repeatedly."""
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
                os.killpg(child.pid, signal.SIGKILL)  # with its own children
        with suppress(subprocess.TimeoutExpired):
            child.wait(EXIT_TIMEOUT)

    def _send_command(self, line: str) -> None:
        child = self._child
        if child is None or child.stdin is None or child.stdin.closed:
            return
        with suppress(OSError, ValueError):  # it is ending; `events` reports how
            child.stdin.write(f"{line}\n".encode())
            child.stdin.flush()

    # ---- end ---------------------------------------------------------------------------

    def _read_stderr(self) -> None:
        assert self._child is not None and self._child.stderr is not None
        with suppress(ValueError):  # the pipe was closed
            for line in iter(partial(self._child.stderr.readline, 4096), b""):
                self._stderr_lines.append(line.decode(errors="replace").rstrip())

    def _clean_up(self, child: subprocess.Popen[bytes]) -> None:
        """Wait for the child or kill it, and close its pipes."""
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
        """Explain in one or two sentences why a child died without a last event."""
        if self._stderr_thread is not None:
            self._stderr_thread.join(2)
        lines = [line for line in self._stderr_lines if line.strip()]
        last = lines[-1].strip() if lines else ""
        if code == 2 and last.startswith("napari-dkan: "):  # an error message for users
            return last.removeprefix("napari-dkan: ")
        outcome = "was saved" if self._checkpoint_path.is_file() else "was not saved"
        return (
            f"{_UNEXPECTED_END} ({_describe_cause(code, last)}); nothing of the open checkpoint "
            f"was changed. The best so far {outcome}."
        )


def _describe_cause(code: int | None, last: str) -> str:
    """Explain the end by the exit code and the last line of stderr."""
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


def _wait_for_exit(child: subprocess.Popen[bytes]) -> int | None:
    try:
        return child.wait(EXIT_TIMEOUT)
    except subprocess.TimeoutExpired:
        return None


def _close_pipe(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with suppress(OSError):  # a dead child does not read what is flushed
            pipe.close()


def _lower_priority(pid: int) -> None:
    """Lower the priority of the child, so that the window stays responsive."""
    lower = psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 5
    with suppress(psutil.Error):
        psutil.Process(pid).nice(lower)
