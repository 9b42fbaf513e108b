"""What a layout finds in a folder, before anything large is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class SectionEntry:
    """A section that can be read.

    name : unique in its folder.
    patient : "" when only reading tells, or nothing does.
    layout : "her2st", "DKAN", "Space Ranger", "HEST-1k", "SpatialData" or "h5ad".
    read : the section as `section.build_section` describes it; raises SpotsError.
    """

    name: str
    patient: str
    layout: str
    read: Callable[[], AnnData]
