"""Jobs, outcomes and progress events: plain values that are sent between processes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from ..file_hash import compute_sha256


class TilePitch(StrEnum):
    """Distance between the tiles of a grid."""

    training = "training"  # as the spots the checkpoint was trained on
    dense = "dense"  # the patches touch


@dataclass(frozen=True)
class SlideJob:
    """One slide to predict on, and the .h5ad file to write.

    slide : a file, an OME-Zarr folder, or its address. checkpoint : the bundled one when None.
    spots, regions : at most one of them; the whole tissue when both are None. features : of the
    checkpoint's encoder, from TRIDENT or CLAM; features_encoder : who made them, where the file
    does not say.
    mpp : um per px, where the slide does not say or says it wrong.
    genes : symbols, the whole panel when None. zero_shot : ``FILE[:A,B]``, see `predict --help`.
    device : the best one when None. encoder_weights : local weights of the tile encoder.
    store : keep tiles on disk, and take those kept. icc : turn the slide's colours into sRGB by
    its profile.
    """

    slide: str
    out: Path
    checkpoint: Path | None = None
    spots: Path | None = None
    regions: Path | None = None
    features: Path | None = None
    features_encoder: str | None = None
    tissue_only: bool = True
    pitch: TilePitch = TilePitch.training
    mpp: float | None = None
    genes: tuple[str, ...] | None = None
    zero_shot: str | None = None
    allow_unproven: bool = False
    device: str | None = None
    encoder_weights: Path | None = None
    store: bool = True
    icc: bool = False

    @property
    def name(self) -> str:
        """What messages call the slide: its file's name."""
        return Path(self.location).name

    @property
    def location(self) -> str:
        """The slide's path or address, for files that others read: without a password."""
        from ..slide.reader_errors import SourceError
        from ..slide.slide_location import file_name_from_url, is_remote, strip_credentials

        if not is_remote(self.slide):
            return self.slide
        try:
            return strip_credentials(self.slide)
        except SourceError:
            return file_name_from_url(self.slide)

    def parameters_json(self) -> str:
        """JSON of all that decides the values beside slide and checkpoint; files by content.

        Two jobs with equal slide, checkpoint and parameters give the same result.
        """
        known = {
            k: v for k, v in asdict(self).items() if k not in _NOT_IN_PARAMETERS and v is not None
        }
        for key in ("spots", "regions", "features"):
            if known.get(key) is not None:
                known[key] = compute_sha256(known[key])
        return json.dumps(known, sort_keys=True)


# the slide and the checkpoint have hashes of their own; the others do not change the values
_NOT_IN_PARAMETERS = {
    *("slide", "out", "checkpoint", "device", "store"),
    *("allow_unproven", "encoder_weights"),
}


@dataclass(frozen=True)
class JobOutcome:
    """What came of a job.

    spots, genes : how many were written. seconds : that it took. failed : spots left out because
    the slide is damaged there. unreliable : spots not to be relied on, reliability : the mean
    score; both None where the checkpoint has no reference. notes : what a person should know.
    timing : where the time went. error : why there is no result, "" when there is one.
    kept : the result stood there already.
    """

    slide: str
    out: Path
    n_spots: int = 0
    n_genes: int = 0
    seconds: float = 0.0
    n_failed: int = 0
    n_unreliable: int | None = None
    mean_reliability: float | None = None
    notes: tuple[str, ...] = ()
    timing: str = ""
    error: str = ""
    is_reused: bool = False

    @property
    def status(self) -> str:
        """Its outcome in one word."""
        return "failed" if self.error else "kept" if self.is_reused else "done"

    @property
    def unreliable_fraction(self) -> float | None:
        """Of the spots those that are unreliable, 0 to 1."""
        return (
            None
            if self.n_unreliable is None or not self.n_spots
            else self.n_unreliable / self.n_spots
        )


def split_names(text: str | None) -> tuple[str, ...] | None:
    """Symbols of a comma-separated list."""
    return None if text is None else tuple(g.strip() for g in text.split(",") if g.strip())


PROGRESS_INTERVAL_S = 0.25  # seconds between two ticks of one slide


@dataclass(frozen=True)
class JobProgress:
    """Job number ``index`` has done so many of its tiles; reading : of their surroundings."""

    index: int
    done: int
    total: int
    is_reading_context: bool


@dataclass(frozen=True)
class JobFinished:
    """Job number ``index`` has come to its end, one way or the other."""

    index: int
    outcome: JobOutcome


JobEvent = JobProgress | JobFinished
