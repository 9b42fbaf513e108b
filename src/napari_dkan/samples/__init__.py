"""Sections and checkpoints to begin with: one real section, one drawn here, two checkpoints."""

from .bundled_checkpoints import find_bundled_checkpoint, list_bundled_checkpoints
from .sample_sections import (
    SamplePaths,
    fetch_her2st_section,
    get_synthetic_section,
    is_her2st_section_local,
    write_her2st_section,
)
from .synthetic_section import SyntheticSection, draw_section

__all__ = [
    "SamplePaths",
    "SyntheticSection",
    "draw_section",
    "fetch_her2st_section",
    "find_bundled_checkpoint",
    "get_synthetic_section",
    "is_her2st_section_local",
    "list_bundled_checkpoints",
    "write_her2st_section",
]
