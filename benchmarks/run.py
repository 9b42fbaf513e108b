"""All benchmarks in a short form, one after another, and all verdicts: what ``make bench`` runs.

Names of benchmarks as arguments run those alone. What they keep lies in build/.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from section import BUILD
from verdict import FILE, print_table, read_figures

HERE = Path(__file__).parent
SMALL = ["--small"]
SCRIPTS: dict[str, list[str]] = {
    "startup": [],
    "slides": [],
    "readers": ["--side", "8000", "--squares", "200", "--repeats", "1"],
    "huge_slide": SMALL,
    "engine": [],
    "context": [],
    "dense_map": SMALL,
    "growth": SMALL,
    "visits": SMALL,
    "training_step": SMALL,
    "window": [],
    "clicks": SMALL,
    "gap": SMALL,
    "gene_change": SMALL,
    "lens": SMALL,
    "gpu": [],
}


def main() -> int:
    BUILD.mkdir(parents=True, exist_ok=True)
    verdicts, cache = BUILD / "verdicts.jsonl", BUILD / "cache"
    verdicts.unlink(missing_ok=True)
    told = {**os.environ, FILE: str(verdicts), "NAPARI_DKAN_CACHE": str(cache)}
    failed = []
    for name in sys.argv[1:] or SCRIPTS:
        print(f"\n## {name}", flush=True)
        shutil.rmtree(cache, ignore_errors=True)  # nothing helps the next one
        command = [sys.executable, str(HERE / f"{name}.py"), *SCRIPTS.get(name, [])]
        if subprocess.run(command, env=told).returncode:
            failed.append(name)
    print("\n## All verdicts")
    print_table(read_figures(verdicts))
    if failed:
        print(f"Ended with an error: {', '.join(failed)}.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
