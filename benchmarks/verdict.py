"""What a benchmark found, beside what was to be reached, as one row of a table."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

FILE = "NAPARI_DKAN_VERDICTS"  # names a file that gathers the rows of several benchmarks


@dataclass(frozen=True)
class Figure:
    """One row.

    Attributes
    ----------
    met
        None where it could not be run.
    note
        The cause of a miss, or why it was not run.
    command
        Filled in when it is printed: the script with its arguments.
    """

    what: str
    where: str
    target: str
    figure: str
    met: bool | None
    note: str = ""
    command: str = ""

    @property
    def verdict(self) -> str:
        word = {True: "met", False: "missed", None: "not run"}[self.met]
        return f"{word}: {self.note}" if self.note else word


def print_table(figures: Sequence[Figure]) -> None:
    """As Markdown; also one line of JSON each to the file that gathers them, where there is one."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    figures = [f if f.command else replace(f, command=command) for f in figures]
    print(f"\n{format_table(figures)}\n", flush=True)
    if gathered := os.environ.get(FILE):
        with Path(gathered).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(f)) + "\n" for f in figures)


def format_table(figures: Sequence[Figure]) -> str:
    """A Markdown table; commands are scripts of this folder."""
    lines = ["| what | where | command | target | figure | verdict |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {f.what} | {f.where} | `{f.command}` | {f.target} | {f.figure} | {f.verdict} |"
        for f in figures
    ]
    return "\n".join(lines)


def read_figures(path: Path) -> list[Figure]:
    """The rows that benchmarks left in a file."""
    if not path.is_file():
        return []
    return [Figure(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
