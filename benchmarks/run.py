"""All benchmarks, one after another: what ``make bench`` runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    failed = 0
    quick = {"training_step": ["--small"]}
    for name in ("startup", "slides", "engine", "context", "training_step", "window"):
        print(f"\n## {name}", flush=True)
        command = [sys.executable, str(HERE / f"{name}.py"), *quick.get(name, [])]
        failed |= subprocess.run(command).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
