"""A Dask cluster of two workers gives the bits of a single process, even if one is killed."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_dkan.batch.batch_worker import run_job
from napari_dkan.batch.dask_runner import run_on_dask
from napari_dkan.batch.slide_job import JobFinished, JobProgress, SlideJob
from napari_dkan.errors import DkanError
from napari_dkan.export.result_reader import load_result
from napari_dkan.samples import find_bundled_checkpoint

SLIDES = 3


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[SlideJob]:
    import tifffile
    from synthetic_section import draw_section

    folder = tmp_path_factory.mktemp("slides")
    image = draw_section(3, size_px=1600, mpp=0.7).image[300:1300, 300:1300]
    made = []
    for i in range(SLIDES):  # turned, so that no two are alike
        file = folder / f"S{i}.tif"
        tifffile.imwrite(file, np.rot90(image, i), tile=(256, 256), photometric="rgb")
        made.append(
            SlideJob(
                str(file),
                folder / f"S{i}.h5ad",
                checkpoint=find_bundled_checkpoint("synthetic"),
                mpp=0.7,
                device="cpu",
                store=False,
            )
        )
    return made


@pytest.mark.timeout(300)
def test_two_workers_give_the_bits_of_one_process(jobs, tmp_path):
    """Each has its device, here a core; one is killed, and loses no slide."""
    from distributed import LocalCluster

    here = [replace(job, out=tmp_path / "here" / job.out.name) for job in jobs]
    there = [replace(job, out=tmp_path / "there" / job.out.name) for job in jobs]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker of one machine
    alone = [run_job(job, lambda update: None) for job in here]
    torch.set_num_threads(threads)
    assert [outcome.status for outcome in alone] == ["done"] * SLIDES

    used, killed, ended = set(), [], []
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        for event in run_on_dask(there, cluster.scheduler_address):
            if isinstance(event, JobProgress):
                busy = _workers_of(cluster, event.index)
                used.update(busy)
                if busy and not killed:
                    killed.append(cluster.workers[busy[0]].pid)
                    os.kill(killed[0], signal.SIGKILL)
            if isinstance(event, JobFinished):
                ended.append(event)
    assert used == {0, 1}  # the names of both
    assert killed and sorted(e.index for e in ended) == list(range(SLIDES))
    for event in ended:
        assert event.outcome.error == ""
        assert any(line.startswith("slide: ") for line in event.outcome.log)
        ours, theirs = load_result(here[event.index].out), load_result(there[event.index].out)
        for name in ("values", "tokens", "qc_features"):
            one, other = getattr(ours.prediction, name), getattr(theirs.prediction, name)
            assert one.tobytes() == other.tobytes(), name
        assert ours.reliability.score.tobytes() == theirs.reliability.score.tobytes()
        xy, other_xy = (each.prediction.target.spots.xy for each in (ours, theirs))
        assert xy.tobytes() == other_xy.tobytes()
        records = [dict(one.prediction.provenance, created="") for one in (ours, theirs)]
        assert records[0] == records[1]
    left = {path.name for path in (tmp_path / "there").iterdir()}
    assert {f"S{i}.h5ad" for i in range(SLIDES)} <= left


def _workers_of(cluster, index):
    """Names of the workers that have a slide in work: one, none once it is finished."""
    tasks = cluster.scheduler.tasks.values()
    return [t.processing_on.name for t in tasks if t.processing_on and t.key.endswith(f"-{index}")]


def test_missing_scheduler_is_reported(jobs, monkeypatch):
    monkeypatch.setattr("napari_dkan.batch.dask_runner.CONNECT_TIMEOUT_S", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(DkanError, match="No Dask scheduler answers at"):
            next(run_on_dask(jobs, address))
