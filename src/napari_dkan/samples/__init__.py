"""Sections and checkpoints to begin with: one real section, one drawn here, two checkpoints."""

from .bundled import find_bundled_checkpoint, list_bundled_checkpoints
from .her2st import fetch_her2st_section, is_her2st_section_local
from .store import SamplePaths, get_synthetic_section, write_her2st_section
from .synthetic import SyntheticSection, draw_section

__all__ = [
    "SamplePaths",
    "SyntheticSection",
    "find_bundled_checkpoint",
    "list_bundled_checkpoints",
    "fetch_her2st_section",
    "is_her2st_section_local",
    "draw_section",
    "get_synthetic_section",
    "write_her2st_section",
]
