"""User history on disk: recent checkpoints and pixel sizes that were entered for slides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import platformdirs

from ...atomic_write import atomic_write
from ...errors import OutputError

MAX_RECENT = 8


def _history_path() -> Path:
    return platformdirs.user_config_path("napari-dkan") / "memory.json"


def _load_history() -> dict[str, Any]:
    try:
        data = json.loads(_history_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # nothing remembered yet, or a file that is none of ours
    return data if isinstance(data, dict) else {}


def _save_history(data: dict[str, Any]) -> None:
    try:
        with atomic_write(_history_path()) as temporary:
            temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")
    except OutputError:
        return  # a read-only home folder costs the memory, not the work


def list_recent_checkpoints() -> list[Path]:
    """The last checkpoints chosen by hand that still exist, newest first."""
    names = _load_history().get("checkpoints", [])
    return [Path(n) for n in names if isinstance(n, str) and Path(n).is_file()]


def add_recent_checkpoint(path: Path) -> None:
    names = [str(path.resolve()), *map(str, list_recent_checkpoints())]
    _save_history(_load_history() | {"checkpoints": list(dict.fromkeys(names))[:MAX_RECENT]})


def load_pixel_sizes() -> dict[str, tuple[float, str]]:
    """Pixel sizes that were given for slides before, by fingerprint: um per px and who said so."""
    kept = _load_history().get("mpp")
    found = {}
    for fingerprint, value in kept.items() if isinstance(kept, dict) else ():
        mpp, origin = value if isinstance(value, list) and len(value) == 2 else (value, "")
        if isinstance(mpp, int | float) and isinstance(origin, str):
            found[fingerprint] = float(mpp), origin
    return found


def save_pixel_size(fingerprint: str, mpp: float | None, origin: str = "") -> None:
    """Keep a slide's pixel size for the next time; None forgets it."""
    data = _load_history()
    kept = data.get("mpp")
    others = {k: v for k, v in kept.items() if k != fingerprint} if isinstance(kept, dict) else {}
    made = {} if mpp is None else {fingerprint: [mpp, origin] if origin else mpp}
    _save_history(data | {"mpp": others | made})
