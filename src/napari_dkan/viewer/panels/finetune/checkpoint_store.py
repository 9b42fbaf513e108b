"""Store fine-tuned checkpoints until they are saved under a chosen name."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from ....atomic_write import atomic_write
from ....errors import OutputError
from ....samples.bundled_checkpoints import list_bundled_checkpoints


def checkpoint_folder() -> Path:
    """Return the user's folder of fine-tuned checkpoints."""
    return platformdirs.user_data_path("napari-dkan") / "fine-tuned"


def new_checkpoint_path(parent: Path, sections: Sequence[str]) -> Path:
    """Return a new path in the folder, e.g. ``her2-breast-C3.safetensors``.

    Parameters
    ----------
    parent
        The checkpoint that is fine-tuned.
    sections
        Names of the sections it is trained on.

    Raises
    ------
    OutputError
        The folder cannot be made.
    """
    folder = checkpoint_folder()
    label = sections[0] if len(sections) == 1 else f"{len(sections)}-sections"
    name = re.sub(r"[^\w.-]+", "-", f"{parent.stem}-{label}")[:80]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be made ({error.strerror}), where fine-tuned checkpoints are kept."
        ) from error
    path, number = folder / f"{name}.safetensors", 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}.safetensors"
    return path


def suggest_save_path(parent: Path, checkpoint: Path) -> Path:
    """Suggest the folder of the parent, or the home folder if the parent is bundled."""
    is_bundled = parent.resolve() in {p.resolve() for p in list_bundled_checkpoints()}
    return (Path.home() if is_bundled else parent.parent) / checkpoint.name


def check_save_path(path: Path, parent: Path) -> None:
    """Raise OutputError if a checkpoint would replace the one it was made from."""
    if path.resolve() == parent.resolve():
        raise OutputError(
            f"{path.name} is the checkpoint that this one was made from; choose another name."
        )


def move_checkpoint(checkpoint: Path, path: Path) -> None:
    """Move a checkpoint to the path that the user chose.

    Raises
    ------
    OutputError
        It cannot be written there; it then stays where it is.
    """
    if path.resolve() == checkpoint.resolve():
        return
    with atomic_write(path) as temporary:
        shutil.copyfile(checkpoint, temporary)
    checkpoint.unlink(missing_ok=True)
