"""What belongs to a saved result, found again: its slide and its checkpoint. All for a thread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import CheckpointError
from ...export.reopen import reopen
from ...export.slide_again import find_slide
from ...samples.bundled import bundled_checkpoints
from ...slide import Slide
from ..memory import recent_checkpoints
from ..session import OpenSlide
from ..torch_beside_gl import import_torch

if TYPE_CHECKING:
    from ...export.saved import Saved
    from ...model import Checkpoint


@dataclass(frozen=True, eq=False)
class Found:
    """A result read from a file, with what there is of its surroundings.

    shown : its slide where it is open already. slide : else, opened from its file; None where it
    is not to be found. checkpoint : None where no file has its hash.
    """

    path: Path
    saved: Saved
    shown: OpenSlide | None
    slide: Slide | None
    checkpoint: Checkpoint | None


def find(path: Path, slides: Iterable[OpenSlide], known: Checkpoint | None) -> Found:
    """Read a result, and find its slide (open in the window, where it was, beside the file) and
    its checkpoint (the one in use, bundled, used lately).

    Raises ResultError when the file is not one of ours, or damaged.
    """
    saved = reopen(path)
    shown = next((s for s in slides if s.slide.fingerprint() == saved.slide.fingerprint), None)
    slide = None if shown is not None else find_slide(saved, path)
    checksum = str(saved.prediction.provenance.get("checkpoint_sha256", ""))
    if known is None or known.sha256 != checksum:
        known = find_checkpoint(checksum)
    return Found(path, saved, shown, slide, known)


def find_checkpoint(checksum: str) -> Checkpoint | None:
    """The checkpoint with this SHA-256, of those that come along or were used lately."""
    if not checksum:
        return None
    import_torch()
    from ...model import load_checkpoint
    from ...model.tensorfile import sha256_of

    for path in (*bundled_checkpoints(), *recent_checkpoints()):
        try:
            if sha256_of(path) == checksum:
                return load_checkpoint(path)
        except (CheckpointError, OSError):
            continue  # it is as good as gone
    return None
