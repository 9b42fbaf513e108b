"""Draw a synthetic section and write its image and tables in the her2st layout.

    python tools/draw_synthetic_section.py -o src/napari_dkan/samples/synthetic

writes the section that the package ships (the folder must be new or empty).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from synthetic_section import SAMPLE_SEED, draw_section, write_her2st_section


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--seed", type=int, default=SAMPLE_SEED)
    parser.add_argument("--size", type=int, default=4608, help="side in px at 0.5 um/px")
    options = parser.parse_args()
    section = draw_section(options.seed, options.size)
    paths = write_her2st_section(section, options.out, f"X{options.seed}")
    for path in (paths.image, paths.counts, paths.spots):
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
