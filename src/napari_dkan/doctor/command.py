"""`napari-dkan doctor`: the page that goes with a bug report."""

from __future__ import annotations

import faulthandler
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from .finding import Finding, State, section


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Try everything this program stands on and print what a bug report needs.

    Nothing is sent anywhere. Ends with 1 when something is broken.
    """
    faulthandler.enable()  # a device that kills the process is named by where it did
    found: list[Finding] = []
    for name, check in _sections():
        part = list(section(name, check))
        found += part
        if not as_json:
            typer.echo(page(name, part))
    broken = [f for f in found if f.state is State.broken]
    if as_json:
        typer.echo(json.dumps([asdict(f) for f in found], indent=1))
    else:
        typer.echo(verdict(broken))
    if broken:
        raise typer.Exit(1)


def page(name: str, found: Sequence[Finding]) -> str:
    """A section as lines; what is not as it should be has a mark before it."""
    marks = {State.ok: "  ", State.note: "- ", State.broken: "! "}
    width = max((len(f.name) for f in found), default=0)
    lines = [name]
    for f in found:
        took = "" if f.seconds is None or f.seconds < 0.1 else f" ({f.seconds:.1f} s)"
        lines.append(f"{marks[f.state]}{f.name.ljust(width)}  {f.said}{took}")
    return "\n".join(lines) + "\n"


def verdict(broken: Sequence[Finding]) -> str:
    if not broken:
        return "Nothing is broken."
    names = ", ".join(f"{f.section}: {f.name}" for f in broken)
    return f"{len(broken)} of these are broken: {names}."


def _sections() -> Sequence[tuple[str, Callable[[], Iterator[Finding]]]]:
    from . import checkpoints, devices, display, folders, readers, versions

    return (
        (versions.NAME, versions.versions),
        (devices.NAME, devices.devices),
        (readers.NAME, readers.readers),
        (folders.NAME, folders.folders),
        (display.NAME, display.display),
        (checkpoints.NAME, checkpoints.checkpoints),
    )
