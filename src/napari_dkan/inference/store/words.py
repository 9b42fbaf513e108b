"""How sizes and ages are worded, in the panel and on the command line."""

from __future__ import annotations

AGE_UNITS = ((86_400.0, "day"), (3_600.0, "hour"), (60.0, "minute"))


def format_size(count: float) -> str:
    """Bytes as "0 MB", "12 MB", "1.2 GB": GB of 2**30 bytes, as the limit is counted."""
    if count < 1000 * 2**20:
        return f"{count / 2**20:.0f} MB" if count >= 2**20 or not count else "< 1 MB"
    return f"{count / 2**30:.1f} GB".replace(".0 GB", " GB")


def format_age(seconds: float) -> str:
    """An age as "now", "5 minutes ago", "1 day ago"."""
    for length, name in AGE_UNITS:
        if seconds >= length:
            count = int(seconds / length)
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return "now"
