"""Failures of a device: what torch's errors mean, as a sentence that says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..errors import DkanError
from .device import format_device_name, free_device_memory

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


class DeviceFailure(Enum):
    """Why a device cannot be used."""

    memory = "its memory is full"
    busy = "another program keeps it for itself"
    unsupported = "its driver and this PyTorch do not go together"
    wrong = "it computes wrong numbers"
    lost = "it has stopped working"


_ADVICE = {
    DeviceFailure.memory: "close other programs that use it",
    DeviceFailure.busy: "close that program",
    DeviceFailure.unsupported: "update its driver, or install the PyTorch that pytorch.org names",
    DeviceFailure.wrong: "update its driver",
    DeviceFailure.lost: "start this program again",
}

# In messages of torch about CUDA, ROCm, XPU and Metal, in lower case; the first one counts.
_SIGNS = {
    DeviceFailure.memory: (
        *("out of memory", "out_of_memory", "alloc_failed", "can't allocate memory"),
        "outofmemory",
    ),
    DeviceFailure.busy: ("busy or unavailable", "devicesunavailable"),
    DeviceFailure.unsupported: (
        *("no kernel image", "not compatible with the current pytorch", "arch_mismatch"),
        *("driver on your system is too old", "driver version is insufficient"),
        *("no nvidia driver", "forward compatibility", "system not yet initialized"),
        *("provided ptx", "invalid device function", "version mismatch", "no binary for gpu"),
        *("not compiled with", "not currently implemented for"),
    ),
}
_OF_A_DEVICE = re.compile(
    r"\b(cuda|hip|xpu|mps|driver) error|cublas|cudnn|cusolver|rocblas|miopen|ur_result_error"
    r"|device lost|device-side assert|mtlcommandbuffer",
    re.IGNORECASE,
)
MAX_DETAIL = 120  # characters of torch's own message

# By name, until this process ends: nothing more can be computed on them.
lost_devices: dict[str, DeviceError] = {}


class DeviceError(DkanError):
    """A device cannot be used or has failed.

    Attributes
    ----------
    device : str
        Its name, such as ``cuda:0``.
    failure : DeviceFailure
        Why.
    """

    def __init__(self, device: object, failure: DeviceFailure, detail: str = "") -> None:
        self.device, self.failure = str(device), failure
        super().__init__(self.device, failure, detail)  # what it is made anew from when pickled

    @property
    def finding(self) -> str:
        """Device and reason, as a sentence without its end."""
        name, detail = format_device_name(self.device), self.args[2]
        said = f" ({detail})" if detail else ""
        return f"{name[:1].upper()}{name[1:]} cannot be used: {self.failure.value}{said}"

    @property
    def advice(self) -> str:
        """What makes the device usable, as half a sentence."""
        return _ADVICE[self.failure]

    def __str__(self) -> str:
        if self.device == "cpu":
            return (
                "The memory of this machine does not hold one spot of this checkpoint and its "
                "surroundings; close other programs."
            )
        return f"{self.finding}; {self.advice}, or choose the CPU."


def classify_device_failure(error: BaseException) -> DeviceFailure | None:
    """Tell why a device failed from an error of torch; None where the error is not a device's."""
    import torch

    if isinstance(error, DeviceError):
        return error.failure
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return DeviceFailure.memory
    if not isinstance(error, RuntimeError | AssertionError):
        return None
    text = str(error).lower()
    found = next((f for f, signs in _SIGNS.items() if any(s in text for s in signs)), None)
    if found is not None or not isinstance(error, RuntimeError):
        return found
    accelerator_error = getattr(torch, "AcceleratorError", ())  # torch 2.8 and later
    is_device = isinstance(error, accelerator_error) or _OF_A_DEVICE.search(text)
    return DeviceFailure.lost if is_device else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory ran out, of any device."""
    return classify_device_failure(error) is DeviceFailure.memory


@contextmanager
def report_device_errors(device: torch.device | str) -> Iterator[None]:
    """Raise what torch says of a failing device as a `DeviceError`; other errors stay as they are.

    Raises
    ------
    DeviceError
    """
    try:
        yield
    except (RuntimeError, MemoryError, AssertionError) as error:
        failure = classify_device_failure(error)
        if failure is None:
            raise
        found = make_device_error(device, failure, error)
        if failure is DeviceFailure.lost:
            lost_devices[found.device] = found
        raise found from error


def run_in_halves(
    compute: Callable[..., Tensor],
    inputs: Sequence[Tensor | NDArray[Any]],
    device: torch.device,
    on_halving: Callable[[int], None] = lambda size: None,
) -> Tensor:
    """Compute a batch; halve one that the device cannot hold, and try again.

    Parameters
    ----------
    compute
        From inputs of B rows to a tensor of B rows.
    on_halving
        Called with the number of rows that are tried next.

    Raises
    ------
    DeviceError
        When memory does not hold a single row.
    """
    import torch

    size = len(inputs[0])
    try:
        return compute(*inputs)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if size <= 1:
            raise DeviceError(device, DeviceFailure.memory) from error
    half = size // 2
    free_device_memory(device)
    on_halving(half)
    first, second = ([x[part] for x in inputs] for part in (slice(half), slice(half, None)))
    return torch.cat([run_in_halves(compute, rows, device, on_halving) for rows in (first, second)])


def make_device_error(
    device: torch.device | str, failure: DeviceFailure, error: BaseException
) -> DeviceError:
    """Make the error that names the device, with the first sentence of what torch says."""
    if failure is DeviceFailure.memory:  # torch's own advice is for programmers
        return DeviceError(device, failure)
    line = (str(error).strip().splitlines() or [""])[0]
    said = line.split(". ")[0].rstrip(".")
    return DeviceError(device, failure, said[:MAX_DETAIL])
