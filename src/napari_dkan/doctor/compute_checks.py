"""Check devices and bundled checkpoints: a matrix product and a one-tile prediction per device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .check_result import CheckResult, CheckStatus, run_check

if TYPE_CHECKING:
    from ..model import Checkpoint


DEVICES_SECTION = "devices"
MATRIX_SIDE = 512  # of the matrices
# Largest error, relative to the largest value, of 512 summed products in each precision.
MATMUL_TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}


def check_devices() -> Iterator[CheckResult]:
    import torch

    from ..inference.device import list_available_devices

    built = torch.version.cuda or torch.version.hip
    yield CheckResult(
        DEVICES_SECTION, "torch", f"built for {f'CUDA {built}' if built else 'the CPU'}"
    )
    for name in list_available_devices():
        for precision in MATMUL_TOLERANCE:
            yield run_check(
                DEVICES_SECTION, f"{name} {precision}", partial(check_matmul, name, precision)
            )


def check_matmul(device: str, precision: str) -> str:
    """A product of two matrices on a device, held against the CPU's in double precision.

    Raises ArithmeticError when it is wrong.
    """
    import torch

    draws = torch.Generator().manual_seed(0)
    a, b = (torch.randn(MATRIX_SIDE, MATRIX_SIDE, generator=draws) for _ in range(2))
    right = a.double() @ b.double()
    there = [m.to(device, getattr(torch, precision)) for m in (a, b)]
    made = (there[0] @ there[1]).cpu().double()  # the first one loads the kernel
    start = time.perf_counter()
    (there[0] @ there[1]).cpu()
    took = time.perf_counter() - start
    error = float((made - right).abs().max() / right.abs().max())
    if not error < MATMUL_TOLERANCE[precision]:
        raise ArithmeticError(
            f"a product of matrices is off by {error:.2g} of its largest value; update the "
            "driver, or predict with --device cpu"
        )
    return f"{_format_device(device)}: {MATRIX_SIDE} x {MATRIX_SIDE} product right to {error:.0e}, {took * 1e3:.1f} ms"


def _format_device(device: str) -> str:
    import torch

    from ..inference.device import format_device_name

    if not device.startswith("cuda"):
        return format_device_name(device)
    free, total = torch.cuda.mem_get_info(torch.device(device))
    return f"{format_device_name(device)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"


CHECKPOINTS_SECTION = "checkpoints"
PREDICTION_TOLERANCE = 0.1  # on the label scale; half precision errs by hundredths


def check_checkpoints() -> Iterator[CheckResult]:
    from ..inference.device import list_available_devices
    from ..samples.bundled_checkpoints import list_bundled_checkpoints

    files = list_bundled_checkpoints()
    if not files:
        yield CheckResult(
            CHECKPOINTS_SECTION, "bundled", "none; install this package again", CheckStatus.broken
        )
    for path in files:
        loaded: list[Checkpoint] = []
        yield run_check(CHECKPOINTS_SECTION, path.stem, partial(_check_loading, path, loaded))
        for device in list_available_devices() if loaded else ():
            name = f"{path.stem}, one tile on {device}"
            yield run_check(
                CHECKPOINTS_SECTION, name, partial(_check_prediction, loaded[0], device)
            )


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

    from ..inference.predict import predict
    from ..inference.predictor import Predictor
    from ..inference.target import Target, TargetKind
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
