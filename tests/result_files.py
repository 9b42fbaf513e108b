"""Results made up without predicting: every kind of target, and numbers of every kind."""

from __future__ import annotations

import numpy as np
from shapely.geometry import box

from napari_dkan.export.histology import SlideOverview
from napari_dkan.export.saved_result import SavedReliability, SavedResult, SlideRecord, ViewSettings
from napari_dkan.expression.label_scale import LabelScale
from napari_dkan.expression.panel import Gene, Panel
from napari_dkan.inference.prediction import Prediction
from napari_dkan.inference.target import Target, TargetKind
from napari_dkan.inference.tile_qc_features import QC_FEATURE_NAMES
from napari_dkan.spatial.spots import Spots
from napari_dkan.spatial.tile_grid import TileGrid

MPP = 0.7
PANEL = Panel((Gene("ERBB2", "ENSG00000141736", "a kinase", ("HER2", "NEU")), Gene("CD74")))
RECORD = {
    "kind": "predicted",
    "version": "0.1.0",
    "created": "2026-11-21T13:39:45+00:00",
    "checkpoint": "Made up",
    "checkpoint_sha256": "ab" * 32,
    "slide": "drawn.ome.tif",
    "mpp": MPP,
    "patch_um": 112.0,
    "nothing": None,
}
SLIDE = SlideRecord("drawn", "/slides/drawn.ome.tif", "f" * 64, 1600, 1200, MPP, "OME metadata")


def grid_target(columns=4, rows=3, corner=(2, 1), pitch_um=140.0):
    """A grid with one cell missing."""
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    cells = np.stack([x.ravel(), y.ravel()], axis=1)[1:] + corner
    grid = TileGrid(pitch_um / MPP, pitch_um, cells.astype(np.int64))
    return Target(TargetKind.GRID, grid.to_spots(), grid)


def spots_target(count=5, names=(), array=None, diameter_um=100.0):
    xy = np.random.default_rng(count).uniform(100, 1000, (count, 2))
    kind = TargetKind.POINTS if array is None else TargetKind.ARRAY
    return Target(kind, Spots(xy, array, names, diameter_um))


def result(target=None, picture=True, **changes) -> SavedResult:
    """A saved result of the target, a grid unless given; its second spot could not be read."""
    target = target or grid_target()
    count, rng = len(target), np.random.default_rng(3)
    values = rng.uniform(0, 2, (count, len(PANEL))).astype(np.float32)
    tokens = rng.normal(size=(count, 6)).astype(np.float32)
    evidence = rng.normal(size=(count, len(QC_FEATURE_NAMES))).astype(np.float32)
    failed = np.arange(count) == 1
    for numbers in (values, tokens, evidence):
        numbers[failed] = np.nan
    score = np.linspace(0, 1, count, dtype=np.float32)
    reasons = (("out of focus", "little tissue"), *[()] * (count - 1))
    rgb = rng.integers(0, 255, (60, 80, 3)).astype(np.uint8)
    fields = {
        "prediction": Prediction(
            target, PANEL, LabelScale(), values, tokens, dict(RECORD), (), failed, evidence
        ),
        "slide_record": SLIDE,
        "card": {"title": "Made up", "metrics": {"pcc": 0.5, "ridge": None}},
        "reliability": SavedReliability(score, score < 0.1, reasons),
        "regions": box(100.25, 100.5, 900.125, 800).difference(box(300, 300, 400, 400)),
        "view_settings": ViewSettings(
            "CD74", ("ERBB2",), (0.1, 1.5), "viridis", 0.5, False, (812.5, 600.0), 0.3
        ),
        "overview": SlideOverview(rgb, 0.05) if picture else None,
    }
    return SavedResult(**(fields | changes))
