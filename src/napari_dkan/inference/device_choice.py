"""Choice of the device: a small computation tells whether it works before it is used."""

from __future__ import annotations

import logging
from threading import Lock
from typing import TYPE_CHECKING

from ..errors import DkanError
from .device import autocast, format_device_name, list_available_devices
from .device_errors import (
    DeviceError,
    DeviceFailure,
    classify_device_failure,
    lost_devices,
    make_device_error,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)

AUTO = "auto"
PROBE_TOLERANCE = 0.05  # of the largest value; half precision is within 0.01
_PASSING = (DeviceFailure.memory, DeviceFailure.busy)  # may be over at the next attempt

_problems: dict[str, DeviceError | None] = {}  # of the devices that were tried in this process
_lock = Lock()


def pick_device(name: str | None = None) -> torch.device:
    """Get a device that works; ``None`` and ``auto`` pick the best one, at last the CPU.

    Raises
    ------
    DkanError
        When this machine does not have the device.
    DeviceError
        When it has it, but the device does not work.
    """
    import torch

    names = list_available_devices()
    if name is None or name == AUTO:
        return torch.device(_find_best(names, again=True))
    full_name = _complete_name(name)
    if full_name not in names:
        raise DkanError(f"The device {name} is not on this machine; choose {' or '.join(names)}.")
    problem = find_device_problem(full_name, again=True)
    if problem is not None:
        raise problem
    return torch.device(full_name)


def resolve_device_name(name: str) -> str:
    """Replace ``auto`` by the name of the best device that works."""
    return _find_best(list_available_devices()) if name == AUTO else name


def explain_device_choice() -> str:
    """Explain in sentences which better devices ``auto`` does not use; "" when it takes the best.

    The first call in a process tries the devices, which takes a second or two on a GPU.
    """
    names = list_available_devices()
    best = _find_best(names)
    passed_over = map(find_device_problem, names[: names.index(best)])
    return " ".join(_explain_passed_over(p, best) for p in passed_over if p is not None)


def find_device_problem(name: str, again: bool = False) -> DeviceError | None:
    """Find out why a device cannot be used, None for one that works.

    What predictions consist of is computed once on it in a process: a convolution and a product of
    matrices, in the precision of predictions. The CPU always works.

    Parameters
    ----------
    again
        Try a device again whose memory was full, or which another program used.
    """
    if name == "cpu":
        return None
    with _lock:
        if name in lost_devices:
            return lost_devices[name]
        known = _problems.get(name)
        if name not in _problems or (again and known is not None and known.failure in _PASSING):
            _problems[name] = _probe(name)
        return _problems[name]


def _find_best(names: list[str], again: bool = False) -> str:
    found: list[DeviceError] = []
    for name in names:
        known = _problems.get(name)
        problem = find_device_problem(name, again)
        if problem is None:
            break
        if known is None:
            found.append(problem)
    for problem in found:  # said once in a process
        log.warning("%s", _explain_passed_over(problem, name))
    return name


def _explain_passed_over(problem: DeviceError, best: str) -> str:
    return f"{problem.finding}; {problem.advice}. Until then {format_device_name(best)} is used."


def _complete_name(name: str) -> str:
    return name if ":" in name or name in ("cpu", "mps") else f"{name}:0"


def _probe(name: str) -> DeviceError | None:
    """Compare what predictions consist of on a device with the CPU."""
    import torch

    device = torch.device(name)
    try:
        computed = _compute_sample(device)
    except (RuntimeError, AssertionError, MemoryError) as error:
        failure = classify_device_failure(error) or DeviceFailure.unsupported
        return make_device_error(device, failure, error)
    expected = _compute_sample(torch.device("cpu"))
    off = float((computed - expected).abs().max() / expected.abs().max())
    if off <= PROBE_TOLERANCE:
        return None
    return DeviceError(device, DeviceFailure.wrong, f"off by {off:.2g} of the largest value")


def _compute_sample(device: torch.device) -> Tensor:
    """A convolution, attention and a product of matrices of drawn numbers: (2, 16) on the CPU."""
    import torch
    from torch.nn import functional

    draw = torch.Generator().manual_seed(0)
    image, kernel, weights = (
        torch.randn(*shape, generator=draw).to(device)
        for shape in ((2, 3, 32, 32), (16, 3, 3, 3), (16, 16))
    )
    with torch.inference_mode(), autocast(device):
        tokens = functional.conv2d(image, kernel, stride=4).flatten(2).transpose(1, 2)
        attended = functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return (attended.mean(dim=1) @ weights).float().cpu()
