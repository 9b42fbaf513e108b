"""The child that fine-tunes: whatever it does, its parent ends in a defined state."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from napari_dkan.errors import FinetuneError
from napari_dkan.training.finetuning.finetune_process import (
    FinetuneProcess,
    build_finetune_arguments,
)
from napari_dkan.training.finetuning.finetune_settings import (
    AdaptScope,
    FinetuneSettings,
    HoldOutUnit,
)
from napari_dkan.training.finetuning.tuning_protocol import FinetuneEvent

FAKE = Path(__file__).with_name("fake_finetune.py")


@pytest.fixture
def start(tmp_path: Path):
    """Starts a fake child; none is left after the test."""
    started: list[FinetuneProcess] = []
    parent = tmp_path / "parent.safetensors"
    parent.write_bytes(b"weights")

    def begin(scenario: str, out: str = "tuned.safetensors") -> FinetuneProcess:
        process = FinetuneProcess((sys.executable, str(FAKE), scenario))
        made = build_finetune_arguments(
            parent, tmp_path, ["C3"], FinetuneSettings(), tmp_path / out
        )
        process.start(made, tmp_path / out)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()


def names(
    process: FinetuneProcess, act: Callable[[FinetuneEvent], None] = lambda event: None
) -> list[str]:
    """The events it tells; ``act`` sees each."""
    found = []
    for event in process.events():
        found.append(event.name)
        act(event)
    assert not process.is_running
    return found


def number(event: FinetuneEvent) -> int:
    return getattr(event, "number", 0)


def test_a_run_sends_all_events_in_order_and_ends(start, tmp_path):
    process = start("well")
    assert names(process) == ["reading", "started", *["epoch"] * 5, "finished"]
    assert not psutil.pid_exists(process.pid)
    assert (tmp_path / "tuned.safetensors").read_bytes() == b"weights"


def test_other_output_is_skipped(start):
    assert names(start("garbage")) == ["reading", "started", *["epoch"] * 5, "finished"]


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("killed", "signal 9: probably out of memory.*was not saved"),
        ("saved and killed", "signal 9: probably out of memory.*best so far was saved"),
        ("traceback", "ValueError: the numbers are odd.*nothing of the open checkpoint"),
        ("memory", "out of memory.*was not saved"),
        ("nothing", "it ended without a result"),
        ("refused", "^C3 has only ten spots; load more.$"),
    ],
)
def test_a_dead_child_is_explained(start, scenario, said):
    process = start(scenario)
    with pytest.raises(FinetuneError, match=said) as raised:
        names(process)
    assert "Traceback" not in str(raised.value) and not process.is_running


def test_a_reported_failure_is_an_event(start):
    assert names(start("failed"))[-1] == "failed"


def test_stop_saves_the_best_epoch(start, tmp_path):
    process = start("long")
    told = names(process, lambda e: number(e) == 3 and process.stop())
    assert told[-1] == "finished" and told.count("epoch") < 100
    assert (tmp_path / "tuned.safetensors").is_file()


def test_pause_and_resume(start):
    process = start("long")

    def act(event: FinetuneEvent) -> None:
        if number(event) == 2:
            process.pause()
        elif event.name == "paused":
            threading.Timer(0.2, process.resume).start()
        elif event.name == "resumed":
            process.stop()

    told = names(process, act)
    assert told.count("paused") == told.count("resumed") == 1 and told[-1] == "finished"


def test_a_child_that_ignores_stop_is_killed_after_the_timeout(start):
    process = start("deaf")
    with pytest.raises(FinetuneError, match="did not stop when it was asked to"):
        names(process, lambda e: number(e) == 2 and process.stop(timeout=0.3))


def test_kill_ends_the_events_without_an_error(start):
    process = start("deaf")
    told = names(process, lambda e: number(e) == 2 and process.kill())
    assert "finished" not in told and not psutil.pid_exists(process.pid)
    process.kill()
    process.stop()  # too late, and no harm


def test_a_run_killed_before_its_start_never_starts(tmp_path):
    process = FinetuneProcess((sys.executable, str(FAKE), "long"))
    process.kill()
    process.start(["--out", "x"], tmp_path)
    assert process.pid is None and list(process.events()) == []


def test_an_unsaved_result_is_saved_to_another_path(start, tmp_path):
    process = start("well", out="no folder/tuned.safetensors")
    there = tmp_path / "a folder with spaces.safetensors"
    told = names(process, lambda e: e.name == "unsaved" and process.save_to(there))
    assert told[-2:] == ["unsaved", "finished"] and there.read_bytes() == b"weights"


def test_a_missing_program_is_an_error(tmp_path):
    process = FinetuneProcess((str(tmp_path / "nothing"),))
    with pytest.raises(FinetuneError, match="could not be started"):
        process.start([], tmp_path)


@pytest.mark.parametrize("ending", ["pass", "import os; os.kill(os.getpid(), 9)"])
def test_the_child_never_outlives_its_parent(tmp_path, ending):
    """Whether the parent leaves in order or is killed."""
    parent = tmp_path / "parent.safetensors"
    parent.write_bytes(b"")
    code = (
        "import sys; from pathlib import Path\n"
        "from napari_dkan.training.finetuning.finetune_process import FinetuneProcess\n"
        f"process = FinetuneProcess((sys.executable, {str(FAKE)!r}, 'long'))\n"
        f"paths = ['--checkpoint', {str(parent)!r}, '--out', {str(tmp_path / 'out')!r}]\n"
        "process.start([*paths, '--sections', 'C3'], Path('out'))\n"
        "events = process.events()\n"
        "next(events)\n"
        "print(process.pid, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True)
    child = int(done.stdout)
    end = time.monotonic() + 20
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "an orphan"
        time.sleep(0.05)


def test_the_arguments_are_options_of_the_command():
    """Every flag is known to `napari-dkan finetune`."""
    import typer

    from napari_dkan.cli import app

    command = typer.main.get_command(app).commands["finetune"]
    known = {name for parameter in command.params for name in parameter.opts}
    settings = FinetuneSettings(AdaptScope.heads, 3, 60.0, HoldOutUnit.sections, 0.5, 7)
    made = build_finetune_arguments(Path("a"), Path("b"), ["C2", "C3"], settings, Path("c"))
    assert {word for word in made if word.startswith("--")} | {"--events"} <= known
