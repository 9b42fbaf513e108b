"""Colours are distinguishable for colour-blind eyes and readable in every theme.

Colour blindness is simulated after Machado, Oliveira & Fernandes (2009), table of the full
deficiencies, on linear RGB; lightness and distances are those of CIE L*a*b*.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from napari.utils.colormaps import ensure_colormap
from napari.utils.theme import get_theme
from qtpy.QtGui import QColor
from skimage.color import rgb2lab

from napari_dkan.inference.map_colors import DEFAULT_COLORMAP
from napari_dkan.viewer.layers.spot_layers import DOMAIN_COLORS
from napari_dkan.viewer.panels.predict.gene_box import COLORMAPS
from napari_dkan.viewer.panels.predict.spot_box import MEASURED_COLOR
from napari_dkan.viewer.panels.quality.maps.section_maps import DIVERGING_COLORMAP
from napari_dkan.viewer.session.viewer_settings import settings_from_preferences
from napari_dkan.viewer.tools.occlusion_tool import DIVERGING_COLORMAP as OCCLUSION_COLORMAP
from napari_dkan.viewer.widgets import theme_colors
from napari_dkan.viewer.widgets.correlation_plots import (
    PREDICTED_COLOR,
    RIDGE_COLOR,
    SELECTED_COLOR,
)
from napari_dkan.viewer.widgets.learning_curve import LOSS_COLOR, PCC_COLOR
from napari_dkan.viewer.widgets.qt_utils import SWATCH_PX, make_swatch

EYES = {
    "all colours": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def to_linear(rgb: np.ndarray) -> np.ndarray:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def to_lab(rgb: np.ndarray, eyes: str) -> np.ndarray:
    """Colours (N, 3) in 0 to 1 as L*a*b* (N, 3)."""
    flat = np.clip(to_linear(rgb) @ np.array(EYES[eyes]).T, 0, 1)
    back = np.where(flat <= 0.0031308, 12.92 * flat, 1.055 * flat ** (1 / 2.4) - 0.055)
    return rgb2lab(back[None])[0]


def of_hex(*names: str) -> np.ndarray:
    return np.array([[int(n[i : i + 2], 16) / 255 for i in (1, 3, 5)] for n in names])


def ramp(name, count: int = 101) -> np.ndarray:
    return np.asarray(ensure_colormap(name).map(np.linspace(0, 1, count)))[:, :3]


@pytest.mark.parametrize("eyes", EYES)
def test_colormaps_have_monotonic_lightness(eyes):
    for name in COLORMAPS:
        lightness = to_lab(ramp(name), eyes)[:, 0]
        assert np.diff(lightness).min() > -0.05, name  # a screen cannot show less
        assert lightness[-1] - lightness[0] > 55, name
        steps = np.diff(lightness[::10])
        assert steps.min() > 0.3 * steps.mean(), name  # even: no plateau that hides a step
    assert (
        settings_from_preferences().colormap == DEFAULT_COLORMAP and DEFAULT_COLORMAP in COLORMAPS
    )


@pytest.mark.parametrize("eyes", EYES)
def test_diverging_colormaps_are_distinguishable(eyes):
    for name in (DIVERGING_COLORMAP, OCCLUSION_COLORMAP):
        low, high = to_lab(ramp(name)[[0, -1]], eyes)
        assert np.linalg.norm(low - high) > 40
    low, high = (
        to_lab(ramp(DIVERGING_COLORMAP), eyes)[:51],
        to_lab(ramp(DIVERGING_COLORMAP), eyes)[:49:-1],
    )
    for arm in (low, high):  # lighter towards no difference
        assert np.diff(arm[:, 0]).min() > -0.05
    apart = np.linalg.norm(low - high, axis=1)
    assert (apart[:40] > 10).all()


@pytest.mark.parametrize("eyes", EYES)
def test_domains_and_lines_are_distinguishable(eyes):
    eight = to_lab(of_hex(*DOMAIN_COLORS[:8]), eyes)
    assert min(np.linalg.norm(a - b) for a, b in combinations(eight, 2)) > 8
    plot = to_lab(of_hex(*(c.name() for c in (PREDICTED_COLOR, RIDGE_COLOR, SELECTED_COLOR))), eyes)
    bars = to_lab(of_hex(PREDICTED_COLOR.name(), MEASURED_COLOR.name()), eyes)
    curve = to_lab(of_hex(LOSS_COLOR.on_dark, PCC_COLOR.on_dark), eyes)
    for colours in (plot, bars, curve):
        assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 20


def contrast(a: str, b: str) -> float:
    """WCAG 2.1: relative luminances, (lighter + 0.05) / (darker + 0.05)."""
    one, other = to_linear(of_hex(a, b)) @ [0.2126, 0.7152, 0.0722]
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_domains_are_seen_in_both_themes(qapp):
    for colour in DOMAIN_COLORS:
        for theme in ("dark", "light"):
            assert contrast(get_theme(theme).canvas.as_hex("long"), colour) > 1.3  # of a chip
    edge = make_swatch(QColor("black")).pixmap(SWATCH_PX).toImage().pixelColor(0, 0).name()
    for theme in ("dark", "light"):
        assert contrast(get_theme(theme).background.as_hex("long"), edge) > 3


@pytest.mark.parametrize("name", ["ERROR_COLOR", "WARNING_COLOR", "SUCCESS_COLOR", "LINK_COLOR"])
def test_text_is_readable_in_both_themes(name):
    color = getattr(theme_colors, name)
    for theme, colour in (("dark", color.on_dark), ("light", color.on_light)):
        for part in ("background", "foreground"):
            assert contrast(getattr(get_theme(theme), part).as_hex("long"), colour) >= 4.5
