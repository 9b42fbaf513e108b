"""The folder of a run: configuration, results per fold, and checkpoints to resume from."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...atomic_write import atomic_write, write_json
from ...errors import OutputError
from .fit_callback import LAST_CHECKPOINT

CONFIG_FILE = "config.json"
RESULT_FILE = "result.npz"

ArraysByName = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class RunFolder:
    """``config.json``, ``card.json`` and a folder per fold with curves and its result.

    Every file is written whole, so a run that ends in the middle (an interruption, a full disk)
    can be gone on with.
    """

    path: Path

    @classmethod
    def create_or_resume(
        cls, path: Path, config: Mapping[str, Any], resume: bool = False
    ) -> RunFolder:
        """A new run, or with ``resume`` the one that is there.

        Raises OutputError when it holds a run and resume is not asked for, or holds one of other
        settings or data, naming what differs.
        """
        folder = cls(path)
        wanted = json.loads(json.dumps(config))
        there = folder._read_config()
        if there is not None:
            if not resume:
                raise OutputError(
                    f"{path} holds a run already; go on with it by --resume, or give another "
                    "folder by --run."
                )
            differs = list_differences(there.get("run", {}), wanted["run"])
            if differs:
                raise OutputError(
                    f"{path} holds a run of other settings or data ({', '.join(differs[:3])}); "
                    "resume with the same ones, or give another folder by --run."
                )
            return folder
        folder.write_json(CONFIG_FILE, wanted)
        return folder

    def fold_path(self, name: str) -> Path:
        """Where a fold keeps its curves and its result."""
        return self.path / "folds" / re.sub(r"[^\w.-]+", "-", name)

    def write_json(self, name: str, content: Any) -> None:
        """Raises OutputError."""
        write_json(self.path / name, content)

    def save_result(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The fold's result, whole; what only served to resume it goes. Raises OutputError."""
        folder = self.fold_path(name)
        with atomic_write(folder / RESULT_FILE) as file, file.open("wb") as out:
            table: dict[str, Any] = dict(arrays)
            np.savez(out, **table)
        for leftover in folder.rglob(LAST_CHECKPOINT):
            leftover.unlink(missing_ok=True)

    def load_result(self, name: str) -> ArraysByName | None:
        """A finished fold's result, None where there is none. Raises OutputError when damaged."""
        path = self.fold_path(name) / RESULT_FILE
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as data:
                return {key: data[key] for key in data.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise OutputError(f"{path} is damaged; remove it to run the fold again.") from error

    def _read_config(self) -> dict[str, Any] | None:
        path = self.path / CONFIG_FILE
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{path} cannot be read as a run's settings; give another folder by --run."
            ) from error
        return content if isinstance(content, dict) else {}


def list_differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Names of the entries in which two JSON objects differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(k for k in other if k not in one)]
        return [
            found
            for key in keys
            for found in list_differences(one.get(key), other.get(key), f"{name} {key}".strip())
        ]
    return [] if one == other else [name]
