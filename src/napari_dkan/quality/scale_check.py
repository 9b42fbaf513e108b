"""Does a slide's pixel size fit a checkpoint? Asked before anything is predicted.

What the tissue itself looks like is asked afterwards, by `slide_check`. Nuclei are no ruler: in
sections whose scale is known they measure 5 um on average in one tissue and 11 um in another, so
a pixel size that is wrong by two cannot be told by them.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..model.checkpoint import Checkpoint
from ..slide import PixelSize

# Pixels this many times as large as those trained on lack detail that was there in training;
# as many times smaller, they are scaled down and lack nothing, if it is true.
MAX_TRAINING_MPP_RATIO = 1.5
MAX_UPSAMPLING = 1.5  # as large, compared with the pixels of a patch
MAX_SLIDE_LENGTH_MM = 80  # the longer side of a large slide, 76 x 52 mm
# A scanner wrote it, or the known pitch of an array gave it away; other figures somebody typed.
RELIABLE_MPP_ORIGINS = ("metadata", "spot array")


def check_pixel_size(checkpoint: Checkpoint, size: PixelSize, width: int, height: int) -> str:
    """Sentences where the pixel size of a slide of width x height px does not fit, or is not to
    be relied on; "" where there is nothing to say."""
    return " ".join(_iter_pixel_size_warnings(checkpoint, size, width, height))


def _iter_pixel_size_warnings(checkpoint: Checkpoint, size: PixelSize, width: int, height: int) -> Iterator[str]:
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
    elif trained and mpp < min(trained) / MAX_TRAINING_MPP_RATIO and not size.origin.endswith(RELIABLE_MPP_ORIGINS):
        yield (
            f"Its pixels of {mpp:.3g} um are {min(trained) / mpp:.1f} times smaller than in "
            f"training ({_format_mpp_range(trained)}). A scan at higher power is as "
            "good; if this is none, the pixel size is wrong."
        )


def _format_mpp_range(trained: tuple[float, ...]) -> str:
    low, high = min(trained), max(trained)
    return f"{high:.3g} um" if high < 1.02 * low else f"{low:.3g} to {high:.3g} um"
