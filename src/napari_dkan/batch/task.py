"""A job as a worker does it: whatever happens to one slide, there is an outcome."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import DkanError
from .job import Outcome, SlideJob

if TYPE_CHECKING:
    from ..inference.job import Update


class Stopped(Exception):
    """Nobody waits for the result any more."""


def attempt(job: SlideJob, watch: Callable[[Update], None], again: bool = False) -> Outcome:
    """Do a job, or find it done; again : do it even then.

    Raises Stopped, when ``watch`` does, and nothing else.
    """
    from .one import run_one
    from .standing import standing

    try:
        return (None if again else standing(job)) or run_one(job, watch)
    except Stopped:
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
    return Outcome(job.slide, job.out, error=said)
