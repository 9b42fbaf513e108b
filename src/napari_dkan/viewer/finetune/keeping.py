"""Where fine-tuned checkpoints are kept until they are saved under a name of one's own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from ...errors import OutputError
from ...files import written_whole
from ...samples.bundled import bundled_checkpoints


def kept_folder() -> Path:
    return platformdirs.user_data_path("napari-dkan") / "fine-tuned"


def name_of(parent: Path, sections: Sequence[str]) -> str:
    """``her2-breast-C3``: what it was made from, and from which sections."""
    learnt = sections[0] if len(sections) == 1 else f"{len(sections)}-sections"
    return re.sub(r"[^\w.-]+", "-", f"{parent.stem}-{learnt}")[:80]


def new_path(parent: Path, sections: Sequence[str]) -> Path:
    """A file of the folder that is not there yet. Raises OutputError without a folder."""
    folder, name = kept_folder(), name_of(parent, sections)
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


def suggested(parent: Path, kept: Path) -> Path:
    """Beside the parent, unless that came with the package: then in the home folder."""
    bundled = parent.resolve() in {p.resolve() for p in bundled_checkpoints()}
    return (Path.home() if bundled else parent.parent) / kept.name


def check_place(path: Path, parent: Path) -> None:
    """Raises OutputError when a checkpoint would replace the one it was made from."""
    if path.resolve() == parent.resolve():
        raise OutputError(
            f"{path.name} is the checkpoint that this one was made from; choose another name."
        )


def move(kept: Path, path: Path) -> None:
    """Give the checkpoint its lasting place.

    Raises OutputError when it cannot be written there; it is still where it was then.
    """
    if path.resolve() == kept.resolve():
        return
    with written_whole(path) as temporary:
        shutil.copyfile(kept, temporary)
    kept.unlink(missing_ok=True)
