"""SHA-256 of weights files, kept, as hashing gigabytes takes seconds."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import EncoderError, OutputError
from ...files import atomic_write

_MAX_CACHED_HASHES = 200  # files remembered


def get_weights_sha256(path: Path) -> str:
    """Hex SHA-256 of a file; of one that did not change since it was hashed, the one noted then.

    Raises EncoderError when it cannot be read.
    """
    try:
        stamp = _get_size_and_mtime(path)
        noted = _read_hash_cache().get(_make_cache_key(path))
        if isinstance(noted, dict) and noted.get("stamp") == stamp:
            return str(noted.get("sha256"))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(
            f"{path} cannot be used as encoder weights: {error.strerror or error}."
        ) from None
    cache_sha256(path, digest)
    return digest


def cache_sha256(path: Path, sha256: str) -> None:
    """Keep the SHA-256 of a file as it is now. Where nothing can be kept it is hashed again."""
    with suppress(OSError, OutputError):
        known = list(_read_hash_cache().items())[-_MAX_CACHED_HASHES:]
        known.append((_make_cache_key(path), {"stamp": _get_size_and_mtime(path), "sha256": sha256}))
        with atomic_write(_get_hash_cache_path()) as temporary:
            temporary.write_text(json.dumps(dict(known), indent=1), encoding="utf-8")


def _read_hash_cache() -> dict[str, Any]:
    try:
        data = json.loads(_get_hash_cache_path().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _make_cache_key(path: Path) -> str:
    return str(path.resolve())


def _get_size_and_mtime(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _get_hash_cache_path() -> Path:
    import platformdirs

    named = os.environ.get("NAPARI_DKAN_CACHE")
    folder = Path(named) if named else platformdirs.user_cache_path("napari-dkan")
    return folder / "weights.json"
