"""Jobs, outcomes and progress events: plain values that are sent between processes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from ..file_hash import compute_sha256

PROGRESS_INTERVAL_S = 0.25  # between two progress events of a slide

# Slide and checkpoint have hashes of their own; the others do not change the values.
_NOT_IN_PARAMETERS = {
    *("slide", "out", "checkpoint", "device", "store"),
    *("allow_unproven", "encoder_weights"),
}


class TilePitch(StrEnum):
    """Distance between the tiles of a grid."""

    training = "training"  # that of the spots the checkpoint was trained on
    dense = "dense"  # the patches touch


@dataclass(frozen=True)
class SlideJob:
    """One slide to predict on, and the .h5ad file to write.

    The field names are stored in results and must not change.

    Attributes
    ----------
    slide
        A file, an OME-Zarr folder, or its URL.
    out
        The .h5ad file to write.
    checkpoint
        None for the bundled one.
    spots, regions
        At most one of them; the whole tissue without both.
    library
        The section of `spots`, where that is an h5ad with several.
    features
        Tile features of the checkpoint's encoder, from TRIDENT or CLAM.
    features_encoder
        The encoder that computed them, where the file does not state it.
    tissue_only
        Leave out tiles that are not on tissue.
    pitch
        Distance between tiles.
    mpp
        um per px, where the slide does not state it or states it wrongly.
    genes
        Symbols, None for the whole panel.
    zero_shot
        ``FILE[:A,B]``, see `predict --help`.
    allow_unproven
        Predict zero-shot genes although the checkpoint has no evidence that it works.
    device
        None for the best one.
    encoder_weights
        Local weights of the tile encoder.
    store
        Cache tokens of tiles on disk.
    icc
        Convert the colors of the slide to sRGB by its profile.
    image
        Name or number of the image in the file; None for the scan.
    whole_glass
        Positions count from the corner of the glass; None from that of the scan area.
    region_objects
        A `RegionObjects` of `regions`, None for annotations.
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
    image: str | None = None
    whole_glass: bool | None = None
    library: str | None = None
    region_objects: str | None = None

    @property
    def name(self) -> str:
        """The file name of the slide, for messages."""
        return Path(self.location).name

    @property
    def location(self) -> str:
        """The path or URL of the slide without credentials."""
        from ..slide.reader_errors import SourceError
        from ..slide.slide_location import file_name_from_url, is_remote, strip_credentials

        if not is_remote(self.slide):
            return self.slide
        try:
            return strip_credentials(self.slide)
        except SourceError:
            return file_name_from_url(self.slide)

    def parameters_json(self) -> str:
        """Return the options that determine the values as JSON, files as their SHA-256.

        Two jobs with equal slide, checkpoint and parameters give the same result.
        """
        parameters = {
            key: value
            for key, value in asdict(self).items()
            if key not in _NOT_IN_PARAMETERS and value is not None
        }
        for key in ("spots", "regions", "features"):
            if key in parameters:
                parameters[key] = compute_sha256(parameters[key])
        return json.dumps(parameters, sort_keys=True)


@dataclass(frozen=True)
class JobOutcome:
    """The outcome of a job.

    Attributes
    ----------
    slide, out
        Of the job.
    n_spots, n_genes
        Written to the result.
    seconds
        Time that the job took.
    n_failed
        Spots that are left out, as the slide is damaged there.
    n_unreliable, mean_reliability
        Unreliable spots and the mean score; None where the checkpoint has no reference.
    notes
        Sentences for the user.
    timing
        Times of the stages.
    error
        Why there is no result, "" if there is one.
    is_reused
        The result is that of an earlier run.
    log
        What the readers logged about the files of the job, which ``-v`` prints.
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
    log: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """The outcome in one word: "done", "kept" (an earlier result) or "failed"."""
        return "failed" if self.error else "kept" if self.is_reused else "done"

    @property
    def unreliable_fraction(self) -> float | None:
        """The fraction of unreliable spots, 0 to 1."""
        if self.n_unreliable is None or not self.n_spots:
            return None
        return self.n_unreliable / self.n_spots


def split_names(text: str | None) -> tuple[str, ...] | None:
    """Split a comma-separated list."""
    return None if text is None else tuple(n.strip() for n in text.split(",") if n.strip())


@dataclass(frozen=True)
class JobProgress:
    """Progress of job number ``index`` in tiles; it reads their context first."""

    index: int
    done: int
    total: int
    is_reading_context: bool


@dataclass(frozen=True)
class JobFinished:
    """Job number ``index`` has ended, with or without a result."""

    index: int
    outcome: JobOutcome


JobEvent = JobProgress | JobFinished
