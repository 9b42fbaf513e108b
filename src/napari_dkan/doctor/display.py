"""The display, looked at by a process of its own: a broken driver takes that one down only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from .finding import CheckResult, CheckStatus

DISPLAY_SECTION = "display"
DISPLAY_PROBE_COMMAND = (sys.executable, "-P", "-m", "napari_dkan.viewer.probe")  # -P: nothing of the folder
DISPLAY_PROBE_TIMEOUT_S = 60  # seconds


def check_display() -> Iterator[CheckResult]:
    if not _has_display():
        yield CheckResult(
            DISPLAY_SECTION,
            "display",
            "none here (DISPLAY is not set): the window needs one, the command line does not",
            CheckStatus.note,
        )
        return
    yield from run_display_probe(DISPLAY_PROBE_COMMAND)


def run_display_probe(command: tuple[str, ...]) -> Iterator[CheckResult]:
    """What the probe prints, one JSON object; or how it ended instead."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=DISPLAY_PROBE_TIMEOUT_S, text=True)
    except subprocess.TimeoutExpired:
        yield CheckResult(DISPLAY_SECTION, "OpenGL", f"no answer in {DISPLAY_PROBE_TIMEOUT_S} s; restart the X server or log in "
                      "again", CheckStatus.broken)  # fmt: skip
        return
    try:
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        yield CheckResult(DISPLAY_SECTION, "OpenGL", _describe_exit(done), CheckStatus.broken)
        return
    for name, said in told.items():
        wrong = name == "error"
        state = CheckStatus.broken if wrong else CheckStatus.ok
        yield CheckResult(DISPLAY_SECTION, "OpenGL" if wrong else name, str(said), state)


def _describe_exit(done: subprocess.CompletedProcess[str]) -> str:
    how = f"code {done.returncode}"
    if done.returncode < 0:
        how = signal.Signals(-done.returncode).name
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"the process that looked at it ended by {how}: {last}"


def _has_display() -> bool:
    if not sys.platform.startswith("linux"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
