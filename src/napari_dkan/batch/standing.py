"""Whether a job's result stands already, so that a batch goes on where it was stopped."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ..errors import ResultError
from .job import JobOutcome, SlideJob
from .one import resolve_checkpoint


def find_existing_result(job: SlideJob) -> JobOutcome | None:
    """The outcome of an earlier run of this very job; None where it has to be done.

    Its file has to be there and whole, and made of the same slide and checkpoint (by their
    hashes) with the same parameters.

    Raises DkanError when the slide or the checkpoint cannot be read.
    """
    from ..export.reopen import load_result
    from ..slide import open_slide

    if not job.out.is_file():
        return None
    try:
        saved = load_result(job.out)
    except ResultError:  # cut short, or another program's
        return None
    record = saved.prediction.provenance
    if record.get("parameters") != job.parameters_json():
        return None
    if record.get("checkpoint_sha256") != _hash_checkpoint(resolve_checkpoint(job)):
        return None
    with open_slide(job.slide, apply_icc=job.icc) as slide:
        if record.get("slide_fingerprint") != slide.fingerprint():
            return None
    judged = saved.reliability
    return JobOutcome(
        job.slide,
        job.out,
        n_spots=len(saved.prediction.target),
        n_genes=len(saved.prediction.panel),
        n_unreliable=None if judged is None else int(judged.unreliable.sum()),
        mean_reliability=None if judged is None else float(judged.score.mean()),
        is_reused=True,
    )


def _hash_checkpoint(checkpoint: Path) -> str:
    found = checkpoint.stat()
    return _hash_checkpoint_cached(checkpoint, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)  # two hundred slides ask for the same few
def _hash_checkpoint_cached(checkpoint: Path, size: int, mtime_ns: int) -> str:
    from ..model.tensorfile import compute_sha256

    return compute_sha256(checkpoint)
