"""Is a whole slide far from what a checkpoint was trained on: another stain, scale or tissue?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..inference.evidence import NAMES
from ..model.checkpoint import Checkpoint
from ..model.reference import Reference

# How far the middle tile of a slide may lie beyond the training slides' means, in deviations of
# the training tiles. Sections of one laboratory differ by up to 0.9 in stain and 0.5 in
# sharpness; twice the pixel size moves sharpness by 1.3 or more (docs/trust.md).
STAIN, SCALE = 3.0, 0.75
STAINS = {
    "haematoxylin": "{} haematoxylin",
    "eosin": "{} eosin",
    "residual": "{} of colours that are neither haematoxylin nor eosin",
}
DISAGREE = 0.4  # share of tiles on which the networks disagree more than on 99 % of training spots
FEWEST = 12  # tiles of tissue
TISSUE = 0.3  # least share of tissue of a tile that is looked at


def check_slide(checkpoint: Checkpoint, evidence: NDArray[np.floating], mpp: float | None) -> str:
    """One sentence where the slide is far from the training data, "" where it is not.

    evidence : (N, E) of some tiles of its tissue, as `inference.evidence` notes it. mpp : um per
    pixel that the slide was read with. Without a reference, or with too few tiles of tissue,
    nothing can be said.
    """
    reference = checkpoint.reference
    if reference is None:
        return ""
    tiles = evidence[np.isfinite(evidence).all(axis=1)]
    tiles = tiles[tiles[:, NAMES.index("tissue")] >= TISSUE]
    if len(tiles) < FEWEST:
        return ""
    found = list(_stain(reference, tiles))
    if not found:  # another stain is mostly another scanner too, of another sharpness
        found += _scale(checkpoint, reference, tiles, mpp)
    found += _tissue(reference, tiles)
    if not found:
        return ""
    trained = f" ({reference.tissue})" if reference.tissue else ""
    return (
        f"This slide is far from the training data{trained}: {'; '.join(found)}. "
        "Take its maps with caution."
    )


def _stain(reference: Reference, tiles: NDArray[np.floating]) -> Iterator[str]:
    off = {name: _beyond(reference, name, tiles) for name in STAINS}
    said = [
        STAINS[name].format("more" if by > 0 else "less")
        for name, by in off.items()
        if abs(by) >= STAIN
    ]
    if said:
        yield f"its stain is another, with {', '.join(said)}"


def _scale(
    checkpoint: Checkpoint, reference: Reference, tiles: NDArray[np.floating], mpp: float | None
) -> Iterator[str]:
    if mpp is not None and mpp > 1.5 * max(*reference.mpp, checkpoint.patch.mpp):
        yield f"its pixels of {mpp:.3g} um are coarser than any it was trained on"
        return
    by = _beyond(reference, "sharpness", tiles)
    if abs(by) >= SCALE:
        size = "" if mpp is None else f" of {mpp:.3g} um"
        looks = "finer, as if smaller" if by > 0 else "coarser, as if larger or out of focus"
        yield f"its tissue looks {looks}: check the pixel size{size}"


def _tissue(reference: Reference, tiles: NDArray[np.floating]) -> Iterator[str]:
    if "members" not in reference.names:
        return
    often = reference.levels[reference.names.index("members")][99]
    share = float((tiles[:, NAMES.index("members")] > often).mean())
    if often > 0 and share >= DISAGREE:
        yield f"the networks disagree on {share:.0%} of its tiles, as on tissue new to them"


def _beyond(reference: Reference, name: str, tiles: NDArray[np.floating]) -> float:
    """How far the middle tile lies beyond the training slides' means, in deviations of tiles."""
    if name not in reference.names:
        return 0.0
    row = reference.names.index(name)
    levels, means = reference.levels[row], reference.by_slide[:, row]
    middle = float(np.median(tiles[:, NAMES.index(name)]))
    beyond = middle - float(np.clip(middle, means.min(), means.max()))
    return beyond / max(float(levels[84] - levels[16]) / 2, 1e-3)
