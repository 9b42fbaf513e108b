"""Worker threads: which jobs wait for which."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from napari_dkan.viewer.widgets import paced_progress_bar
from napari_dkan.viewer.worker import JobRunner


def resting_job(runner: JobRunner) -> Callable[[], Iterator[str]]:
    """A job that rests while somebody waits for another one, like those of the panel."""

    def job() -> Iterator[str]:
        for _ in range(3):
            while runner.is_foreground_busy():
                time.sleep(0.01)
                yield "rests"
            yield "works"

    return job


def test_two_background_jobs_do_not_wait_for_each_other(qtbot) -> None:
    """The slide check and the preparation of a view once rested for each other, forever."""
    runners = [JobRunner(name, background=True) for name in ("one", "other")]
    ended: list[object] = []
    for runner in runners:
        runner.start(resting_job(runner), lambda item: None, ended.append)
    qtbot.waitUntil(lambda: ended == [None, None], timeout=60_000)


def test_a_background_job_rests_while_somebody_waits_for_another(qtbot) -> None:
    background, foreground = JobRunner("background", background=True), JobRunner("click")
    items: list[str] = []
    is_open = []

    def asked_for() -> Iterator[None]:
        while not is_open:
            time.sleep(0.01)  # a job that yields without pause floods the window's queue
            yield None

    foreground.start(asked_for, lambda item: None)
    background.start(resting_job(background), items.append)
    qtbot.waitUntil(lambda: len(items) > 20, timeout=60_000)
    assert set(items) == {"rests"}
    is_open.append(True)
    qtbot.waitUntil(lambda: not background.busy, timeout=60_000)
    assert items[-3:] == ["works"] * 3


def test_a_bar_shows_the_ends_of_a_stage_and_not_each_batch(qtbot, monkeypatch) -> None:
    monkeypatch.setattr(paced_progress_bar, "PROGRESS_SECONDS", 1e9)
    bar = paced_progress_bar.PacedProgressBar()
    qtbot.addWidget(bar)
    moves: list[int] = []
    bar.valueChanged.connect(moves.append)
    told = [bar.show_progress(done, 20, "spots") for done in range(21)]
    assert moves == [0, 20] and [i for i, shown in enumerate(told) if shown] == [0, 20]
    assert bar.show_progress(7, 20, "map") and bar.value() == 7  # another stage, at once
    assert not bar.show_progress(8, 20, "map") and bar.value() == 7
    assert bar.show_progress(0, 0) and bar.maximum() == 0  # an animation
