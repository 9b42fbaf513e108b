"""What a slide's result is called: after the slide, and never like another's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import OutputError
from .job import SlideJob

RESULT_SUFFIX = ".h5ad"


def assign_output_files(jobs: Sequence[SlideJob], folder: Path) -> list[SlideJob]:
    """The jobs with their files: ``C3.h5ad`` for C3.svs, whatever the others are called.

    Two slides of one name get names with more of their paths in them, ``monday-C3.h5ad`` and
    ``tuesday-C3.h5ad``, or ``C3.svs.h5ad`` and ``C3.tif.h5ad``; one slide that is to be done in
    several ways is numbered. A job whose file is known already (from a table) keeps it; one whose
    ``out`` is the folder has none yet.

    Raises OutputError when two jobs are to write one file.
    """
    taken = Counter(_fold_case(job.out) for job in jobs if job.out != folder)
    twice = [job for job in jobs if job.out != folder and taken[_fold_case(job.out)] > 1]
    if twice:
        raise OutputError(
            f"{twice[0].name} and {twice[1].name} would both be written to {twice[0].out}; "
            "give each its own file in the column out."
        )
    free = [job for job in jobs if job.out == folder]
    names = [_candidate_name(job, 0) for job in free]
    for more in range(1, 2 * max((len(Path(j.location).parts) for j in free), default=0)):
        slides = set(zip((n.casefold() for n in names), (j.slide for j in free), strict=True))
        count = Counter(name for name, _ in slides)
        if max(count.values(), default=1) == 1:
            break
        names = [
            _candidate_name(job, more) if count[name.casefold()] > 1 else name
            for job, name in zip(free, names, strict=True)
        ]
    chosen = iter(names)
    made = []
    for job in jobs:
        if job.out == folder:
            out = _find_unused_path(folder, next(chosen), taken)
            taken[_fold_case(out)] += 1
            job = replace(job, out=out)
        made.append(job)
    return made


def _candidate_name(job: SlideJob, n_extra: int) -> str:
    """The slide's stem, its file name, and both again with the names of folders before it."""
    path = Path(job.location)
    stem = path.name.removesuffix(path.suffix).removesuffix(".ome") or path.name
    folders, whole = divmod(n_extra, 2)
    above = [part for part in path.parent.parts if part != path.anchor]
    return "-".join([*above[max(0, len(above) - folders) :], path.name if whole else stem])


def _find_unused_path(folder: Path, name: str, taken: Counter[str]) -> Path:
    out, number = folder / f"{name}{RESULT_SUFFIX}", 2
    while taken[_fold_case(out)]:
        out, number = folder / f"{name}-{number}{RESULT_SUFFIX}", number + 1
    return out


def _fold_case(path: Path) -> str:
    """Equal for names that some file system takes for one."""
    return str(path).casefold()
