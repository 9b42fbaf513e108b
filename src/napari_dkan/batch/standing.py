"""Whether a job's result stands already, so that a batch goes on where it was stopped."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ..errors import ResultError
from .job import Outcome, SlideJob
from .one import checkpoint_of


def standing(job: SlideJob) -> Outcome | None:
    """The outcome of an earlier run of this very job; None where it has to be done.

    Its file has to be there and whole, and made of the same slide and checkpoint (by their
    hashes) with the same parameters.

    Raises DkanError when the slide or the checkpoint cannot be read.
    """
    from ..export.reopen import reopen
    from ..slide import open_slide

    if not job.out.is_file():
        return None
    try:
        saved = reopen(job.out)
    except ResultError:  # cut short, or another program's
        return None
    record = saved.prediction.provenance
    if record.get("parameters") != job.parameters():
        return None
    if record.get("checkpoint_sha256") != _sha256(checkpoint_of(job)):
        return None
    with open_slide(job.slide, icc=job.icc) as slide:
        if record.get("slide_fingerprint") != slide.fingerprint():
            return None
    judged = saved.reliability
    return Outcome(
        job.slide,
        job.out,
        spots=len(saved.prediction.target),
        genes=len(saved.prediction.panel),
        unreliable=None if judged is None else int(judged.unreliable.sum()),
        reliability=None if judged is None else float(judged.score.mean()),
        kept=True,
    )


def _sha256(checkpoint: Path) -> str:
    found = checkpoint.stat()
    return _hashed(checkpoint, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)  # two hundred slides ask for the same few
def _hashed(checkpoint: Path, size: int, changed: int) -> str:
    from ..model.tensorfile import sha256_of

    return sha256_of(checkpoint)
