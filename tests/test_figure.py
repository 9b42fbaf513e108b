"""Figures: positions and colors of tiles, hatching, scale bar, text and histology."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from shapely.geometry import box

from napari_dkan.errors import OutputError, SpotsError
from napari_dkan.export.figure_content import (
    FigureMap,
    FigureStyle,
    build_figure,
    build_result_figure,
)
from napari_dkan.export.figure_rendering import render_figure, write_figure
from napari_dkan.export.histology import FigureExtent, SlideOverview, crop_histology
from napari_dkan.export.saved_result import SavedReliability, SavedResult, SlideRecord, ViewSettings
from napari_dkan.expression.label_scale import LabelScale
from napari_dkan.expression.panel import Gene, Panel
from napari_dkan.inference.prediction import Prediction
from napari_dkan.inference.target import Target, TargetKind
from napari_dkan.slide import open_slide
from napari_dkan.spatial.spots import Spots
from napari_dkan.spatial.tile_grid import TileGrid

MPP = 0.5
CELLS = np.array([(2, 3), (3, 3), (5, 3), (2, 4), (3, 5)])  # column, row; nothing at (4, 3)
GREY = 180
RECORD = {
    "version": "9.8.7",
    "created": "2026-11-21T12:00:00+00:00",
    "checkpoint": "Gland $model$ & <co>",
    "checkpoint_sha256": "0123456789abcdef",
    "slide": "case_7\x07 µ.svs",
    "mpp": MPP,
    "patch_um": 60.0,
}


def prediction(spots: bool = False) -> Prediction:
    grid = TileGrid(200.0, 100.0, CELLS)
    target = Target(TargetKind.GRID, grid.to_spots(), grid)
    if spots:
        target = Target(TargetKind.POINTS, Spots(grid.centres, diameter_um=80.0))
    panel = Panel((Gene("ERBB2"), Gene("CD74")))
    content = Prediction.create_empty(target, panel, LabelScale(), RECORD)
    content.tokens[:] = 1
    content.values[:, 0] = [0, 1, 2, 3, 4]
    content.values[:3, 1] = 1  # the other spots are not decoded
    return content


def make_overview(side: int = 500, factor: float = 0.25) -> SlideOverview:
    return SlideOverview(np.full((side, side, 3), GREY, np.uint8), factor)


def make_result(**more) -> SavedResult:
    record = SlideRecord("case_7", "/somewhere/case_7.svs", "f" * 64, 2000, 2000, MPP, "a test")
    return SavedResult(prediction(), record, {}, overview=make_overview(), **more)


def render_pixels(figure_content):
    """The figure, and a function that gets its color at (x, y) in um on the slide."""
    figure = render_figure(figure_content)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    axes = figure.axes[0]

    def color_at(x: float, y: float):
        across, up = axes.transData.transform((x, y))
        return pixels[round(pixels.shape[0] - up), round(across)]

    return figure, color_at


@pytest.mark.parametrize("spots", [False, True])
def test_colors_are_at_their_tiles_and_gaps_are_empty(spots):
    style = FigureStyle("ERBB2", (0.0, 4.0), "viridis", opacity=1.0)
    _, color_at = render_pixels(
        build_figure([FigureMap(prediction(spots))], style, make_overview(), MPP)
    )
    from matplotlib import colormaps

    for (column, row), value in zip(CELLS, range(5), strict=True):
        expected = np.array(colormaps["viridis"](value / 4)[:3]) * 255
        actual = color_at((column + 0.5) * 100, (row + 0.5) * 100)
        np.testing.assert_allclose(actual, expected, atol=5)
    np.testing.assert_allclose(color_at(450, 350), GREY, atol=1)  # between two tiles of the row
    if spots:  # 80 um of 100
        np.testing.assert_allclose(color_at(295, 350), GREY, atol=1)


def test_unreliable_tiles_are_hatched_and_regions_outlined():
    reliability = SavedReliability(
        np.ones(5, np.float32), np.array([True, False, False, False, False]), ()
    )
    content = FigureMap(prediction(), reliability.unreliable)
    style = FigureStyle("ERBB2", (0.0, 4.0), np.ones((2, 4)), 1.0)  # white, whatever the value
    region = box(350, 550, 1300, 1250)  # level-0 px
    figure_content = build_figure([content], style, None, MPP, regions=region)
    _, color_at = render_pixels(figure_content)
    inside = np.array([color_at(x, 350) for x in np.linspace(205, 295, 60)])
    assert inside.min() < 120  # dark stripes
    assert np.array([color_at(x, 350) for x in np.linspace(305, 395, 60)]).min() > 250
    edge = np.array([color_at(x, 450) for x in np.linspace(170, 180, 21)])
    assert (edge[:, 0] < 128).any()  # of the region, at 350 px
    shifted = build_figure([content], style, None, MPP, FigureExtent(300, 300, 600, 600))
    assert (
        len(figure_content.unreliable_boxes) == 1 and len(shifted.unreliable_boxes) == 1
    )  # it touches
    assert not len(
        build_figure([content], style, None, MPP, FigureExtent(310, 300, 600, 600)).unreliable_boxes
    )


def test_svg_has_editable_text(tmp_path):
    before = dict(rcParams)
    view = ViewSettings("ERBB2", limits=(0.0, 4.0), opacity=0.5)
    reliability = SavedReliability(np.ones(5, np.float32), np.arange(5) == 1, ((),) * 5)
    content = build_result_figure(make_result(view_settings=view, reliability=reliability))
    file = write_figure(tmp_path / "a figure.svg", content)
    assert dict(rcParams) == before
    texts = [e.text or "" for e in ET.parse(file).getroot().iter() if e.tag.endswith("text")]
    text = " ".join(texts)
    for expected in (
        "ERBB2 - predicted",
        LabelScale().name,
        "Gland $model$ & <co>",
        "(01234567)",
        "case_7? µ.svs",
        "2026-11-21",
        "9.8.7",
        "1 tiles here",
        "not measured",
        "not for diagnosis",
        "100 µm",
    ):
        assert expected in text, expected


def test_scale_bar_has_the_length_of_its_label():
    for width_um in (30.0, 500.0, 12_345.0):
        figure_content = build_figure(
            [FigureMap(prediction())],
            FigureStyle("ERBB2"),
            None,
            MPP,
            FigureExtent(10, 20, 10 + width_um, 20 + width_um / 2),
        )
        axes = render_figure(figure_content).axes[0]
        assert axes.get_xlim() == (10, 10 + width_um) and axes.get_ylim() == (20 + width_um / 2, 20)
        (label,) = (t.get_text() for t in axes.texts)
        (bar,) = (p for p in axes.patches if p.get_facecolor() == (0, 0, 0, 1))
        assert bar.get_width() == float(label.removesuffix(" µm").replace(",", ""))
        assert 0.1 * width_um < bar.get_width() <= 0.3 * width_um


def test_png_and_pdf_are_written_and_other_formats_rejected(tmp_path):
    content = build_result_figure(make_result())
    starts = {".png": b"\x89PNG", ".pdf": b"%PDF"}
    for kind, start in starts.items():
        file = write_figure(tmp_path / f"figure{kind}", content)
        assert file.read_bytes().startswith(start)
    assert Image.open(tmp_path / "figure.png").width > 1500
    with pytest.raises(OutputError, match=r"figure\.bmp.*\.png, \.svg or \.pdf"):
        write_figure(tmp_path / "figure.bmp", content)
    with pytest.raises(OutputError, match="could not be written"):
        write_figure(tmp_path / "figure.png" / "below.png", content)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["figure.pdf", "figure.png"]


def test_figure_of_a_result_uses_its_view_settings():
    content = build_result_figure(
        make_result(
            view_settings=ViewSettings("CD74", colormap="cividis", opacity=0.3, hatch=False)
        )
    )
    assert content.legend.gene == "CD74" and content.opacity == 0.3
    assert build_result_figure(make_result(), gene="erbb2").legend.gene == "ERBB2"
    low, high = build_result_figure(make_result()).legend.limits
    np.testing.assert_allclose((low, high), np.percentile(range(5), (2, 98)))
    with pytest.raises(SpotsError):
        build_result_figure(make_result(), gene="NOPE")
    empty = prediction()
    empty.values[:] = np.nan
    with pytest.raises(OutputError, match="no predicted map of ERBB2"):
        build_figure([FigureMap(empty)], FigureStyle("ERBB2"), None, MPP)
    with pytest.raises(OutputError, match="no colour map"):
        build_figure(
            [FigureMap(prediction())], FigureStyle("ERBB2", colormap="nonsense"), None, MPP
        )


def test_histology_is_aligned_with_the_slide(tiny_slide_file):
    """The pixels equal those of the slide."""
    with open_slide(tiny_slide_file) as slide:
        part = FigureExtent(203.0, 151.0, 700.0, 500.0)
        histology = crop_histology(slide, part, slide.mpp)
        whole = slide.read_region(0, 0, slide.width, slide.height)
    assert histology is not None and histology.pixels.shape[1] >= 700
    left, top = (round(v / slide.mpp) for v in (histology.extent.left, histology.extent.top))
    height, width = histology.pixels.shape[:2]
    np.testing.assert_array_equal(histology.pixels, whole[top : top + height, left : left + width])


@given(
    corners=st.tuples(*[st.floats(-500, 1500) for _ in range(4)]),
    side=st.integers(20, 300),
    factor=st.sampled_from([1.0, 0.25, 0.013]),
)
def test_histology_covers_the_extent_on_the_slide(corners, side, factor):
    x, y, width_um, high = corners
    part = FigureExtent(x, y, x + abs(width_um) + 1, y + abs(high) + 1)
    full = side / factor * MPP
    histology = crop_histology(make_overview(side, factor), part, MPP)
    if histology is None:
        is_off_slide = part.right <= MPP or part.bottom <= MPP
        assert is_off_slide or part.left >= full - MPP or part.top >= full - MPP
        return
    pixel = MPP / factor + 1e-6
    for actual, expected in (
        (histology.extent.left, max(part.left, 0)),
        (histology.extent.top, max(part.top, 0)),
    ):
        assert expected - pixel <= actual <= expected + 1e-6
    for actual, expected in (
        (histology.extent.right, min(part.right, full)),
        (histology.extent.bottom, min(part.bottom, full)),
    ):
        assert expected - 1e-6 <= actual <= expected + pixel
