"""Damaged files of every kind: a result, or a sentence; never a hang, a crash or a side effect.

2,000 cases a loader here; `make fuzz CASES=50000` for as many as there is time for. The cases of a
test run are always the same; those of `make fuzz` are new each time.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from napari_dkan.errors import DkanError

from . import watch
from .loaders import LOADERS, Corner, Loader
from .watch import resident, watched

CASES = int(os.environ.get("FUZZ_CASES", 2000))
GROWTH = 400 * 2**20  # bytes a loader may hold on to after all its cases


@pytest.fixture(scope="module")
def corner(tmp_path_factory, tiny_checkpoint_file) -> Corner:
    real = Path(os.environ.get("NAPARI_DKAN_DATA") or "nowhere")
    folder = tmp_path_factory.mktemp("seeds")
    return Corner(folder, tiny_checkpoint_file, real if real.is_dir() else None)


@pytest.mark.timeout(0 if "FUZZ_CASES" in os.environ else 300)
@pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.name)
def test_every_damaged_file_is_read_or_refused_in_a_sentence(loader, corner, tmp_path):
    seeds, outcomes, slowest = loader.seeds(corner), Counter(), 0.0
    cases = int(CASES * loader.share)
    path = tmp_path / f"case{loader.suffix}"
    for data in seeds:  # a good one is read; and what is imported late is imported by now
        path.write_bytes(data)
        loader.load(path)
    held = resident()

    @settings(
        max_examples=cases,
        derandomize="FUZZ_CASES" not in os.environ,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(range(len(seeds))), loader.damage)
    def case(which, damage):
        nonlocal slowest
        data = damage(seeds[which])
        path.write_bytes(data)
        began = time.perf_counter()
        outcomes[_outcome(loader, path)] += 1
        slowest = max(slowest, time.perf_counter() - began)
        assert path.read_bytes() == data

    case()
    assert sum(outcomes.values()) >= cases
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert resident() - held < GROWTH
    _note(loader, outcomes, slowest, resident() - held)


def test_hang_is_not_accepted_as_an_error(monkeypatch):
    """Though the loader takes every exception for damage."""
    monkeypatch.setattr(watch, "SECONDS", 0.2)
    with pytest.raises(watch.Hung), watched(), suppress(Exception):
        time.sleep(5)


def _outcome(loader: Loader, path: Path) -> str:
    with watched():
        try:
            loader.load(path)
        except DkanError as error:
            sentence = str(error)
            assert path.name in sentence and len(sentence) < 600, sentence
            assert "\n" not in sentence and "Traceback" not in sentence, sentence
            return "refused"
    return "read"


def _note(loader: Loader, outcomes: Counter[str], slowest: float, grown: int) -> None:
    """A line of figures, where FUZZ_FIGURES names a file for them."""
    if name := os.environ.get("FUZZ_FIGURES"):
        figures = {"loader": loader.name, **outcomes, "slowest_s": slowest, "grown_mb": grown / 1e6}
        with open(name, "a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")
