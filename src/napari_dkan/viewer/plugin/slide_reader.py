"""npe2 reader for slides: multiscale RGB layers in micrometres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PathOrPaths = str | Sequence[str]


def get_slide_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """Return a reader for slides; None for stacks of files and other folders.

    A SpatialData store is a zarr folder as well, but contains measured spots.
    """
    from ...expression.readers.spatialdata_sections import find_spatialdata_sections
    from ...slide.slide_location import is_zarr_folder

    name = path if isinstance(path, str) else path[0]
    is_stack = not isinstance(path, str) and len(path) != 1
    folder = Path(name)
    if is_stack or (
        folder.is_dir() and (not is_zarr_folder(folder) or find_spatialdata_sections(folder))
    ):
        return None
    return read_slides


def read_slides(path: PathOrPaths) -> list[Any]:
    """Open a slide with the pixel size that the user entered before, or else that of the file.

    Raises
    ------
    SlideError
        Shown by napari as a notification.
    """
    from ...slide import open_slide
    from ..session.pixel_size_sources import recall_pixel_size
    from ..session.slide_layer import make_slide_layer
    from ..session.viewer_settings import is_icc_enabled

    slide = open_slide(path if isinstance(path, str) else path[0], apply_icc=is_icc_enabled())
    slide.prefetch()
    remembered = recall_pixel_size(slide) if slide.path is not None else None
    return [make_slide_layer(slide, remembered or slide.pixel_size)]
