"""Whether the computer runs on its battery."""

from __future__ import annotations

import psutil


def is_on_battery() -> bool:
    """False where there is no battery or nobody knows."""
    ask = getattr(psutil, "sensors_battery", None)  # not on every system
    try:
        battery = ask() if ask is not None else None
    except (OSError, RuntimeError):
        return False
    return battery is not None and battery.power_plugged is False
