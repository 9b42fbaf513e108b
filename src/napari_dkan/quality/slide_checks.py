"""Check a slide against a checkpoint: its pixel size, and domain shift of its tiles.

`check_pixel_size` runs before prediction. `check_domain_shift` runs on the quality-control features
of predicted tiles. Nuclei are not used to estimate the scale: their mean size is 5 um in one tissue
and 11 um in another, so a pixel size wrong by a factor of two cannot be detected by them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..inference.tile_qc_features import QC_FEATURE_NAMES
from ..model.checkpoint.checkpoint_file import Checkpoint
from ..model.checkpoint.training_reference import TrainingReference
from ..slide import PixelSize

# Larger pixels than in training, by this factor, lack detail. Smaller ones by this factor are
# scaled down and lack nothing if the pixel size is right.
MAX_TRAINING_MPP_RATIO = 1.5
MAX_UPSAMPLING = 1.5  # pixels of the slide compared with those of a patch
MAX_SLIDE_LENGTH_MM = 80  # a large slide has 76 x 52 mm
# Written by a scanner or fitted to the known pitch of an array; other values were typed.
RELIABLE_MPP_ORIGINS = ("metadata", "spot array")


def check_pixel_size(checkpoint: Checkpoint, size: PixelSize, width: int, height: int) -> str:
    """Return warnings about the pixel size of a slide of width x height px, "" for none."""
    return " ".join(_iter_pixel_size_warnings(checkpoint, size, width, height))


def _iter_pixel_size_warnings(
    checkpoint: Checkpoint, size: PixelSize, width: int, height: int
) -> Iterator[str]:
    mpp = size.mpp
    if size.is_estimated:
        yield (
            f"The pixel size of about {mpp:.3g} um is only an estimate from the objective power; "
            "measure it, or enter it."
        )
    longer, shorter = max(width, height) * mpp, min(width, height) * mpp
    if longer > 1000 * MAX_SLIDE_LENGTH_MM:
        yield (
            f"With pixels of {mpp:.3g} um this image is {longer / 1000:.0f} mm long, more than a "
            "glass slide: the pixel size is too large."
        )
        return
    patch = checkpoint.patch
    if shorter < patch.um:
        yield (
            f"With pixels of {mpp:.3g} um this image is {shorter:.0f} um wide, less than one tile "
            f"of {patch.um:.0f} um: check the pixel size."
        )
        return
    yield from _compare_mpp_with_training(checkpoint, size)


def _compare_mpp_with_training(checkpoint: Checkpoint, size: PixelSize) -> Iterator[str]:
    mpp, patch, reference = size.mpp, checkpoint.patch, checkpoint.reference
    trained = reference.slide_mpp if reference is not None else ()
    if trained and mpp > MAX_TRAINING_MPP_RATIO * max(trained):
        yield (
            f"Its pixels of {mpp:.3g} um are {mpp / max(trained):.1f} times as large as in "
            f"training ({_format_mpp_range(trained)}), so detail is missing. "
            "Check the pixel size; if it is right, take its maps with caution."
        )
    elif mpp > MAX_UPSAMPLING * patch.mpp:
        yield (
            f"Its pixels of {mpp:.3g} um are {mpp / patch.mpp:.1f} times as large as those of the "
            f"tiles this checkpoint sees ({patch.mpp:.3g} um): the tiles are blown up and lack "
            "detail. Check the pixel size; if it is right, take its maps with caution."
        )
    elif (
        trained
        and mpp < min(trained) / MAX_TRAINING_MPP_RATIO
        and not size.origin.endswith(RELIABLE_MPP_ORIGINS)
    ):
        yield (
            f"Its pixels of {mpp:.3g} um are {min(trained) / mpp:.1f} times smaller than in "
            f"training ({_format_mpp_range(trained)}). A scan at higher power is as "
            "good; if this is none, the pixel size is wrong."
        )


def _format_mpp_range(trained: tuple[float, ...]) -> str:
    low, high = min(trained), max(trained)
    return f"{high:.3g} um" if high < 1.02 * low else f"{low:.3g} to {high:.3g} um"


# Largest distance of the median tile of a slide from the means of the training slides, in standard
# deviations of the training tiles. Sections of one laboratory differ by up to 0.9 in stain and 0.5
# in sharpness; twice the pixel size changes sharpness by 1.3 or more (docs/trust.md).
MAX_STAIN_SHIFT, MAX_SHARPNESS_SHIFT = 3.0, 0.75
STAIN_SHIFT_TEXTS = {
    "haematoxylin": "{} haematoxylin",
    "eosin": "{} eosin",
    "residual": "{} of colours that are neither haematoxylin nor eosin",
}
# Share of tiles on which the networks disagree more than on 99 % of the training spots.
MAX_DISAGREEING_FRACTION = 0.4
MIN_TILES = 12
MIN_TISSUE_FRACTION = 0.3  # of tiles that count


def check_domain_shift(
    checkpoint: Checkpoint, qc_features: NDArray[np.floating], mpp: float | None
) -> str:
    """Return a warning if the slide is far from the training data, "" if not.

    Without a reference or with too few tiles of tissue there is no warning.

    Parameters
    ----------
    qc_features : (N, E) array
        Features of tiles, `inference.tile_qc_features`.
    mpp : float or None
        um per px with which the slide was read.
    """
    reference = checkpoint.reference
    if reference is None:
        return ""
    tiles = qc_features[np.isfinite(qc_features).all(axis=1)]
    tiles = tiles[tiles[:, QC_FEATURE_NAMES.index("tissue")] >= MIN_TISSUE_FRACTION]
    if len(tiles) < MIN_TILES:
        return ""
    found = list(_describe_stain_shift(reference, tiles))
    if not found:  # another stain is mostly another scanner too, with another sharpness
        found += _describe_scale_shift(checkpoint, reference, tiles, mpp)
    found += _describe_tissue_shift(reference, tiles)
    if not found:
        return ""
    trained = f" ({reference.tissue})" if reference.tissue else ""
    return (
        f"This slide is far from the training data{trained}: {'; '.join(found)}. "
        "Take its maps with caution."
    )


def _describe_stain_shift(
    reference: TrainingReference, tiles: NDArray[np.floating]
) -> Iterator[str]:
    shifts = {name: _shift_in_deviations(reference, name, tiles) for name in STAIN_SHIFT_TEXTS}
    texts = [
        STAIN_SHIFT_TEXTS[name].format("more" if shift > 0 else "less")
        for name, shift in shifts.items()
        if abs(shift) >= MAX_STAIN_SHIFT
    ]
    if texts:
        yield f"its stain is another, with {', '.join(texts)}"


def _describe_scale_shift(
    checkpoint: Checkpoint,
    reference: TrainingReference,
    tiles: NDArray[np.floating],
    mpp: float | None,
) -> Iterator[str]:
    if mpp is not None and mpp > 1.5 * max(*reference.slide_mpp, checkpoint.patch.mpp):
        yield f"its pixels of {mpp:.3g} um are coarser than any it was trained on"
        return
    shift = _shift_in_deviations(reference, "sharpness", tiles)
    if abs(shift) >= MAX_SHARPNESS_SHIFT:
        size = "" if mpp is None else f" of {mpp:.3g} um"
        looks = "finer, as if smaller" if shift > 0 else "coarser, as if larger or out of focus"
        yield f"its tissue looks {looks}: check the pixel size{size}"


def _describe_tissue_shift(
    reference: TrainingReference, tiles: NDArray[np.floating]
) -> Iterator[str]:
    if "members" not in reference.feature_names:
        return
    limit = reference.feature_quantiles[reference.feature_names.index("members")][99]
    share = float((tiles[:, QC_FEATURE_NAMES.index("members")] > limit).mean())
    if limit > 0 and share >= MAX_DISAGREEING_FRACTION:
        yield f"the networks disagree on {share:.0%} of its tiles, as on tissue new to them"


def _shift_in_deviations(
    reference: TrainingReference, name: str, tiles: NDArray[np.floating]
) -> float:
    """Distance of the median tile from the range of the training slides' means, in deviations."""
    if name not in reference.feature_names:
        return 0.0
    row = reference.feature_names.index(name)
    levels, means = reference.feature_quantiles[row], reference.slide_means[:, row]
    median = float(np.median(tiles[:, QC_FEATURE_NAMES.index(name)]))
    distance = median - float(np.clip(median, means.min(), means.max()))
    return distance / max(float(levels[84] - levels[16]) / 2, 1e-3)
