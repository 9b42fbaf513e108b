"""How often the 95 % interval of a gene's PCC holds the true correlation: on fields made up at the
real spots of a section, whose correlation is known.

    python benchmarks/intervals.py --data DATA [--section C3]

Measured and predicted are Gaussian fields over the array, smoothed 3 x 3 as labels are, that share
a part: their correlation over endless tissue is the share. `reach` is the distance, in pitches,
over which tissue stays alike. Beside the blocks of spots: single spots, resampled as if they were
independent, which is what a plain bootstrap or Fisher's z supposes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_dkan.expression.label_scale import LabelScale, array_coords_from_section
from napari_dkan.spatial.spots import Spots
from napari_dkan.training.block_bootstrap import assign_blocks, bootstrap_pcc
from napari_dkan.training.data.section_loading import read_section_data

GENES = 400
SCALE = LabelScale()


def fields(random: np.random.Generator, array: np.ndarray, reach: float) -> np.ndarray:
    """(N, GENES) of unit variance: half of it tissue alike over `reach`, half noise of a spot."""
    size = 80
    noise = random.normal(size=(GENES, size, size))
    if reach:
        smooth = gaussian_filter(noise, (0, reach, reach), mode="wrap")
        noise = smooth / smooth.std() + random.normal(size=noise.shape)
    column, row = (array - array.min(axis=0)).T
    return SCALE.smooth(noise[:, row, column].T.astype(np.float32), array)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--section", default="C3")
    args = parser.parse_args()
    (data,) = read_section_data(args.data, [args.section])
    array = array_coords_from_section(data)
    spots = Spots(np.asarray(data.obsm["spatial"], float), array)
    apart = Spots(100.0 * np.arange(len(array))[:, None] * [1, 0] + [0, 0])
    print(f"{args.section}: {len(spots)} spots, {assign_blocks(spots).max() + 1} blocks")
    print("reach  PCC   held in blocks of 6 x 6   as if independent   width")
    for reach in (0.0, 1.0, 2.0, 4.0):
        for share in (0.0, 0.5, 0.8):
            random = np.random.default_rng(7)
            common, a, b = (fields(random, array, reach) for _ in range(3))
            p = np.sqrt(share) * common + np.sqrt(1 - share) * a
            m = np.sqrt(share) * common + np.sqrt(1 - share) * b
            found = bootstrap_pcc(p, m, spots)
            plain = bootstrap_pcc(p, m, apart, side_pitches=1)
            held, naive = (((r.low <= share) & (share <= r.high)).mean() for r in (found, plain))
            width = np.median(found.high - found.low)
            print(f"{reach:5g}  {share:.1f}   {held:22.2f}   {naive:17.2f}   {width:5.2f}")


if __name__ == "__main__":
    main()
