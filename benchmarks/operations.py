"""How many operations a piece of work takes, and how fast this machine does them."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def operations(work: Callable[[], object]) -> float:
    """Floating-point operations of the products, convolutions and attentions in a call."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return float(counter.get_total_flops())


def product_rate(
    device: str = "cpu", dtype: torch.dtype = torch.float32, side: int = 2048, repeats: int = 5
) -> float:
    """Operations a second in the product of two square matrices, the best of some."""
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=draw).to(device, dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 2):  # the first ones wake the machine up
        start = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds[2:])


def has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 by itself (avx512_bf16 or amx_bf16)."""
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
