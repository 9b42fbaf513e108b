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
class FinetuneEvent:
    """One of those below; `to_json` gives its line."""

    name: ClassVar[str] = ""

    def to_json(self) -> str:
        values = {f.name: _to_json_value(getattr(self, f.name)) for f in fields(self)}
        return json.dumps({"event": self.name, **values}, allow_nan=False)


@dataclass(frozen=True)
class SectionReadStarted(FinetuneEvent):
    """The pixels of a section are about to be read; done : sections before it, of so many."""

    name: ClassVar[str] = "reading"
    section: str
    done: int
    of: int


@dataclass(frozen=True)
class FinetuneStarted(FinetuneEvent):
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
class EpochFinished(FinetuneEvent):
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
class GeneMapComputed(FinetuneEvent):
    """values : of the gene at every spot of the section as it was handed over, in its order, on
    the label scale; None where a spot has no label."""

    name: ClassVar[str] = "map"
    section: str
    gene: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class FinetunePaused(FinetuneEvent):
    """It waits for ``resume`` or ``stop``."""

    name: ClassVar[str] = "paused"


@dataclass(frozen=True)
class FinetuneResumed(FinetuneEvent):
    """It goes on."""

    name: ClassVar[str] = "resumed"


@dataclass(frozen=True)
class SaveFailed(FinetuneEvent):
    """The result could not be written; it is kept until ``save PATH`` or ``stop``."""

    name: ClassVar[str] = "unsaved"
    sentence: str


@dataclass(frozen=True)
class FinetuneFinished(FinetuneEvent):
    """path : of the checkpoint. report : the JSON that `--report` writes."""

    name: ClassVar[str] = "finished"
    better: bool
    verdict: str
    path: str
    report: dict[str, Any]


@dataclass(frozen=True)
class FinetuneFailed(FinetuneEvent):
    """Nothing came of it."""

    name: ClassVar[str] = "failed"
    sentence: str


def _to_json_value(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, (list, tuple)):
        return [_to_json_value(v) for v in value]
    if isinstance(value, dict):
        return {k: _to_json_value(v) for k, v in value.items()}
    return value
