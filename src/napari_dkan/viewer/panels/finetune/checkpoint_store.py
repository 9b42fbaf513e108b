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
    return platformdirs.user_data_path("napari-dkan") / "fine-tuned"


def make_checkpoint_name(parent: Path, sections: Sequence[str]) -> str:
    """``her2-breast-C3``: what it was made from, and from which sections."""
    learnt = sections[0] if len(sections) == 1 else f"{len(sections)}-sections"
    return re.sub(r"[^\w.-]+", "-", f"{parent.stem}-{learnt}")[:80]


def new_checkpoint_path(parent: Path, sections: Sequence[str]) -> Path:
    """A file of the folder that is not there yet. Raises OutputError without a folder."""
    folder, name = checkpoint_folder(), make_checkpoint_name(parent, sections)
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
    """Beside the parent, unless that came with the package: then in the home folder."""
    bundled = parent.resolve() in {p.resolve() for p in list_bundled_checkpoints()}
    return (Path.home() if bundled else parent.parent) / checkpoint.name


def check_save_path(path: Path, parent: Path) -> None:
    """Raises OutputError when a checkpoint would replace the one it was made from."""
    if path.resolve() == parent.resolve():
        raise OutputError(
            f"{path.name} is the checkpoint that this one was made from; choose another name."
        )


def move_checkpoint(checkpoint: Path, path: Path) -> None:
    """Give the checkpoint its lasting place.

    Raises OutputError when it cannot be written there; it is still where it was then.
    """
    if path.resolve() == checkpoint.resolve():
        return
    with atomic_write(path) as temporary:
        shutil.copyfile(checkpoint, temporary)
    checkpoint.unlink(missing_ok=True)
