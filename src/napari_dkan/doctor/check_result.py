"""The result of one diagnostic check, and how to run a check that may fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ..errors import DkanError


class CheckStatus(StrEnum):
    """Whether a check passed.

    ``note`` means that everything works, but with restrictions. The values are part of the JSON
    output.
    """

    ok = "ok"
    note = "note"
    broken = "broken"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check; the field names are keys of the JSON output.

    Attributes
    ----------
    section, name
        Where the report shows it.
    said
        The message.
    state
        Whether the check passed.
    seconds
        Duration of the check, None if nothing was executed.
    """

    section: str
    name: str
    said: str
    state: CheckStatus = CheckStatus.ok
    seconds: float | None = None


def run_check(section: str, name: str, check: Callable[[], str]) -> CheckResult:
    """Run a check that returns its message, or raises if something is broken.

    Every Exception is caught, since a broken installation may fail in any way.
    """
    start = time.perf_counter()
    try:
        message, status = check(), CheckStatus.ok
    except DkanError as error:
        message, status = str(error), CheckStatus.broken
    except Exception as error:
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        message, status = f"{type(error).__name__}: {reason}", CheckStatus.broken
    return CheckResult(section, name, message, status, time.perf_counter() - start)


def run_section(name: str, check: Callable[[], Iterator[CheckResult]]) -> Iterator[CheckResult]:
    """Yield the results of a section; an Exception of the section itself is one more result."""
    try:
        yield from check()
    except Exception as error:
        yield CheckResult(name, name, f"{type(error).__name__}: {error}", CheckStatus.broken)
