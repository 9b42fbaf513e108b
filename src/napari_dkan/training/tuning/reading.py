"""Sections from folders and files, and which of them teach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SpotsError
from ...expression.layouts import find_sections

if TYPE_CHECKING:
    from anndata import AnnData


def read_finetune_sections(
    roots: Sequence[Path], training_names: Sequence[str] | None, other_names: Sequence[str]
) -> tuple[list[AnnData], list[AnnData]]:
    """Sections that teach (all but the others when not named), and the others.

    Raises SpotsError naming what is there when a section is unknown, named twice or left without
    any that teaches.
    """
    found = {}
    for root in roots:
        for section in find_sections(root):
            if section.name in found:
                raise SpotsError(f"Section {section.name} is in the data twice; give it once.")
            found[section.name] = section
    if training_names is None:
        training_names = [name for name in found if name not in other_names]
    for name in (*training_names, *other_names):
        if name not in found:
            there = ", ".join(list(found)[:4]) + (" ..." if len(found) > 4 else "")
            raise SpotsError(f"There is no section {name}; the data holds {there}.")
    both = sorted(set(training_names) & set(other_names))
    if both:
        raise SpotsError(f"{both[0]} cannot both teach and be one of --others; name it once.")
    if not training_names:
        raise SpotsError("No section is left to teach; name fewer in --others.")
    return [found[n].read() for n in training_names], [found[n].read() for n in other_names]
