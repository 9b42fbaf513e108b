"""The display, looked at by a process of its own: a broken driver takes that one down only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from .finding import Finding, State

NAME = "display"
PROBE = (sys.executable, "-P", "-m", "napari_dkan.viewer.probe")  # -P: nothing of the folder
PATIENCE = 60  # seconds


def display() -> Iterator[Finding]:
    if not _there():
        yield Finding(
            NAME,
            "display",
            "none here (DISPLAY is not set): the window needs one, the command line does not",
            State.note,
        )
        return
    yield from probed(PROBE)


def probed(command: tuple[str, ...]) -> Iterator[Finding]:
    """What the probe prints, one JSON object; or how it ended instead."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, text=True)
    except subprocess.TimeoutExpired:
        yield Finding(NAME, "OpenGL", f"no answer in {PATIENCE} s; restart the X server or log in "
                      "again", State.broken)  # fmt: skip
        return
    try:
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        yield Finding(NAME, "OpenGL", _obituary(done), State.broken)
        return
    for name, said in told.items():
        wrong = name == "error"
        state = State.broken if wrong else State.ok
        yield Finding(NAME, "OpenGL" if wrong else name, str(said), state)


def _obituary(done: subprocess.CompletedProcess[str]) -> str:
    how = f"code {done.returncode}"
    if done.returncode < 0:
        how = signal.Signals(-done.returncode).name
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"the process that looked at it ended by {how}: {last}"


def _there() -> bool:
    if not sys.platform.startswith("linux"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
