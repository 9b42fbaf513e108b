"""What the documentation tells a reader to type: commands, and blocks of Python."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = {"napari-dkan", "python", "pip", "make", "dask", "vips", "napari", "conda", "git", "cd"}
SHELL = {"sh", "bash", "console"}
INLINE = re.compile(r"`napari-dkan ([^`]+)`")


@dataclass(frozen=True)
class Said:
    """A command of a page as words, or a block of Python as text."""

    page: str
    line: int
    text: str

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(shlex.split(self.text, comments=True))

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text.strip().splitlines()[0]}"


def commands(page: Path) -> list[Said]:
    """Every line of a shell block, and every line elsewhere in code that begins with a program."""
    found = []
    for number, language, lines in _code(page):
        joined = "\n".join(lines).replace("\\\n", " ").splitlines()
        for text in joined if language in {"", *SHELL} else ():
            first = text.split(maxsplit=1)[:1]
            if first and (language in SHELL or first[0] in PROGRAMS):
                found.append(Said(page.name, number, re.sub(r"\s+", " ", text).strip()))
    return found


def python_blocks(page: Path) -> list[Said]:
    return [
        Said(page.name, n, "\n".join(ls)) for n, language, ls in _code(page) if language == "python"
    ]


def mentioned(page: Path) -> list[str]:
    """Commands within a sentence: ``napari-dkan info``."""
    return [" ".join(m.split()) for m in INLINE.findall(page.read_text(encoding="utf-8"))]


def block_with(page: Path, first: str) -> str:
    """The block of code that begins with a line: a file that a page shows."""
    return next("\n".join(lines) for _, _, lines in _code(page) if lines[:1] == [first])


def _code(page: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, language and lines of each fenced or indented block."""
    fence, language, start, block = False, "", 0, []
    for number, line in enumerate([*page.read_text(encoding="utf-8").splitlines(), ""], 1):
        if line.startswith("```"):
            if fence:
                yield start, language, block
            fence, language, start, block = not fence, line[3:].strip(), number + 1, []
        elif fence:
            block.append(line)
        elif line.startswith("    "):
            start = start if block else number
            block.append(line[4:])
        elif block:
            yield start, "", block
            block = []
