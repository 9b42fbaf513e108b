"""Each device with real work on it, compared with what the CPU says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from .finding import Finding, tried

NAME = "devices"
SIDE = 512  # of the matrices
# Largest error, relative to the largest value, of 512 summed products in each precision.
CLOSE = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}


def devices() -> Iterator[Finding]:
    import torch

    from ..inference.device import available_devices

    built = torch.version.cuda or torch.version.hip
    yield Finding(NAME, "torch", f"built for {f'CUDA {built}' if built else 'the CPU'}")
    for name in available_devices():
        for precision in CLOSE:
            yield tried(NAME, f"{name} {precision}", partial(multiply, name, precision))


def multiply(device: str, precision: str) -> str:
    """A product of two matrices on a device, held against the CPU's in double precision.

    Raises ArithmeticError when it is wrong.
    """
    import torch

    draws = torch.Generator().manual_seed(0)
    a, b = (torch.randn(SIDE, SIDE, generator=draws) for _ in range(2))
    right = a.double() @ b.double()
    there = [m.to(device, getattr(torch, precision)) for m in (a, b)]
    made = (there[0] @ there[1]).cpu().double()  # the first one loads the kernel
    start = time.perf_counter()
    (there[0] @ there[1]).cpu()
    took = time.perf_counter() - start
    error = float((made - right).abs().max() / right.abs().max())
    if not error < CLOSE[precision]:
        raise ArithmeticError(
            f"a product of matrices is off by {error:.2g} of its largest value; update the "
            "driver, or predict with --device cpu"
        )
    return f"{_label(device)}: {SIDE} x {SIDE} product right to {error:.0e}, {took * 1e3:.1f} ms"


def _label(device: str) -> str:
    import torch

    from ..inference.device import device_label

    if not device.startswith("cuda"):
        return device_label(device)
    free, total = torch.cuda.mem_get_info(torch.device(device))
    return f"{device_label(device)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
