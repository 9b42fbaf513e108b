"""The slide in the account of what was read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..expression.readers.read_account import ReadAccount

if TYPE_CHECKING:
    from ..slide import Slide


_log = logging.getLogger(__name__)


def account_for_slide(
    account: ReadAccount, slide: Slide, mpp: float, mpp_origin: str
) -> ReadAccount:
    """Return the account of a section or a slide as results keep it, without folders.

    What the slide adds is logged, which ``--verbose`` of the command line prints.

    Parameters
    ----------
    mpp, mpp_origin
        The pixel size that is used.
    """
    names = [image.name for image in slide.images]
    account = account.without_folders()
    account = account.take_slide(slide.label, mpp, mpp_origin, slide.image_name, names)
    files = dict.fromkeys((account.file or slide.label, slide.label))
    _log.info(f"{' on '.join(files)}: {'; '.join(account.slide_lines())}")
    return account
