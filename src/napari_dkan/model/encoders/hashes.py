"""SHA-256 of weights files, kept, as hashing gigabytes takes seconds."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import EncoderError, OutputError
from ...files import written_whole

_MOST = 200  # files remembered


def sha256_of_weights(path: Path) -> str:
    """Hex SHA-256 of a file; of one that did not change since it was hashed, the one noted then.

    Raises EncoderError when it cannot be read.
    """
    try:
        stamp = _stamp(path)
        noted = _noted().get(_name(path))
        if isinstance(noted, dict) and noted.get("stamp") == stamp:
            return str(noted.get("sha256"))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(
            f"{path} cannot be used as encoder weights: {error.strerror or error}."
        ) from None
    note(path, digest)
    return digest


def note(path: Path, digest: str) -> None:
    """Keep the SHA-256 of a file as it is now. Where nothing can be kept it is hashed again."""
    with suppress(OSError, OutputError):
        known = list(_noted().items())[-_MOST:]
        known.append((_name(path), {"stamp": _stamp(path), "sha256": digest}))
        with written_whole(_file()) as temporary:
            temporary.write_text(json.dumps(dict(known), indent=1), encoding="utf-8")


def _noted() -> dict[str, Any]:
    try:
        data = json.loads(_file().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _name(path: Path) -> str:
    return str(path.resolve())


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _file() -> Path:
    import platformdirs

    named = os.environ.get("NAPARI_DKAN_CACHE")
    folder = Path(named) if named else platformdirs.user_cache_path("napari-dkan")
    return folder / "weights.json"
