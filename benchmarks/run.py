"""All benchmarks, one after another: what ``make bench`` runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    failed = 0
    for name in ("startup", "slides", "engine", "context", "window"):
        print(f"\n## {name}", flush=True)
        failed |= subprocess.run([sys.executable, str(HERE / f"{name}.py")]).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
