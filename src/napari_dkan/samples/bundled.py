"""Checkpoints that come with the package."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError

FOLDER = Path(__file__).resolve().parent.parent / "checkpoints"


def bundled_checkpoints() -> list[Path]:
    """All of them, the one for real tissue first."""
    return sorted(FOLDER.glob("*.safetensors"))


def bundled_checkpoint(name: str) -> Path:
    """The checkpoint of this name: "her2-breast" or "synthetic".

    Raises CheckpointError naming those that are there.
    """
    path = FOLDER / f"{name}.safetensors"
    if path in bundled_checkpoints():
        return path
    there = ", ".join(p.stem for p in bundled_checkpoints()) or "none"
    raise CheckpointError(
        f"No checkpoint {name} is bundled with this installation (there: {there}); "
        "give a checkpoint file."
    )
