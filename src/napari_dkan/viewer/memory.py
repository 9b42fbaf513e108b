"""What is remembered from one session to the next: recent checkpoints, pixel sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import platformdirs

from ..errors import OutputError
from ..files import written_whole

RECENT = 8


def _file() -> Path:
    return platformdirs.user_config_path("napari-dkan") / "memory.json"


def _load() -> dict[str, Any]:
    try:
        data = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # nothing remembered yet, or a file that is none of ours
    return data if isinstance(data, dict) else {}


def _store(data: dict[str, Any]) -> None:
    try:
        with written_whole(_file()) as temporary:
            temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")
    except OutputError:
        return  # a read-only home folder costs the memory, not the work


def recent_checkpoints() -> list[Path]:
    """The last checkpoints chosen by hand that still exist, newest first."""
    names = _load().get("checkpoints", [])
    return [Path(n) for n in names if isinstance(n, str) and Path(n).is_file()]


def remember_checkpoint(path: Path) -> None:
    names = [str(path.resolve()), *map(str, recent_checkpoints())]
    _store(_load() | {"checkpoints": list(dict.fromkeys(names))[:RECENT]})


def remembered_mpps() -> dict[str, tuple[float, str]]:
    """Pixel sizes that were given for slides before, by fingerprint: um per px and who said so."""
    kept = _load().get("mpp")
    found = {}
    for fingerprint, value in kept.items() if isinstance(kept, dict) else ():
        mpp, origin = value if isinstance(value, list) and len(value) == 2 else (value, "")
        if isinstance(mpp, int | float) and isinstance(origin, str):
            found[fingerprint] = float(mpp), origin
    return found


def remember_mpp(fingerprint: str, mpp: float | None, origin: str = "") -> None:
    """Keep a slide's pixel size for the next time; None forgets it."""
    data = _load()
    kept = data.get("mpp")
    others = {k: v for k, v in kept.items() if k != fingerprint} if isinstance(kept, dict) else {}
    made = {} if mpp is None else {fingerprint: [mpp, origin] if origin else mpp}
    _store(data | {"mpp": others | made})
