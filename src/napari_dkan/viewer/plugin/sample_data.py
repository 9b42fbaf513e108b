"""Sample data (File > Open Sample): a real section and a synthetic one."""

from __future__ import annotations

from typing import Any

from ..session.slide_layer import (
    AXIS_LABELS,
    MICROMETER_UNITS,
    ON_SLIDE_KEY,
    PIXEL_UNITS,
    make_slide_layer,
)


def open_her2_c3() -> list[Any]:
    """Open section C3 of a HER2+ breast tumour with its array spots.

    Raises
    ------
    DkanError
        If it can be neither found nor downloaded; napari shows the message.
    """
    from ...samples import fetch_her2st_section

    return make_section_layers(fetch_her2st_section("C3"))


def open_synthetic() -> list[Any]:
    """Open a synthetic section, whose H&E and expression are simulated by this package."""
    from ...samples import get_synthetic_section

    return make_section_layers(get_synthetic_section())


def make_section_layers(paths: Any) -> list[Any]:
    """Return the layers of a section: the slide and, hidden, its array spots.

    The pixel size is that of the file, or else it is estimated from the array.
    """
    from ...expression.array_geometry import mpp_from_spots
    from ...expression.tables.spot_files import read_spots
    from ...slide import PixelSize, open_slide
    from ...spatial.coordinates import swap_xy
    from ..session.pixel_size_sources import ARRAY_COLUMNS, SPOT_ARRAY_ORIGIN

    slide, spots = open_slide(paths.image), read_spots(paths.spots)
    slide.prefetch()
    size, array_mpp = slide.pixel_size, mpp_from_spots(spots)
    if size is None and array_mpp is not None:
        size = PixelSize(array_mpp, SPOT_ARRAY_ORIGIN)
    pixels, options, kind = make_slide_layer(slide, size)
    options["name"] = paths.title or paths.name
    mpp = 1.0 if size is None else size.mpp
    spot_options = {
        "name": f"array spots, {paths.name}",
        "size": (spots.diameter_um or 100.0) / mpp,
        "scale": (mpp, mpp),
        "units": PIXEL_UNITS if size is None else MICROMETER_UNITS,
        "axis_labels": AXIS_LABELS,
        "face_color": "transparent",
        "border_color": "#1f4e79",
        "visible": False,
        "metadata": {ON_SLIDE_KEY: slide},
    }
    if spots.array_coords is not None:
        spot_options["features"] = dict(zip(ARRAY_COLUMNS, spots.array_coords.T, strict=True))
    return [(pixels, options, kind), (swap_xy(spots.xy), spot_options, "points")]
