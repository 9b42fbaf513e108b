"""All benchmarks in a short form, one after another, and all verdicts: what ``make bench`` runs.

Names of benchmarks as arguments run those alone. What they keep lies in build/, and the table of
all verdicts with date, load and machine in build/benchmarks/verdicts.md.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from section import BUILD
from verdict import FILE, format_table, read_figures

HERE = Path(__file__).parent
SMALL = ["--small"]
SCRIPTS: dict[str, list[str]] = {
    "startup": SMALL,
    "slides": [],
    "readers": ["--side", "8000", "--squares", "200", "--repeats", "1"],
    "huge_slide": SMALL,
    "engine": [],
    "context": [],
    "dense_map": SMALL,
    "batch": [],
    "growth": SMALL,
    "resection": SMALL,
    "visits": SMALL,
    "training_step": SMALL,
    "window": [],
    "clicks": SMALL,
    "gap": SMALL,
    "progress": [],
    "gene_change": SMALL,
    "large_map": [],
    "lens": SMALL,
    "quality": SMALL,
    "gpu": [],
}


def main() -> int:
    BUILD.mkdir(parents=True, exist_ok=True)
    verdicts, cache = BUILD / "verdicts.jsonl", BUILD / "cache"
    verdicts.unlink(missing_ok=True)
    told = {**os.environ, FILE: str(verdicts), "NAPARI_DKAN_CACHE": str(cache)}
    failed = []
    begun = f"{time.strftime('%Y-%m-%d')}, load {os.getloadavg()[1]:.1f} before the first"
    start = time.perf_counter()
    for name in sys.argv[1:] or SCRIPTS:
        print(f"\n## {name}", flush=True)
        shutil.rmtree(cache, ignore_errors=True)  # nothing helps the next one
        command = [sys.executable, str(HERE / f"{name}.py"), *SCRIPTS.get(name, [])]
        if subprocess.run(command, env=told).returncode:
            failed.append(name)
    minutes = (time.perf_counter() - start) / 60
    page = (
        f"`make bench`, {begun}, {minutes:.0f} minutes, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}\n\n"
        f"{format_table(read_figures(verdicts))}\n"
    )
    (BUILD / "verdicts.md").write_text(page, encoding="utf-8")
    print(f"\n## All verdicts\n{page}", flush=True)
    if failed:
        print(f"Ended with an error: {', '.join(failed)}.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
