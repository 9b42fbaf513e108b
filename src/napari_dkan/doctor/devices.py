"""Each device with real work on it, compared with what the CPU says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from .finding import CheckResult, run_check

DEVICES_SECTION = "devices"
MATRIX_SIDE = 512  # of the matrices
# Largest error, relative to the largest value, of 512 summed products in each precision.
MATMUL_TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}


def check_devices() -> Iterator[CheckResult]:
    import torch

    from ..inference.device import list_available_devices

    built = torch.version.cuda or torch.version.hip
    yield CheckResult(DEVICES_SECTION, "torch", f"built for {f'CUDA {built}' if built else 'the CPU'}")
    for name in list_available_devices():
        for precision in MATMUL_TOLERANCE:
            yield run_check(DEVICES_SECTION, f"{name} {precision}", partial(check_matmul, name, precision))


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
