"""Sections and checkpoints to begin with: one real section, one drawn here, two checkpoints."""

from .bundled import bundled_checkpoint, bundled_checkpoints
from .her2st import fetch_section, has_section
from .store import SamplePaths, synthetic_section, write_section
from .synthetic import SyntheticSection, make_section

__all__ = [
    "SamplePaths",
    "SyntheticSection",
    "bundled_checkpoint",
    "bundled_checkpoints",
    "fetch_section",
    "has_section",
    "make_section",
    "synthetic_section",
    "write_section",
]
