"""Answers of web services kept on disk, so that nothing is asked twice."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...files import atomic_write


@dataclass(frozen=True)
class ResponseCache:
    """JSON values in a folder, each under the hash of its key; delete the folder to ask again."""

    folder: Path

    def get(self, *key: str) -> Any:
        """What was kept under a key, None when nothing was or the file is damaged."""
        try:
            return json.loads(self._path(key).read_bytes())["answer"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, response: Any, *key: str) -> None:
        """Keep an answer. Raises OutputError when the folder does not take it."""
        with atomic_write(self._path(key)) as temporary:
            temporary.write_text(json.dumps({"answer": response}), encoding="utf-8")

    def _path(self, key: tuple[str, ...]) -> Path:
        return self.folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"


def gene_cache_folder() -> Path:
    """Where answers are kept between sessions."""
    import platformdirs

    return platformdirs.user_cache_path("napari-dkan") / "genes"
