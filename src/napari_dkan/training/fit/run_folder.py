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

CONFIG_FILE = "config.json"
RESULT_FILE = "result.npz"
LAST_CHECKPOINT = "last.ckpt"
CURVE_FILE = "curve.csv"

ArraysByName = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class RunFolder:
    """``config.json``, ``card.json`` and a folder per fold with its curves and result.

    Every file is written atomically, so an interrupted run (a crash, a full disk) can be resumed.
    """

    path: Path

    @classmethod
    def create_or_resume(
        cls, path: Path, config: Mapping[str, Any], resume: bool = False
    ) -> RunFolder:
        """Create a run folder, or with ``resume`` open an existing one.

        Raises
        ------
        OutputError
            When the folder holds a run and resume is False, or holds a run of other settings or
            data, with the names of the differences.
        """
        folder = cls(path)
        requested = json.loads(json.dumps(config))
        existing = folder._read_config()
        if existing is not None:
            if not resume:
                raise OutputError(
                    f"{path} holds a run already; go on with it by --resume, or give another "
                    "folder by --run."
                )
            differences = list_differences(existing.get("run", {}), requested["run"])
            if differences:
                raise OutputError(
                    f"{path} holds a run of other settings or data ({', '.join(differences[:3])}); "
                    "resume with the same ones, or give another folder by --run."
                )
            return folder
        folder.write_json(CONFIG_FILE, requested)
        return folder

    def fold_path(self, name: str) -> Path:
        """Return the folder of a fold's curves and result."""
        return self.path / "folds" / re.sub(r"[^\w.-]+", "-", name)

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file into the folder; raises OutputError."""
        write_json(self.path / name, content)

    def save_result(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Save a fold's result and remove its checkpoints; raises OutputError."""
        folder = self.fold_path(name)
        with atomic_write(folder / RESULT_FILE) as file, file.open("wb") as out:
            table: dict[str, Any] = dict(arrays)
            np.savez(out, **table)
        for leftover in folder.rglob(LAST_CHECKPOINT):
            leftover.unlink(missing_ok=True)

    def load_result(self, name: str) -> ArraysByName | None:
        """Load the result of a finished fold; None when there is none.

        Raises
        ------
        OutputError
            When the file is damaged.
        """
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
    """List the names of the entries in which two JSON objects differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(k for k in other if k not in one)]
        return [
            difference
            for key in keys
            for difference in list_differences(
                one.get(key), other.get(key), f"{name} {key}".strip()
            )
        ]
    return [] if one == other else [name]
