"""The bundled checkpoints, loaded, and one tile predicted on every device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .finding import CheckResult, CheckStatus, run_check

if TYPE_CHECKING:
    from ..model import Checkpoint

CHECKPOINTS_SECTION = "checkpoints"
PREDICTION_TOLERANCE = 0.1  # on the label scale; half precision errs by hundredths


def check_checkpoints() -> Iterator[CheckResult]:
    from ..inference.device import list_available_devices
    from ..samples.bundled import list_bundled_checkpoints

    files = list_bundled_checkpoints()
    if not files:
        yield CheckResult(CHECKPOINTS_SECTION, "bundled", "none; install this package again", CheckStatus.broken)
    for path in files:
        loaded: list[Checkpoint] = []
        yield run_check(CHECKPOINTS_SECTION, path.stem, partial(_check_loading, path, loaded))
        for device in list_available_devices() if loaded else ():
            name = f"{path.stem}, one tile on {device}"
            yield run_check(CHECKPOINTS_SECTION, name, partial(_check_prediction, loaded[0], device))


def _check_loading(path: Path, into: list[Checkpoint]) -> str:
    from ..model import load_checkpoint

    into.append(load_checkpoint(path))
    return f"{len(into[0].panel)} genes, SHA-256 {into[0].sha256}"


def _check_prediction(checkpoint: Checkpoint, device: str) -> str:
    """Raises ArithmeticError when a device predicts something else than the CPU."""
    values = predict_one_tile(checkpoint, device)
    if not np.isfinite(values).all():
        raise ArithmeticError(f"{device} predicts no numbers; predict with --device cpu")
    if device != "cpu":
        off = float(np.abs(values - predict_one_tile(checkpoint, "cpu")).max())
        if off > PREDICTION_TOLERANCE:
            raise ArithmeticError(
                f"{device} predicts other values than the CPU, by {off:.2g}; update the driver, "
                "or predict with --device cpu"
            )
    return f"{values.min():.2f} to {values.max():.2f}"


def predict_one_tile(checkpoint: Checkpoint, device: str) -> NDArray[np.float32]:
    """(G,) predicted in the middle of a drawn picture, alone on its slide."""
    from shapely.geometry import Polygon

    from ..inference.engine import Predictor
    from ..inference.predict import predict
    from ..inference.target import TargetKind, Target
    from ..slide import PixelSize, Slide
    from ..spatial.spots import Spots

    y, x = np.mgrid[:512, :512]
    waves = np.sin(x / 7) * np.cos(y / 11)
    tissue = np.stack([200 + 30 * waves, 140 + 50 * waves, 190 + 25 * waves], axis=-1)
    slide = Slide.from_arrays("drawn", [tissue.astype(np.uint8)], PixelSize(0.5, "drawn"))
    with slide:
        predictor = Predictor(slide, checkpoint, 0.5, Polygon(), device)
        target = Target(TargetKind.POINTS, Spots(np.array([[256.0, 256.0]])))
        return predict(predictor, target).values[0]
