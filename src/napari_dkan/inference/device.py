"""Which device computes, in which precision."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ..errors import DkanError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


def list_available_devices() -> list[str]:
    """Devices on this machine, the one to choose first: CUDA, then MPS, then the CPU."""
    import torch

    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def pick_device(name: str | None = None) -> torch.device:
    """``None`` or ``auto`` picks the best one.

    Raises DkanError when the asked-for device is not there.
    """
    import torch

    names = list_available_devices()
    if name is None or name == "auto":
        return torch.device(names[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in names:
        raise DkanError(f"The device {name} is not on this machine; choose {' or '.join(names)}.")
    return torch.device(wanted)


def resolve_device_name(name: str) -> str:
    """The name of the device that ``auto`` stands for; any other name as it is."""
    return list_available_devices()[0] if name == "auto" else name


def format_device_name(name: str) -> str:
    """What a person calls the device."""
    if name.startswith("cuda"):
        import torch

        return f"the GPU {torch.cuda.get_device_name(torch.device(name))}"
    return {"mps": "the Apple GPU", "cpu": "the CPU"}.get(name, name)


def reserve_cpu_core() -> None:
    """Let this thread's torch work use all cores but one, which the window needs.

    Call it in the thread that computes: OpenMP keeps the number per calling thread.
    """
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))


def free_device_memory(device: torch.device) -> None:
    """Give back what torch keeps for later, before trying again with less."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()


def to_device(array: NDArray, device: torch.device) -> Tensor:
    """A tensor of the array on the device; to a GPU the copy runs beside what it computes."""
    import torch

    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision where it helps: bfloat16 or float16 on CUDA, float32 elsewhere."""
    import torch

    if device.type != "cuda":
        return nullcontext()
    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.autocast("cuda", dtype=dtype)
