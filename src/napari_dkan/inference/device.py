"""Devices of this machine, and memory and precision of the computation on them."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


def list_available_devices() -> list[str]:
    """List the devices of this machine in order of preference: GPUs, then the CPU.

    Whether one works is found at its first use, see `device_choice.find_device_problem`.
    """
    import torch

    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    other = torch.accelerator.current_accelerator()  # of an Apple or Intel machine, as MPS or XPU
    if torch.backends.mps.is_available():
        names.append("mps")
    elif other is not None and other.type not in ("cuda", "mps"):
        names += [f"{other.type}:{i}" for i in range(torch.accelerator.device_count())]
    return [*names, "cpu"]


def format_device_name(name: str) -> str:
    """Format a device for messages, as "the CPU"."""
    if name.startswith("cuda"):
        import torch

        try:
            return f"the GPU {torch.cuda.get_device_name(torch.device(name))}"
        except (RuntimeError, AssertionError):  # of a driver that does not work
            return f"the GPU {name}"
    return {"mps": "the Apple GPU", "cpu": "the CPU"}.get(name, f"the device {name}")


def reserve_cpu_core() -> None:
    """Leave one core to the window: limit torch's threads in the calling thread.

    Call it in the thread that computes, as OpenMP stores the number per thread.
    """
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))


# Numbers of <malloc.h> in glibc, and bytes.
_MALLOC_SETTINGS = {
    -3: 32 * 2**20,  # M_MMAP_THRESHOLD: larger blocks go back to the system at once
    -1: 256 * 2**20,  # M_TRIM_THRESHOLD: so much freed memory is kept in each arena
    -2: 32 * 2**20,  # M_TOP_PAD: by so much an arena grows
}


def keep_freed_memory() -> None:
    """Let the C library keep the memory that a network frees between its layers.

    A thread's arena gives freed memory back at once, so that every layer of every batch faults its
    pages in anew: half of the time of encoding in a thread. Holds for the process; it does
    something with glibc only.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):  # not in musl
            for parameter, value in _MALLOC_SETTINGS.items():
                library.mallopt(parameter, value)


def free_device_memory(device: torch.device) -> None:
    """Release the memory that torch caches on the device."""
    import torch

    if device.type in ("cuda", "mps", "xpu"):
        torch.get_device_module(device).empty_cache()


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a tensor on the device; a GPU computes during the copy."""
    import torch

    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision: bfloat16 or float16 on CUDA, float32 elsewhere."""
    import torch

    if device.type != "cuda":
        return nullcontext()
    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.autocast("cuda", dtype=dtype)
