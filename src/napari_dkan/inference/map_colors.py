"""Colours of maps: the same in the window, in figures and on report pages."""

from __future__ import annotations

import numpy as np

DEFAULT_COLORMAP = "magma"  # of values, by its name in matplotlib; in napari.yaml too
ERROR_COLORMAP = "Oranges"
# From blue over near-white to orange: distinguishable with every kind of colour blindness.
RESIDUAL_COLORS = ("#08519c", "#6baed6", "#f7f7f7", "#fd8d3c", "#a63603")


def sample_colors(colors: str | tuple[str, ...], count: int) -> list[str]:
    """Return evenly spaced colours of a colour map.

    Parameters
    ----------
    colors : str or tuple of str
        Name of a colour map of matplotlib, or colours between which is interpolated.
    count : int

    Returns
    -------
    list of str
        As ``#rrggbb``, from the lowest value to the highest.
    """
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    if isinstance(colors, str):
        colormap = colormaps[colors]
    else:
        colormap = LinearSegmentedColormap.from_list("colors", list(colors))
    return [to_hex(color) for color in colormap(np.linspace(0, 1, count))]
