"""Mutation tests of the scientific core: ``make mutants``, judged in docs/testing.md.

mutmut changes the core one small step at a time and runs the tests of its values
(``tests/test_*_values.py``) on each mutant. Which files, and which tests, stands in pyproject.toml,
``[tool.mutmut]``. Survivors are printed with what was changed; fewer than 85 % killed is an error.

Words as arguments choose modules: ``make mutants ARGS="losses metrics"``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

ROOT = Path(__file__).resolve().parent.parent
MUTANTS = ROOT / "mutants"
MIN_KILLED = 0.85
# Of these files only some functions are about science; the others run a training.
FUNCTIONS = {
    "crossval": ("x_make_folds", "x__make_patient_folds"),
    "closed_form": ("x_fit_levels", "x_apply_levels"),
    "tuned_model": ("x_initialize_mean_std",),
}


def choose_files(words: list[str]) -> list[str]:
    """The files that are mutated, or those that a word is part of."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    files: list[str] = settings["tool"]["mutmut"]["only_mutate"]
    return [f for f in files if not words or any(word in f for word in words)]


def name_patterns(file: str) -> list[str]:
    """Names of the mutants of a file, as mutmut matches them."""
    module = file.removeprefix("src/").removesuffix(".py").replace("/", ".")
    return [f"{module}.{name}__mutmut_*" for name in FUNCTIONS.get(Path(file).stem, ("*",))]


def report(file: str) -> tuple[int, int]:
    """Print the survivors of a file; return how many were killed, and of how many."""
    results = json.loads((MUTANTS / f"{file}.meta").read_text("utf-8"))["exit_code_by_key"]
    status = {name: status_by_exit_code[code] for name, code in results.items() if code is not None}
    killed = sum(s in ("killed", "timeout") for s in status.values())
    print(f"\n{file}: {killed} of {len(status)} killed")
    for name, outcome in status.items():
        if outcome in ("killed", "timeout"):
            continue
        diff = get_diff_for_mutant(name, path=Path(file)).splitlines()[2:]
        print(f"  {name.rpartition('.')[2]}" + f" ({outcome})" * (outcome != "survived"))
        print("\n".join(f"    {line}" for line in diff if line[:1] in "+-"))
    return killed, len(status)


def main() -> int:
    """Make the mutants anew, test them and report; 1 when too few are killed."""
    os.chdir(ROOT)
    files = choose_files(sys.argv[1:])
    if not files:
        print(f"No file of [tool.mutmut] is named like {' or '.join(sys.argv[1:])}.")
        return 2
    shutil.rmtree(MUTANTS, ignore_errors=True)
    names = [name for file in files for name in name_patterns(file)]
    mutmut = Path(sys.executable).with_name("mutmut")
    with (ROOT / "mutants.log").open("w") as log:  # mutmut paints its progress
        done = subprocess.run([mutmut, "run", "--max-children", "2", *names], stdout=log)
    if done.returncode:
        print("mutmut failed; see mutants.log.")
        return done.returncode
    counts = {file: report(file) for file in files}
    print()
    for file, (killed, total) in counts.items():
        print(f"{killed:5} of {total:4} killed, {killed / max(total, 1):4.0%}  {file}")
    killed, total = (sum(column) for column in zip(*counts.values(), strict=True))
    asked = f"at least {MIN_KILLED:.0%} are asked for"
    print(f"{killed:5} of {total:4} killed, {killed / max(total, 1):.1%}; {asked}")
    return int(killed < MIN_KILLED * total)


if __name__ == "__main__":
    sys.exit(main())
