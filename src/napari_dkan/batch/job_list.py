"""Build the list of jobs from files, folders, globs, URLs and tables, and assign output files."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import OutputError, SlideError
from .slide_job import SlideJob
from .slide_table import is_slide_table, read_slide_table

RESULT_SUFFIX = ".h5ad"
MAX_SHOWN_FILES = 5  # names of files that are left out


def assign_output_files(jobs: Sequence[SlideJob], folder: Path) -> list[SlideJob]:
    """Assign a file to every job whose ``out`` is the folder: ``C3.h5ad`` for C3.svs.

    Slides with the same name get more of their paths in the name, ``monday-C3.h5ad`` and
    ``tuesday-C3.h5ad``, or ``C3.svs.h5ad`` and ``C3.tif.h5ad``. Several jobs for one slide are
    numbered. Files that a table assigned stay.

    Raises
    ------
    OutputError
        Two jobs would write the same file.
    """
    used = Counter(_fold_case(job.out) for job in jobs if job.out != folder)
    conflicting = [job for job in jobs if job.out != folder and used[_fold_case(job.out)] > 1]
    if conflicting:
        first, second = conflicting[:2]
        raise OutputError(
            f"{first.name} and {second.name} would both be written to {first.out}; "
            "give each its own file in the column out."
        )
    unnamed = [job for job in jobs if job.out == folder]
    names = [_candidate_name(job, 0) for job in unnamed]
    for n_extra in range(1, 2 * max((len(Path(j.location).parts) for j in unnamed), default=0)):
        slides = set(zip((n.casefold() for n in names), (j.slide for j in unnamed), strict=True))
        count = Counter(name for name, _ in slides)
        if max(count.values(), default=1) == 1:
            break
        names = [
            _candidate_name(job, n_extra) if count[name.casefold()] > 1 else name
            for job, name in zip(unnamed, names, strict=True)
        ]
    remaining_names = iter(names)
    assigned = []
    for job in jobs:
        if job.out == folder:
            out = _find_unused_path(folder, next(remaining_names), used)
            used[_fold_case(out)] += 1
            job = replace(job, out=out)
        assigned.append(job)
    return assigned


def _candidate_name(job: SlideJob, n_extra: int) -> str:
    """Return the stem of the slide, its file name, and both with names of folders before them."""
    from ..slide.slide_location import slide_stem

    path = Path(job.location)
    n_folders, with_suffix = divmod(n_extra, 2)
    folders = [part for part in path.parent.parts if part != path.anchor]
    name = path.name if with_suffix else slide_stem(path.name) or path.name
    return "-".join([*folders[max(0, len(folders) - n_folders) :], name])


def _find_unused_path(folder: Path, name: str, used: Counter[str]) -> Path:
    out, number = folder / f"{name}{RESULT_SUFFIX}", 2
    while used[_fold_case(out)]:
        out, number = folder / f"{name}-{number}{RESULT_SUFFIX}", number + 1
    return out


def _fold_case(path: Path) -> str:
    """Return a text that is equal for names that a file system may treat as equal."""
    return str(path).casefold()


@dataclass(frozen=True)
class JobList:
    """Jobs with different output files, and notes on inputs that were left out."""

    jobs: tuple[SlideJob, ...]
    notes: tuple[str, ...] = ()


def build_job_list(inputs: Sequence[str], folder: Path, options: SlideJob) -> JobList:
    """Build the jobs for inputs of the batch command.

    Parameters
    ----------
    inputs
        Slides, folders (the slides directly in them, by content), globs, URLs, and tables (see
        `read_slide_table`).
    folder
        For results.
    options
        For all jobs; cells of a table override them.

    Raises
    ------
    SlideError
        No slide is found.
    SpotsError
        A table has an error.
    OutputError
        Two slides would be written to the same file.
    """
    jobs: list[SlideJob] = []
    notes: list[str] = []
    for text in inputs:
        if is_slide_table(text):
            table = read_slide_table(Path(os.path.expanduser(text)), folder, options)
            jobs += table.jobs
            notes += table.notes
            continue
        slides, others = _find_slides(text)
        if others:
            files_are = "1 file is" if len(others) == 1 else f"{len(others)} files are"
            shown = ", ".join(others[:MAX_SHOWN_FILES])
            shown += ", ..." if len(others) > MAX_SHOWN_FILES else ""
            notes.append(f"{text}: {files_are} no slide and left out ({shown}).")
        if not slides:
            raise SlideError(f"There is no slide in {text}; check the name.")
        jobs += [replace(options, slide=slide, out=folder) for slide in slides]
    unique, duplicates = _remove_duplicates(jobs)
    notes += [f"{name} was given more than once; it is done once." for name in duplicates]
    return JobList(tuple(assign_output_files(unique, folder)), tuple(notes))


def _find_slides(text: str) -> tuple[list[str], list[str]]:
    """Return the slides that an input stands for, and the names of other files among them.

    A single path is taken as it is: if it is not a slide, its job fails.
    """
    from ..slide.slide_location import is_remote, is_zarr_folder

    if is_remote(text):
        return [text], []
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if path.is_dir() and not is_zarr_folder(path):
        return _filter_slides(path.iterdir())
    if not os.path.lexists(path) and glob.has_magic(text):
        pattern = os.path.expanduser(text)
        return _filter_slides(Path(os.path.abspath(p)) for p in glob.iglob(pattern, recursive=True))
    return [str(path)], []


def _filter_slides(paths: Iterator[Path]) -> tuple[list[str], list[str]]:
    from ..slide.format_detection import is_slide_file

    slides, others = [], []
    for path in sorted(p for p in paths if not p.name.startswith(".")):
        if is_slide_file(path):
            slides.append(str(path))
        elif path.is_file():
            others.append(path.name)
    return slides, others


def _remove_duplicates(jobs: Sequence[SlideJob]) -> tuple[list[SlideJob], list[str]]:
    """Return the different jobs, and the names of the duplicates."""
    unique: dict[SlideJob, SlideJob] = {}
    duplicates = []
    for job in jobs:
        key = replace(job, slide=os.path.realpath(job.slide)) if os.path.exists(job.slide) else job
        if key in unique:
            duplicates.append(job.name)
        else:
            unique[key] = job
    return list(unique.values()), duplicates
