"""The batch command: job lists, output files, workers, resuming and the summary."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from napari_dkan.batch import existing_result, local_runner
from napari_dkan.batch.batch_output import (
    BatchProgressDisplay,
    format_counts,
    format_duration,
    format_summary,
)
from napari_dkan.batch.batch_worker import WorkerDevice, assign_worker_devices, run_job
from napari_dkan.batch.existing_result import find_existing_result
from napari_dkan.batch.job_list import build_job_list
from napari_dkan.batch.local_runner import run_locally
from napari_dkan.batch.slide_job import JobFinished, JobOutcome, JobProgress, SlideJob
from napari_dkan.cli import main
from napari_dkan.errors import DkanError, OutputError, SlideError, SpotsError

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["napari-dkan", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        out = capsys.readouterr()
        return exit.value.code or 0, out.out, out.err

    return call


# ---- which slides ------------------------------------------------------------------------


@pytest.fixture
def slides(tmp_path):
    """A tree of files that begin like slides, and others that do not."""
    for name in ("a/S.png", "a/T.tif", "b/S.png", "b/deep/U.png", "a/.hidden.png"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PNG)
    (tmp_path / "a/S.txt").write_text("no slide")
    (tmp_path / "a/zarr.ome.zarr").mkdir()
    (tmp_path / "a/zarr.ome.zarr/zarr.json").write_text("{}")
    return tmp_path


def found(folder, *asked):
    work = build_job_list([str(a) for a in asked], folder / "out", SlideJob("", folder / "out"))
    return {Path(job.slide).relative_to(folder).as_posix(): job.out.name for job in work.jobs}, work


def test_inputs_give_each_slide_once_with_unique_outputs(slides):
    names, work = found(slides, slides / "a", f"{slides}/**/S.png", slides / "a/T.tif")
    assert names == {
        "a/S.png": "a-S.h5ad",
        "a/T.tif": "T.h5ad",
        "a/zarr.ome.zarr": "zarr.h5ad",
        "b/S.png": "b-S.h5ad",
    }
    assert "a: 1 file is no slide and left out (S.txt)." in work.notes[0]
    assert sum("given more than once" in note for note in work.notes) == 2
    (slides / "a/s.tif").write_bytes(PNG)  # one file with S.png for some file systems
    names, _ = found(slides, slides / "a/S.png", slides / "a/s.tif")
    assert set(names.values()) == {"S.png.h5ad", "s.tif.h5ad"}
    names, _ = found(slides, slides / "gone.svs")  # one failed slide, not the end
    assert names == {"gone.svs": "gone.h5ad"}
    for nothing in (slides / "b/deep/none*", slides / "b/deep/..empty"):
        (slides / "b/deep/..empty").mkdir(exist_ok=True)
        with pytest.raises(SlideError, match="There is no slide in"):
            found(slides, nothing)


def test_table_overrides_options_of_a_slide(slides):
    table = slides / "list.csv"
    table.write_text(
        "\ufeffSlide, mpp ,checkpoint,spots,regions,out\n"
        "a/S.png,0.5,,,r.geojson,\n"
        "b/S.png,,net.safetensors,s.csv,,sub/other.h5ad\n"
        "https://user:secret@host/x.zarr,,,,,\n"
    )
    options = SlideJob("", slides / "out", mpp=0.25, checkpoint=slides / "c.safetensors")
    first, second, third = build_job_list([str(table)], slides / "out", options).jobs
    assert first.slide == str(slides / "a/S.png") and first.mpp == 0.5
    assert first.regions == slides / "r.geojson" and first.checkpoint == options.checkpoint
    assert second.mpp == 0.25 and second.checkpoint == slides / "net.safetensors"
    assert second.out == slides / "out/sub/other.h5ad" and second.spots == slides / "s.csv"
    assert third.slide.startswith("https://user") and third.out.name == "x.h5ad"
    assert third.location == "https://host/x.zarr"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slides\na\n", "unknown column 'slides'"),
        ("mpp\n1\n", "no column 'slide'"),
        ("slide,mpp\na.svs,wide\n", "data row 1: 'wide' is no pixel size"),
        ("slide,mpp\n,1\n", "data row 1: there is no slide"),
        ("slide\na,b\n", "has more cells than names of columns"),
        ("slide,out\na,b.csv\n", "data row 1: b.csv is not an .h5ad"),
        ("slide\n", "lists no slide"),
        ("slide\n\x00\x01\x80", "not a readable table"),
        ("slide,library\na.svs,A\n", "data row 1: A names a section .* fill the cell spots"),
        ("slide;mpp\na.svs;1,250\n", "data row 1: '1,250' is no pixel size"),
        ("slide,mpp\na.svs,-1\n", "data row 1: '-1' is no pixel size"),
        ("slide,mpp\na.svs,1,x\n", "more cells than names of columns"),
    ],
)
def test_invalid_table_is_reported_with_its_line(tmp_path, text, said):
    file = tmp_path / "list.csv"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(SpotsError, match=said):
        build_job_list([str(file)], tmp_path, SlideJob("", tmp_path))


def test_two_slides_never_share_an_output(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("slide,out\na.svs,x.h5ad\nb.svs,X.h5ad\nx.svs,\n")
    with pytest.raises(OutputError, match=r"a.svs and b.svs would both be written"):
        build_job_list([str(file)], tmp_path, SlideJob("", tmp_path))
    file.write_text("slide,out,mpp\na.svs,x.h5ad,\nx.svs,,1\nx.svs,,2\n")
    jobs = build_job_list([str(file)], tmp_path, SlideJob("", tmp_path)).jobs
    assert [job.out.name for job in jobs] == ["x.h5ad", "x-2.h5ad", "x-3.h5ad"]


# ---- where workers run -------------------------------------------------------------------

GPUS = ("cuda:0", "cuda:1", "cuda:2", "cpu")
GIB = 2**30


@pytest.mark.parametrize(
    ("available", "requested", "n_workers", "n_jobs", "expected"),
    [
        (GPUS, None, None, 9, ["cuda:0", "cuda:1", "cuda:2"]),
        (GPUS, None, None, 2, ["cuda:0", "cuda:1"]),
        (GPUS, None, 6, 9, ["cuda:0", "cuda:1", "cuda:2"] * 2),
        (GPUS, ["cuda:2", "cuda"], None, 9, ["cuda:2", "cuda:0"]),
        (GPUS, ["cpu", "cuda:1"], None, 9, ["cuda:1", "cpu", "cpu", "cpu", "cpu"]),
        (("mps", "cpu"), None, None, 9, ["mps"]),
        (("cpu",), None, None, 9, ["cpu"] * 4),
        (("cpu",), None, None, 3, ["cpu"] * 3),
        (("cpu",), None, 2, 9, ["cpu"] * 2),
    ],
)
def test_one_worker_per_gpu_and_per_cpu_core(available, requested, n_workers, n_jobs, expected):
    made = assign_worker_devices(
        available, requested, n_workers, n_jobs, n_cores=4, free_memory=64 * GIB, environment={}
    )
    assert [place.name for place in made] == expected
    for place in made:
        if place.name != "cpu" and requested is None:  # may be passed over for the CPU
            assert place.device == "auto"
        if place.name.startswith("cuda"):  # it sees one GPU, its own, as the first
            assert place.device == ("cuda:0" if requested else "auto")
            assert place.environment == {"CUDA_VISIBLE_DEVICES": place.name[-1]}
        assert place.n_threads == (1 if place.name == "cpu" else max(1, 4 // len(made)))


def test_workers_respect_memory_and_visible_gpus():
    made = assign_worker_devices(("cpu",), None, None, 9, 16, 5 * GIB, {})
    assert len(made) == 2
    assert len(assign_worker_devices(("cpu",), None, None, 9, 16, GIB, {})) == 1
    given = {"CUDA_VISIBLE_DEVICES": "5, GPU-8f"}
    made = assign_worker_devices(("cuda:0", "cuda:1", "cpu"), None, None, 9, 16, GIB, given)
    assert [p.environment["CUDA_VISIBLE_DEVICES"] for p in made] == ["5", "GPU-8f"]
    with pytest.raises(DkanError, match="cuda:7 is not on this machine; choose cpu"):
        assign_worker_devices(("cpu",), ["cuda:7"], None, 9, 16, GIB, {})


# ---- processes that die ------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch):
    """Workers that need no torch; the folder is on the path of the processes too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import fake_worker

    monkeypatch.setattr(local_runner, "serve_jobs", fake_worker.serve_jobs)


def make_jobs(tmp_path, *names):
    return [SlideJob(name, tmp_path / f"{name}.h5ad") for name in names]


def test_crash_affects_one_slide_and_every_slide_ends_once(fake, tmp_path):
    jobs = make_jobs(tmp_path, "good", "killed", "once", "aborts", "fine", "last")
    two = [WorkerDevice("cpu", "cpu", 1)] * 2
    events = list(run_locally(jobs, two, max_retries=1, overwrite=True))
    ended = {e.index: e.outcome for e in events if isinstance(e, JobFinished)}
    assert len([e for e in events if isinstance(e, JobFinished)]) == len(jobs) == len(ended)
    assert [ended[i].n_spots for i in (0, 2, 4, 5)] == [1] * 4  # "once" by its second try
    if sys.platform != "win32":
        assert "SIGKILL, as a system short of memory does" in ended[1].error
        assert "SIGABRT" in ended[3].error
    assert "ended 2 times" in ended[1].error and jobs[1].name in ended[1].error
    assert sum(isinstance(e, JobProgress) and e.index == 1 for e in events) == 2
    assert not multiprocessing.active_children()


def test_workers_that_cannot_start_are_reported(fake, tmp_path):
    with pytest.raises(DkanError, match="No worker process could be started"):
        list(run_locally(make_jobs(tmp_path, "good"), [WorkerDevice("broken", "cpu", 1)]))
    mixed = [WorkerDevice("broken", "cpu", 1), WorkerDevice("cpu", "cpu", 1)]
    events = list(run_locally(make_jobs(tmp_path, "good", "fine"), mixed))
    assert sum(isinstance(e, JobFinished) for e in events) == 2


def test_closing_the_generator_ends_the_workers(fake, tmp_path):
    events = run_locally(
        make_jobs(tmp_path, "endless", "endless2"), [WorkerDevice("cpu", "cpu", 1)] * 2
    )
    assert isinstance(next(events), JobProgress) and len(multiprocessing.active_children()) == 2
    events.close()
    assert not multiprocessing.active_children()


def test_account_of_a_worker_is_printed_on_request(fake, run, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_dkan.batch.predict_slide.validate_options", lambda options: None)
    (tmp_path / "account.png").write_bytes(PNG)
    call = ("batch", tmp_path / "account.png", "--workers", 1, "-o", tmp_path / "out")
    assert "what was read" not in run(*call)[2]
    assert run(*call, "-v")[2].count("account: what was read\n") == 1


def test_finished_jobs_are_not_run_again(monkeypatch, tmp_path, caplog):
    """The others keep their places in the list."""
    jobs, asked = make_jobs(tmp_path, "a", "kept", "b", "unreadable"), []

    def find(job):
        if job.name == "unreadable":
            raise KeyError
        return (
            replace(JobOutcome(job.slide, job.out), is_reused=True) if "kept" in job.name else None
        )

    def run_in_reverse(given):
        asked.extend(given)
        for index in reversed(range(len(given))):
            yield JobProgress(index, 1, 2, False)
            yield JobFinished(index, JobOutcome(given[index].slide, given[index].out))

    monkeypatch.setattr(existing_result, "find_existing_result", find)
    events = list(existing_result.run_unfinished(jobs, run_in_reverse))
    ended = [(e.index, e.outcome.slide) for e in events if isinstance(e, JobFinished)]
    assert ended == [(1, "kept"), (3, "unreadable"), (2, "b"), (0, "a")]
    assert "unreadable is run anew; its earlier result raised KeyError" in caplog.text
    assert [e.index for e in events if isinstance(e, JobProgress)] == [3, 2, 0]
    asked.clear()
    assert len(list(existing_result.run_unfinished(jobs, run_in_reverse, overwrite=True))) == 8
    assert asked == jobs


# ---- a whole run -------------------------------------------------------------------------


def test_run_is_resumed(run, tiny_slide_file, tiny_checkpoint_file, tmp_path, monkeypatch):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    good, spots, table = folder / "good.tif", folder / "spots.csv", folder / "slides.csv"
    good.symlink_to(tiny_slide_file)
    (folder / "cut.tif").write_bytes(tiny_slide_file.read_bytes()[:5000])
    spots.write_text("# R\nid,x,y\na,300,300\nb,500,500\n")
    table.write_text("slide;spots;mpp\ngood.tif;spots.csv;0,7\ncut.tif;;\n")
    call = ("batch", table, "--checkpoint", tiny_checkpoint_file, "--workers", 1, "-o", out)
    code, said, err = run(*call, "-v")
    assert code == 1 and "1 of 2 slides have a result, 1 failed" in said and "Traceback" not in err
    assert "cut: The slide cut.tif" in said and not list(out.glob(".writing-*"))
    # what the worker read of each file
    assert "good: read: " in err and "cut: The slide cut.tif" in err
    assert "good: slide: good.tif, " in err
    assert "2 spots read" in err and "pixel size: 0.7 um (entered by hand)" in err
    assert "note: spots.csv: 1 comment line was skipped" in err and err.count("spots read") == 1

    def rows():
        with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
            return {Path(row["slide"]).stem: row for row in csv.DictReader(file)}

    assert rows()["good"]["outcome"] == "done" and rows()["good"]["spots"] == "2"
    assert rows()["cut"]["outcome"] == "failed" and "cut.tif" in rows()["cut"]["error"]

    job = SlideJob(
        str(good),
        out / "good.h5ad",
        checkpoint=tiny_checkpoint_file,
        spots=spots,
        mpp=0.7,
        store=False,
    )
    first = job.out.read_bytes()
    kept = find_existing_result(job)
    assert kept is not None and kept.is_reused and kept.n_spots == 2
    assert run_job(job, lambda update: None).is_reused and job.out.read_bytes() == first
    # another slide, checkpoint, parameter, or a damaged file: not the result of this job
    other_slide = folder / "other.tif"
    whole = tiny_slide_file.read_bytes()
    other_slide.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    other_net = tmp_path / "other.safetensors"
    other_net.write_bytes(tiny_checkpoint_file.read_bytes().replace(b"Random", b"random"))
    other_spots = tmp_path / "other.csv"
    other_spots.write_text("id,x,y\na,300,300\nb,500,501\n")
    for other in (
        replace(job, slide=str(other_slide)),
        replace(job, checkpoint=other_net),
        replace(job, mpp=0.71),
        replace(job, genes=("ERBB2",)),
        replace(job, spots=other_spots),
        replace(job, regions=other_spots),
    ):
        assert find_existing_result(other) is None
    assert find_existing_result(replace(job, device="cpu", store=True)) is not None
    job.out.write_bytes(first[:-100])
    assert find_existing_result(job) is None
    again = run_job(job, lambda update: None)
    assert again.status == "done" and find_existing_result(job) is not None

    # with every result there, no checkpoint is loaded and no worker started
    table.write_text("slide;spots;mpp\ngood.tif;spots.csv;0,7\n")
    with monkeypatch.context() as patch:
        patch.setattr("napari_dkan.batch.predict_slide.validate_options", None)
        code, said, _ = run(*call)
    assert code == 0 and "1 of 1 slide has a result (1 from before), 0 failed" in said
    assert list(rows()) == ["good"] and rows()["good"]["outcome"] == "kept"


def test_notes_are_part_of_the_outcome(tiny_slide_file, tiny_checkpoint_file, tmp_path):
    from PIL import Image

    from napari_dkan.export.result_reader import load_result
    from napari_dkan.slide import open_slide

    with open_slide(tiny_slide_file) as slide:
        pixels = slide.read_region(600, 600, 400, 400)
    Image.fromarray(pixels).save(tmp_path / "part.png")
    mask = Image.new("L", (100, 100), 0)  # a quarter of the slide's size
    mask.paste(255, (0, 0, 50, 100))
    mask.save(tmp_path / "mask.png")
    job = SlideJob(
        str(tmp_path / "part.png"),
        tmp_path / "part.h5ad",
        checkpoint=tiny_checkpoint_file,
        regions=tmp_path / "mask.png",
        tissue_only=False,
        mpp=3.5,
        store=False,
    )
    outcome = run_job(job, lambda update: None)
    assert outcome.error == "" and "blown up" in outcome.notes[0]
    saved = load_result(job.out)
    assert saved.prediction.target.spots.xy[:, 0].max() < 200
    assert saved.regions is not None and saved.regions.area == pytest.approx(80_000, rel=0.02)
    both = replace(job, regions=None, spots=job.regions, features=tmp_path / "tiles.h5")
    assert "not --spots" in run_job(both, lambda update: None, overwrite=True).error


def test_a_worker_loads_a_checkpoint_once(
    tiny_slide_file, tiny_checkpoint_file, tmp_path, monkeypatch
):
    from napari_dkan.model import load_checkpoint
    from napari_dkan.model.network import inference_optimization

    loaded, folded = [], []
    fold = inference_optimization.fold_batch_norms
    monkeypatch.setattr(
        "napari_dkan.model.load_checkpoint",
        lambda path: loaded.append(path) or load_checkpoint(path),
    )
    monkeypatch.setattr(
        inference_optimization,
        "fold_batch_norms",
        lambda net, px: folded.append(net) or fold(net, px),
    )
    file, spots = tmp_path / "model.safetensors", tmp_path / "spots.csv"
    file.write_bytes(tiny_checkpoint_file.read_bytes())
    spots.write_text("id,x,y\na,300,300\nb,500,500\n")

    def predict(name: str) -> None:
        out = tmp_path / f"{name}.h5ad"
        job = SlideJob(str(tiny_slide_file), out, file, spots, device="cpu", store=False)
        assert run_job(job, lambda update: None).error == ""

    for name in "abc":
        predict(name)
    trunks = len(folded)
    assert loaded == [file] and trunks == len(set(map(id, folded)))
    file.write_bytes(tiny_checkpoint_file.read_bytes().replace(b"Random", b"random"))
    os.utime(file, ns=(0, 0))  # replaced between two slides
    predict("d")
    assert loaded == [file, file] and len(folded) == 2 * trunks


def test_invalid_options_raise_before_the_first_slide(
    run, tiny_slide_file, tiny_bundled_checkpoint, tmp_path
):
    out = tmp_path / "out"
    for options, said in (
        (["--checkpoint", tmp_path / "none.safetensors"], "none.safetensors"),
        (["--genes", "NOGENE"], "NOGENE"),
        (["--devices", "tpu"], "tpu"),
        (["--scheduler", "tcp://127.0.0.1:9", "--workers", "2"], "not for --scheduler"),
    ):
        code, _, err = run("batch", tiny_slide_file, "-o", out, *options)
        assert code == 2 and said in err and "Traceback" not in err and not out.exists()


def test_unexpected_error_is_an_outcome(monkeypatch, tmp_path, tiny_slide_file):
    def fault(*args):
        raise KeyError("a library's mistake")

    monkeypatch.setattr("napari_dkan.model.load_checkpoint", fault)
    job = SlideJob(str(tiny_slide_file), tmp_path / "a.h5ad", tmp_path / "model.safetensors")
    outcome = run_job(job, lambda update: None)
    assert outcome.status == "failed" and "KeyError at test_batch.py:" in outcome.error


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a signal")
def test_ctrl_c_keeps_finished_results(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("endless.png", "good.png"):
        (tmp_path / "in" / name).write_bytes(PNG)
    code = (
        "import signal, sys\n"
        "from napari_dkan.batch import batch_worker, local_runner, predict_slide\n"
        "from napari_dkan.cli import main\n"
        "if __name__ == '__main__':\n"
        "    import fake_worker\n"
        # tests in the background of a shell have Ctrl-C switched off, for their children too
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    local_runner.serve_jobs = fake_worker.serve_jobs\n"
        "    predict_slide.validate_options = lambda options: None\n"
        "    two_devices = (batch_worker.WorkerDevice('cpu', 'cpu', 1),) * 2\n"
        "    batch_worker.assign_worker_devices = lambda *options: two_devices\n"
        f"    sys.argv = ['napari-dkan', 'batch', {str(tmp_path / 'in')!r}, '-o', "
        f"{str(tmp_path / 'out')!r}]\n"
        "    main()\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    child = subprocess.Popen(
        [sys.executable, script],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    )
    summary = tmp_path / "out/summary.csv"
    try:
        while child.poll() is None and not summary.exists():
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does, to the workers too
        _, err = child.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == 130 and "Traceback" not in err
    assert "Stopped: 1 of 1 slide has a result, 0 failed, 1 left. The same command" in err
    assert "good.png" in summary.read_text()


# ---- what is shown -----------------------------------------------------------------------


def test_progress_line(monkeypatch, tmp_path):
    now = [100.0]
    monkeypatch.setattr("napari_dkan.batch.batch_output.time.monotonic", lambda: now[0])
    jobs = make_jobs(tmp_path, "A", "B", "C", "D")
    with BatchProgressDisplay(jobs) as display:
        display.update(JobFinished(0, JobOutcome("A", jobs[0].out, n_spots=5, is_reused=True)))
        assert display.format_line() == "1/4 slides"  # what stood already is no measure of the rest
        now[0] += 60
        display.update(JobFinished(1, JobOutcome("B", jobs[1].out, n_spots=5, seconds=60)))
        display.update(JobProgress(2, 0, 90, True))
        assert display.format_line() == "2/4 slides | C reading | 2 min left"
        display.update(JobProgress(2, 500, 1000, False))
        assert display.format_line() == "2/4 slides | C 500/1,000 | 60 s left"
    assert format_duration(3 * 3600 + 60) == "3 h 1 min"


def test_summary_table(tmp_path):
    good, bad, old = make_jobs(tmp_path, "good", "bad", "old")
    rows = [
        (good, JobOutcome("good", good.out, 1234, 250, 61.2, 0, 123, 0.4, ("A warning.",))),
        (bad, JobOutcome("bad", bad.out, error="It is broken.")),
        (old, JobOutcome("old", old.out, 10, 250, is_reused=True)),
    ]
    assert format_summary(rows).splitlines() == [
        "slide  outcome  spots  seconds  unreliable  reliability",
        "good   done     1,234       61       10.0%         0.40",
        "bad    failed",
        "old    kept        10        -           -            -",
        "good: A warning.",
        "bad: It is broken.",
        "2 of 3 slides have a result (1 from before), 1 failed",
    ]
    assert format_counts([rows[1][1]]) == "0 of 1 slide has a result, 1 failed"
