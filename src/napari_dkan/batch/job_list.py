"""Build the list of jobs from files, folders, globs, URLs and tables, and assign output files."""

from __future__ import annotations

import csv
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import OutputError, SlideError, SpotsError
from .slide_job import SlideJob

PATH_COLUMNS = ("checkpoint", "spots", "regions", "features")
TABLE_COLUMNS = ("slide", "mpp", *PATH_COLUMNS, "out")


def is_slide_table(text: str) -> bool:
    """Whether a word names a table."""
    return Path(text).suffix.lower() in (".csv", ".tsv")


def read_slide_table(path: Path, folder: Path, options: SlideJob) -> list[SlideJob]:
    """Jobs of a .csv or .tsv with a column ``slide`` and any of mpp, checkpoint, spots, regions,
    features and out.

    Paths are relative to the table, ``out`` to ``folder``. An empty cell is what the options say;
    a row that gives spots or regions takes them in place of the options'. Jobs without an ``out``
    of their own have the folder there.

    Raises SpotsError naming the table and the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            header = [name.strip().lower() for name in table.fieldnames or ()]
            table.fieldnames = header
            rows = [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no table in UTF-8"
        raise SpotsError(f"{path} could not be read ({said}); save it as CSV once more.") from None
    unknown = [name for name in header if name not in TABLE_COLUMNS]
    if "slide" not in header or unknown:
        wrong = f"an unknown column {unknown[0]!r}" if unknown else "no column 'slide'"
        raise SpotsError(f"{path} has {wrong}; its columns may be {', '.join(TABLE_COLUMNS)}.")
    if not rows:
        raise SpotsError(f"{path} lists no slide; give one a row.")
    return [
        _create_job_from_row(row, f"{path}, line {line}", path.parent, folder, options)
        for line, row in rows
    ]


def _create_job_from_row(
    row: dict[Any, Any], at: str, base: Path, folder: Path, options: SlideJob
) -> SlideJob:
    from ..slide.slide_location import is_remote

    if None in row:
        raise SpotsError(f"{at}: there are more cells than columns; quote names with a comma.")
    cells = {k: (v or "").strip() for k, v in row.items()}
    slide = cells["slide"]
    if not slide:
        raise SpotsError(f"{at}: there is no slide in this row; fill the cell or delete the row.")
    own: dict[str, Any] = {
        name: _resolve_path(base, cells[name]) for name in PATH_COLUMNS if cells.get(name)
    }
    if own.keys() & {"spots", "regions"}:
        own = {"spots": None, "regions": None} | own
    if cells.get("mpp"):
        try:
            own["mpp"] = float(cells["mpp"])
        except ValueError:
            raise SpotsError(f"{at}: {cells['mpp']!r} is no pixel size; give um per px.") from None
    out = folder
    if cells.get("out"):
        out = Path(os.path.abspath(folder / cells["out"]))
        if out.suffix.lower() != ".h5ad":
            raise SpotsError(f"{at}: {cells['out']} is not an .h5ad file; name one.")
    location = slide if is_remote(slide) else str(_resolve_path(base, slide))
    return replace(options, slide=location, out=out, **own)


def _resolve_path(base: Path, text: str) -> Path:
    return Path(os.path.abspath(base / os.path.expanduser(text)))


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


SLIDE_SUFFIXES = (
    ".svs",
    ".ndpi",
    ".mrxs",
    ".tif",
    ".tiff",
    ".scn",
    ".bif",
    ".svslide",
    ".vms",
    ".vmu",
)


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
    from ..slide.slide_location import is_remote, is_zarr_folder

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

    from ..slide.format_detection import JPEG_MAGIC, PNG_MAGIC, TIFF_MAGIC
    from ..slide.slide_location import is_zarr_folder

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
