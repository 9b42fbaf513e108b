"""User history on disk: recent checkpoints, entered pixel sizes, folded sections, run times."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import platformdirs

from ...atomic_write import atomic_write
from ...errors import OutputError
from ...model.methods.method_configs import DKAN_METHOD, TITLES

MAX_RECENT = 8
MAX_TIMED_RUNS = 8  # of one checkpoint on one machine


def _history_path() -> Path:
    return platformdirs.user_config_path("napari-dkan") / "memory.json"


def _load_history() -> dict[str, Any]:
    try:
        data = json.loads(_history_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # no history yet, or an unreadable file
    return data if isinstance(data, dict) else {}


def _save_history(data: dict[str, Any]) -> None:
    try:
        with atomic_write(_history_path()) as temporary:
            temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")
    except OutputError:
        return  # a read-only home folder must not stop the work


def list_recent_checkpoints() -> list[Path]:
    """List the last checkpoints that the user chose and that still exist, newest first."""
    names = _load_history().get("checkpoints", [])
    return [Path(n) for n in names if isinstance(n, str) and Path(n).is_file()]


def add_recent_checkpoint(path: Path, method: str = DKAN_METHOD) -> None:
    """Put a checkpoint at the top of the recent ones, with its method."""
    name = str(path.resolve())
    names = list(dict.fromkeys([name, *map(str, list_recent_checkpoints())]))[:MAX_RECENT]
    methods = load_checkpoint_methods() | {name: method}
    kept = {n: m for n, m in methods.items() if n in names and m != DKAN_METHOD}
    _save_history(_load_history() | {"checkpoints": names, "methods": kept})


def load_checkpoint_methods() -> dict[str, str]:
    """Load the method of each recent checkpoint by its path; those of DKAN are not listed."""
    entries = _load_history().get("methods")
    return {
        name: method
        for name, method in (entries.items() if isinstance(entries, dict) else ())
        if method in TITLES
    }


def load_pixel_sizes() -> dict[str, tuple[float, str]]:
    """Load the remembered pixel sizes.

    Returns
    -------
    dict
        um per px and the origin, by fingerprint of the slide.
    """
    entries = _load_history().get("mpp")
    sizes = {}
    for fingerprint, value in entries.items() if isinstance(entries, dict) else ():
        mpp, origin = value if isinstance(value, list) and len(value) == 2 else (value, "")
        if isinstance(mpp, int | float) and isinstance(origin, str):
            sizes[fingerprint] = float(mpp), origin
    return sizes


def save_pixel_size(fingerprint: str, mpp: float | None, origin: str = "") -> None:
    """Remember the pixel size of a slide; None removes it."""
    data = _load_history()
    entries = data.get("mpp")
    if not isinstance(entries, dict):
        entries = {}
    others = {k: v for k, v in entries.items() if k != fingerprint}
    entry = {} if mpp is None else {fingerprint: [mpp, origin] if origin else mpp}
    _save_history(data | {"mpp": others | entry})


def load_section_states() -> dict[str, bool]:
    """Load which sections of the panels the user opened (True) or folded (False), by name."""
    entries = _load_history().get("sections")
    if not isinstance(entries, dict):
        return {}
    return {name: state for name, state in entries.items() if isinstance(state, bool)}


def save_section_state(name: str, opened: bool) -> None:
    """Remember whether a section of a panel is open."""
    _save_history(_load_history() | {"sections": load_section_states() | {name: opened}})


def load_run_times(checkpoint_sha256: str, device: str) -> list[tuple[int, float]]:
    """Load the tiles and seconds of the last runs of a checkpoint on this machine."""
    runs = _load_run_times().get(_run_key(checkpoint_sha256, device), [])
    return [(int(count), float(seconds)) for count, seconds in runs]


def add_run_time(checkpoint_sha256: str, device: str, tiles: int, seconds: float) -> None:
    """Remember how long a run took."""
    times, key = _load_run_times(), _run_key(checkpoint_sha256, device)
    runs = [*times.pop(key, []), [tiles, round(seconds, 3)]][-MAX_TIMED_RUNS:]
    kept = list(times.items())[1 - MAX_RECENT :]
    _save_history(_load_history() | {"run times": dict([*kept, (key, runs)])})


def _load_run_times() -> dict[str, list[list[float]]]:
    """Times by checkpoint, device and machine; what an editor has damaged is left out."""
    entries = _load_history().get("run times")
    times = {}
    for key, runs in entries.items() if isinstance(entries, dict) else ():
        pairs = runs if isinstance(runs, list) else []
        times[key] = [
            r
            for r in pairs
            if isinstance(r, list) and len(r) == 2 and all(isinstance(v, int | float) for v in r)
        ]
    return times


def _run_key(checkpoint_sha256: str, device: str) -> str:
    return f"{checkpoint_sha256} {device} {platform.node()}"
