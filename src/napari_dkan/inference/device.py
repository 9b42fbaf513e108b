"""Device and precision of the computation."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ..errors import DkanError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


class DeviceOutOfMemoryError(DkanError):
    """The device's memory does not hold even one spot."""

    def __init__(self, device: object) -> None:
        super().__init__(
            f"The memory of {device} does not hold one spot of this checkpoint; "
            "close other programs that use it, or predict on the CPU."
        )


def list_available_devices() -> list[str]:
    """List the devices of this machine in order of preference: CUDA, MPS, CPU."""
    import torch

    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def pick_device(name: str | None = None) -> torch.device:
    """Get a device by name; ``None`` and ``auto`` pick the best one.

    Raises
    ------
    DkanError
        When this machine does not have the device.
    """
    import torch

    names = list_available_devices()
    if name is None or name == "auto":
        return torch.device(names[0])
    full_name = "cuda:0" if name == "cuda" else name
    if full_name not in names:
        raise DkanError(f"The device {name} is not on this machine; choose {' or '.join(names)}.")
    return torch.device(full_name)


def resolve_device_name(name: str) -> str:
    """Replace ``auto`` by the name of the best device."""
    return list_available_devices()[0] if name == "auto" else name


def format_device_name(name: str) -> str:
    """Format a device for messages, as "the CPU"."""
    if name.startswith("cuda"):
        import torch

        return f"the GPU {torch.cuda.get_device_name(torch.device(name))}"
    return {"mps": "the Apple GPU", "cpu": "the CPU"}.get(name, name)


def reserve_cpu_core() -> None:
    """Leave one core to the window: limit torch's threads in the calling thread.

    Call it in the thread that computes, as OpenMP stores the number per thread.
    """
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))


def free_device_memory(device: torch.device) -> None:
    """Release the memory that torch caches on the device."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()


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
