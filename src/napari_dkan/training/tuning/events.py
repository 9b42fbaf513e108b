"""What a fine-tuning tells while it runs: one JSON object a line with `finetune --events`.

On stdout, in this order: ``reading`` for each section, ``started``, then ``epoch`` again and again
(and ``map`` after each where a gene was asked for, ``paused`` and ``resumed`` in between), and last
either ``finished`` or ``failed``. A result that cannot be written (a full disk) is told by
``unsaved`` and kept until ``save PATH`` or ``stop`` comes.

On stdin, one line each: ``pause``, ``resume``, ``stop`` (the best so far is kept), ``gene SYMBOL``
(``gene`` alone: no map), ``save PATH``. Its end counts as ``stop``: whoever asked is gone.

A number that does not exist is null, never NaN.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """One of those below; `to_json` gives its line."""

    name: ClassVar[str] = ""

    def to_json(self) -> str:
        values = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        return json.dumps({"event": self.name, **values}, allow_nan=False)


@dataclass(frozen=True)
class Reading(Event):
    """The pixels of a section are about to be read; done : sections before it, of so many."""

    name: ClassVar[str] = "reading"
    section: str
    done: int
    of: int


@dataclass(frozen=True)
class Started(Event):
    """Counts of spots: to fit, to choose the epoch by, held out for the report, left between.

    adapt : what is adapted, never "auto". epochs : at most, None when only the clock limits it.
    pcc : of the checkpoint as it was, on the spots that choose.
    """

    name: ClassVar[str] = "started"
    spots: int
    choosing: int
    held_out: int
    between: int
    adapt: str
    epochs: int | None
    seconds: float | None
    pcc: float | None
    sections: tuple[str, ...]
    genes: int


@dataclass(frozen=True)
class EpochDone(Event):
    """number : from 1. loss : on the fitted spots. pcc : PCC-ALL on the spots that choose the
    epoch, which are not those reported on. seconds : since the first epoch began; left : about so
    many to go. best : the epoch that is kept so far, 0 for the checkpoint as it was."""

    name: ClassVar[str] = "epoch"
    number: int
    loss: float | None
    pcc: float | None
    seconds: float
    left: float | None
    best: int


@dataclass(frozen=True)
class GeneMap(Event):
    """values : of the gene at every spot of the section as it was handed over, in its order, on
    the label scale; None where a spot has no label."""

    name: ClassVar[str] = "map"
    section: str
    gene: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Paused(Event):
    """It waits for ``resume`` or ``stop``."""

    name: ClassVar[str] = "paused"


@dataclass(frozen=True)
class Resumed(Event):
    """It goes on."""

    name: ClassVar[str] = "resumed"


@dataclass(frozen=True)
class Unsaved(Event):
    """The result could not be written; it is kept until ``save PATH`` or ``stop``."""

    name: ClassVar[str] = "unsaved"
    sentence: str


@dataclass(frozen=True)
class Finished(Event):
    """path : of the checkpoint. report : the JSON that `--report` writes."""

    name: ClassVar[str] = "finished"
    better: bool
    verdict: str
    path: str
    report: dict[str, Any]


@dataclass(frozen=True)
class Failed(Event):
    """Nothing came of it."""

    name: ClassVar[str] = "failed"
    sentence: str


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value
