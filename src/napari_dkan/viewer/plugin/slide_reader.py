"""npe2 reader for slides: multiscale RGB layers in micrometres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PathOrPaths = str | Sequence[str]


def get_slide_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[Any]] | None:
    """A reader for slides; None leaves stacks of files and other folders to other readers.

    A SpatialData store is a zarr folder too, but holds measured spots and perhaps an image.
    """
    from ...expression.readers.spatialdata_sections import find_spatialdata_sections
    from ...slide.slide_location import is_zarr_folder

    name = path if isinstance(path, str) else path[0]
    several = not isinstance(path, str) and len(path) != 1
    folder = Path(name)
    if several or (
        folder.is_dir() and (not is_zarr_folder(folder) or find_spatialdata_sections(folder))
    ):
        return None
    return read_slides


def read_slides(path: PathOrPaths) -> list[Any]:
    """Open the slide; its pixel size is what a person said of it before, else what the file says.

    Raises SlideError, which napari shows as a notification.
    """
    from ...slide import open_slide
    from ..session.pixel_size_sources import recall_pixel_size
    from ..session.slide_layer import make_slide_layer
    from ..session.viewer_settings import is_icc_enabled

    slide = open_slide(path if isinstance(path, str) else path[0], apply_icc=is_icc_enabled())
    slide.prefetch()
    known = recall_pixel_size(slide) if slide.path is not None else None
    return [make_slide_layer(slide, known or slide.pixel_size)]
