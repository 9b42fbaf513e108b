"""Check devices and bundled checkpoints: a matrix product and a one-tile prediction per device."""

from __future__ import annotations

import shutil
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
MATRIX_SIDE = 512
# Largest error, relative to the largest value, of 512 summed products in each precision.
MATMUL_TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}

UNUSED_GPU = (
    "this machine has a driver of NVIDIA, but this PyTorch is built for the CPU; install the one "
    "that pytorch.org names for CUDA to use its GPU"
)

CHECKPOINTS_SECTION = "checkpoints"
PREDICTION_TOLERANCE = 0.1  # on the label scale; errors of half precision are below 0.1


def check_devices() -> Iterator[CheckResult]:
    """Check which device is used, and a matrix product on every one in every precision."""
    import torch

    from ..inference.device import format_device_name, list_available_devices
    from ..inference.device_choice import find_device_problem, resolve_device_name

    built = torch.version.cuda or torch.version.hip
    yield CheckResult(
        DEVICES_SECTION, "torch", f"built for {f'CUDA {built}' if built else 'the CPU'}"
    )
    if not built and shutil.which("nvidia-smi"):
        yield CheckResult(DEVICES_SECTION, "GPU", UNUSED_GPU, CheckStatus.note)
    best = resolve_device_name("auto")
    yield CheckResult(
        DEVICES_SECTION, "auto", f"predictions run on {format_device_name(best)} ({best})"
    )
    for name in list_available_devices():
        problem = find_device_problem(name)
        if problem is not None:
            yield CheckResult(DEVICES_SECTION, name, str(problem), CheckStatus.broken)
            continue
        for precision in MATMUL_TOLERANCE:
            yield run_check(
                DEVICES_SECTION, f"{name} {precision}", partial(check_matmul, name, precision)
            )


def check_matmul(device: str, precision: str) -> str:
    """Compare a matrix product on a device with that of the CPU in double precision.

    Returns
    -------
    str
        Device, error and time, for the report.

    Raises
    ------
    ArithmeticError
        The product is wrong.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(MATRIX_SIDE, MATRIX_SIDE, generator=generator) for _ in range(2))
    expected = a.double() @ b.double()
    on_device = [matrix.to(device, getattr(torch, precision)) for matrix in (a, b)]
    product = (on_device[0] @ on_device[1]).cpu().double()  # also loads the kernel
    start = time.perf_counter()
    (on_device[0] @ on_device[1]).cpu()
    elapsed_ms = (time.perf_counter() - start) * 1e3
    error = float((product - expected).abs().max() / expected.abs().max())
    if not error < MATMUL_TOLERANCE[precision]:
        raise ArithmeticError(
            f"a product of matrices is off by {error:.2g} of its largest value; update the "
            "driver, or predict with --device cpu"
        )
    return (
        f"{_format_device(device)}: {MATRIX_SIDE} x {MATRIX_SIDE} product right to {error:.0e}, "
        f"{elapsed_ms:.1f} ms"
    )


def _format_device(device: str) -> str:
    import torch

    from ..inference.device import format_device_name

    if not device.startswith("cuda"):
        return format_device_name(device)
    free, total = torch.cuda.mem_get_info(torch.device(device))
    return f"{format_device_name(device)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"


def check_checkpoints() -> Iterator[CheckResult]:
    """Load every bundled checkpoint and predict one tile on every device."""
    from ..inference.device import list_available_devices
    from ..inference.device_choice import find_device_problem
    from ..samples.bundled_checkpoints import list_bundled_checkpoints

    files = list_bundled_checkpoints()
    if not files:
        yield CheckResult(
            CHECKPOINTS_SECTION, "bundled", "none; install this package again", CheckStatus.broken
        )
    for path in files:
        loaded: list[Checkpoint] = []
        yield run_check(CHECKPOINTS_SECTION, path.stem, partial(_check_loading, path, loaded))
        working = [d for d in list_available_devices() if find_device_problem(d) is None]
        for device in working if loaded else ():
            name = f"{path.stem}, one tile on {device}"
            yield run_check(
                CHECKPOINTS_SECTION, name, partial(_check_prediction, loaded[0], device)
            )


def _check_loading(path: Path, loaded: list[Checkpoint]) -> str:
    from ..model import load_checkpoint

    checkpoint = load_checkpoint(path)
    loaded.append(checkpoint)
    return f"{len(checkpoint.panel)} genes, SHA-256 {checkpoint.sha256}"


def _check_prediction(checkpoint: Checkpoint, device: str) -> str:
    """Raise ArithmeticError if a device predicts other values than the CPU."""
    values = predict_one_tile(checkpoint, device)
    if not np.isfinite(values).all():
        raise ArithmeticError(f"{device} predicts no numbers; predict with --device cpu")
    if device != "cpu":
        difference = float(np.abs(values - predict_one_tile(checkpoint, "cpu")).max())
        if difference > PREDICTION_TOLERANCE:
            raise ArithmeticError(
                f"{device} predicts other values than the CPU, by {difference:.2g}; update the "
                "driver, or predict with --device cpu"
            )
    return f"{values.min():.2f} to {values.max():.2f}"


def predict_one_tile(checkpoint: Checkpoint, device: str) -> NDArray[np.float32]:
    """Predict one spot, (n_genes,), in the middle of a drawn image."""
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
        values: NDArray[np.float32] = predict(predictor, target).values[0]
        return values
