"""Which slides are meant: files, folders, globs, addresses, and tables that list them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import SlideError
from .job import SlideJob
from .listing import is_slide_table, read_slide_table
from .naming import assign_output_files

SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".tif", ".tiff", ".scn", ".bif", ".svslide", ".vms", ".vmu")


@dataclass(frozen=True)
class JobList:
    """Jobs, each with a file of its own to write; and what was left out of what was asked."""

    jobs: tuple[SlideJob, ...]
    notes: tuple[str, ...] = ()


def build_job_list(inputs: Sequence[str], folder: Path, options: SlideJob) -> JobList:
    """The jobs for what was asked, with results in ``folder``.

    asked : slides, folders (the slides right in them, by content), globs, addresses, and .csv or
    .tsv tables (see `listing`). options : for all of them; a table's own cells come before.

    Raises SlideError where nothing is found, SpotsError for a bad table, OutputError when two
    slides would be written to one file.
    """
    jobs: list[SlideJob] = []
    notes: list[str] = []
    for text in inputs:
        if is_slide_table(text):
            jobs += read_slide_table(Path(text), folder, options)
            continue
        found, other = _find_slides(text)
        if other:
            were = "1 file is" if other == 1 else f"{other} files are"
            notes.append(f"{text}: {were} no slide and left out.")
        if not found:
            raise SlideError(f"There is no slide in {text}; check the name.")
        jobs += [replace(options, slide=slide, out=folder) for slide in found]
    once, again = _remove_duplicates(jobs)
    notes += [f"{name} was given more than once; it is done once." for name in again]
    return JobList(tuple(assign_output_files(once, folder)), tuple(notes))


def _find_slides(text: str) -> tuple[list[str], int]:
    """Slides that one word stands for, and how many other files lay among them.

    What is named by itself is taken as it is: if it is no slide, that is one failed slide.
    """
    from ..slide.address import is_remote
    from ..slide.slide import is_zarr_folder

    if is_remote(text):
        return [text], 0
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if path.is_dir() and not is_zarr_folder(path):
        return _filter_slides(path.iterdir())
    if not os.path.lexists(path) and glob.has_magic(text):
        pattern = os.path.expanduser(text)
        return _filter_slides(Path(os.path.abspath(p)) for p in glob.iglob(pattern, recursive=True))
    return [str(path)], 0


def _filter_slides(paths: Iterator[Path]) -> tuple[list[str], int]:
    slides, other = [], 0
    for path in sorted(p for p in paths if not p.name.startswith(".")):
        if is_slide_file(path):
            slides.append(str(path))
        elif path.is_file():
            other += 1
    return slides, other


def is_slide_file(path: Path) -> bool:
    """By its first bytes, or a name that only slides have: a damaged one must be told of."""
    import openslide

    from ..slide.opening import JPEG_MAGIC, PNG_MAGIC, TIFF_MAGIC
    from ..slide.slide import is_zarr_folder

    if path.is_dir():
        return is_zarr_folder(path)
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        start = b""
    if path.suffix.lower() in SLIDE_SUFFIXES:
        return True
    if start.startswith((*TIFF_MAGIC, JPEG_MAGIC, PNG_MAGIC)):
        return True
    return openslide.OpenSlide.detect_format(str(path)) is not None


def _remove_duplicates(jobs: Sequence[SlideJob]) -> tuple[list[SlideJob], list[str]]:
    """Jobs that differ, and the names of those that were there before."""
    seen: dict[SlideJob, SlideJob] = {}
    again = []
    for job in jobs:
        same = replace(job, slide=os.path.realpath(job.slide)) if os.path.exists(job.slide) else job
        if same in seen:
            again.append(job.name)
        else:
            seen[same] = job
    return list(seen.values()), again
