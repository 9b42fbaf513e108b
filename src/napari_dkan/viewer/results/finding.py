"""What belongs to a saved result, found again: its slide and its checkpoint. All for a thread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import CheckpointError
from ...export.reopen import load_result
from ...export.slide_again import find_result_slide
from ...samples.bundled import list_bundled_checkpoints
from ...slide import Slide
from ..memory import list_recent_checkpoints
from ..session import ViewerSlide
from ..torch_beside_gl import import_torch

if TYPE_CHECKING:
    from ...export.saved import SavedResult
    from ...model import Checkpoint


@dataclass(frozen=True, eq=False)
class LocatedResult:
    """A result read from a file, with what there is of its surroundings.

    shown : its slide where it is open already. slide : else, opened from its file; None where it
    is not to be found. checkpoint : None where no file has its hash.
    """

    path: Path
    saved: SavedResult
    open_slide: ViewerSlide | None
    slide: Slide | None
    checkpoint: Checkpoint | None


def locate_result(path: Path, slides: Iterable[ViewerSlide], current_checkpoint: Checkpoint | None) -> LocatedResult:
    """Read a result, and find its slide (open in the window, where it was, beside the file) and
    its checkpoint (the one in use, bundled, used lately).

    Raises ResultError when the file is not one of ours, or damaged.
    """
    saved = load_result(path)
    shown = next((s for s in slides if s.slide.fingerprint() == saved.slide_record.fingerprint), None)
    slide = None if shown is not None else find_result_slide(saved, path)
    checksum = str(saved.prediction.provenance.get("checkpoint_sha256", ""))
    if current_checkpoint is None or current_checkpoint.sha256 != checksum:
        current_checkpoint = find_checkpoint(checksum)
    return LocatedResult(path, saved, shown, slide, current_checkpoint)


def find_checkpoint(checksum: str) -> Checkpoint | None:
    """The checkpoint with this SHA-256, of those that come along or were used lately."""
    if not checksum:
        return None
    import_torch()
    from ...model import load_checkpoint
    from ...model.tensorfile import compute_sha256

    for path in (*list_bundled_checkpoints(), *list_recent_checkpoints()):
        try:
            if compute_sha256(path) == checksum:
                return load_checkpoint(path)
        except (CheckpointError, OSError):
            continue  # it is as good as gone
    return None
