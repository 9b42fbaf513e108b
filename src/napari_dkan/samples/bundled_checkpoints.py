"""Checkpoints bundled with the package."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError

CHECKPOINT_FOLDER = Path(__file__).resolve().parent.parent / "checkpoints"


def list_bundled_checkpoints() -> list[Path]:
    """Return the bundled checkpoint files, the one for real tissue first."""
    return sorted(CHECKPOINT_FOLDER.glob("*.safetensors"))


def find_bundled_checkpoint(name: str) -> Path:
    """Return the file of a bundled checkpoint, "her2-breast" or "synthetic".

    Raises
    ------
    CheckpointError
        If there is none of this name; the message lists those that exist.
    """
    path = CHECKPOINT_FOLDER / f"{name}.safetensors"
    if path in list_bundled_checkpoints():
        return path
    available = ", ".join(p.stem for p in list_bundled_checkpoints()) or "none"
    raise CheckpointError(
        f"No checkpoint {name} is bundled with this installation (there: {available}); "
        "give a checkpoint file."
    )
