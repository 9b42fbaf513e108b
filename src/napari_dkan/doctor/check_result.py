"""The result of one diagnostic check, and how to run a check that may fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ..errors import DkanError


class CheckStatus(StrEnum):
    """broken : something here does not work. note : it works, with less than there could be."""

    ok = "ok"
    note = "note"
    broken = "broken"


@dataclass(frozen=True)
class CheckResult:
    """What was found. seconds : that trying it took, None where nothing was tried."""

    section: str
    name: str
    said: str
    state: CheckStatus = CheckStatus.ok
    seconds: float | None = None


def run_check(section: str, name: str, check: Callable[[], str]) -> CheckResult:
    """The finding of a check that says what it found, or raises because something is broken.

    It catches all there is: what is broken may break in any way, and the page goes on.
    """
    start = time.perf_counter()
    try:
        said, state = check(), CheckStatus.ok
    except DkanError as error:
        said, state = str(error), CheckStatus.broken
    except Exception as error:
        text = (str(error).strip() or "no reason given").splitlines()[0]
        said, state = f"{type(error).__name__}: {text}", CheckStatus.broken
    return CheckResult(section, name, said, state, time.perf_counter() - start)


def run_section(name: str, check: Callable[[], Iterator[CheckResult]]) -> Iterator[CheckResult]:
    """The findings of a part of the page; where even its beginning breaks, that is one."""
    try:
        yield from check()
    except Exception as error:
        yield CheckResult(name, name, f"{type(error).__name__}: {error}", CheckStatus.broken)
