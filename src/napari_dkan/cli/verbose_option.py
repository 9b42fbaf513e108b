"""The option ``--verbose`` of commands that read sections or slides."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, get_type_hints

import typer

VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Say what was read of each file, what was left out and why.",
    ),
]


def with_verbose_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--verbose`` to a command: it prints what the readers log about each file."""

    @functools.wraps(command)
    def run(verbose: bool = False, **values: Any) -> None:
        with _print_log(verbose):
            command(**values)

    hints = get_type_hints(command, include_extras=True)
    parameters = [
        parameter.replace(
            kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints.get(name, parameter.annotation)
        )
        for name, parameter in inspect.signature(command).parameters.items()
    ]
    option = inspect.Parameter(
        "verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=VerboseOption
    )
    run.__annotations__ = hints | {"verbose": VerboseOption}
    run.__signature__ = inspect.Signature([*parameters, option])  # type: ignore[attr-defined]
    return run


class _StderrHandler(logging.Handler):
    """Prints each message once, above a progress line: a slide may be opened several times."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        message = record.getMessage()
        if message not in self._printed:
            self._printed.add(message)
            tqdm.write(message, file=sys.stderr)


@contextmanager
def _print_log(enabled: bool) -> Iterator[None]:
    logger, handler = logging.getLogger("napari_dkan"), _StderrHandler()
    if not enabled:
        yield
        return
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
