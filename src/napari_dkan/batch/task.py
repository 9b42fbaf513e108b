"""A job as a worker does it: whatever happens to one slide, there is an outcome."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import DkanError
from .job import JobOutcome, SlideJob

if TYPE_CHECKING:
    from ..inference.job import PredictionUpdate


class JobCancelled(Exception):
    """Nobody waits for the result any more."""


def run_job(job: SlideJob, on_progress: Callable[[PredictionUpdate], None], overwrite: bool = False) -> JobOutcome:
    """Do a job, or find it done; again : do it even then.

    Raises Stopped, when ``watch`` does, and nothing else.
    """
    from .one import predict_slide
    from .standing import find_existing_result

    try:
        return (None if overwrite else find_existing_result(job)) or predict_slide(job, on_progress)
    except JobCancelled:
        raise
    except DkanError as error:
        said = str(error)
    except MemoryError:
        said = f"There is not enough memory for {job.name}; take fewer --workers."
    except Exception as error:  # a fault that one slide brings out must not cost the other 199
        at = traceback.extract_tb(error.__traceback__)[-1]
        said = (
            f"{type(error).__name__} at {at.filename.rpartition('/')[2]}:{at.lineno}, which is a "
            f"fault of this program; `napari-dkan predict` on {job.name} shows all of it."
        )
    return JobOutcome(job.slide, job.out, error=said)
