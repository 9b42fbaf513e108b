"""Sample data: one real section, one synthetic section, and the bundled checkpoints."""

from .bundled_checkpoints import find_bundled_checkpoint, list_bundled_checkpoints
from .sample_sections import (
    SamplePaths,
    fetch_her2st_section,
    get_synthetic_section,
    is_her2st_section_local,
)

__all__ = [
    "SamplePaths",
    "fetch_her2st_section",
    "find_bundled_checkpoint",
    "get_synthetic_section",
    "is_her2st_section_local",
    "list_bundled_checkpoints",
]
