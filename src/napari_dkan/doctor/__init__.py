"""Diagnostics for bug reports: versions, devices, readers, folders, display and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .check_result import CheckResult


def list_sections() -> Sequence[tuple[str, Callable[[], Iterator[CheckResult]]]]:
    """List the sections of the report: their names and the checks that fill them."""
    from . import compute_checks, environment_checks, reader_checks

    return (
        (environment_checks.VERSIONS_SECTION, environment_checks.check_versions),
        (compute_checks.DEVICES_SECTION, compute_checks.check_devices),
        (reader_checks.READERS_SECTION, reader_checks.check_readers),
        (environment_checks.FOLDERS_SECTION, environment_checks.check_folders),
        (environment_checks.DISPLAY_SECTION, environment_checks.check_display),
        (compute_checks.CHECKPOINTS_SECTION, compute_checks.check_checkpoints),
    )
