"""Which device is used: one that fails at its first use is passed over with a sentence."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
import torch

from napari_dkan.doctor import compute_checks
from napari_dkan.doctor.check_result import CheckStatus
from napari_dkan.inference import device_choice, device_errors
from napari_dkan.inference.device_choice import (
    explain_device_choice,
    find_device_problem,
    pick_device,
    resolve_device_name,
)
from napari_dkan.inference.device_errors import (
    DeviceError,
    DeviceFailure,
    classify_device_failure,
    report_device_errors,
    run_in_halves,
)

NO_KERNEL = "CUDA error: no kernel image is available for execution on the device\nCUDA kernel ..."
FULL = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 4.00 GiB"


@pytest.fixture(autouse=True)
def _untried() -> Iterator[None]:
    for known in (device_choice._problems, device_errors.lost_devices):
        known.clear()
    yield
    for known in (device_choice._problems, device_errors.lost_devices):
        known.clear()


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Exception | None]]:
    """Two GPUs, and what each does at its next attempts; the last of these goes on."""
    behaviour: dict[str, list[Exception | None]] = {"cuda:0": [None], "cuda:1": [None]}
    names = [*behaviour, "cpu"]
    monkeypatch.setattr(device_choice, "list_available_devices", lambda: names)
    compute = device_choice._compute_sample

    def compute_or_fail(device: torch.device) -> torch.Tensor:
        attempts = behaviour.get(str(device), [None])
        error = attempts.pop(0) if len(attempts) > 1 else attempts[0]
        if error is not None:
            raise error
        return compute(torch.device("cpu"))

    monkeypatch.setattr(device_choice, "_compute_sample", compute_or_fail)
    return behaviour


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (RuntimeError(NO_KERNEL), DeviceFailure.unsupported),
        (
            RuntimeError("The NVIDIA driver on your system is too old (found version 11040)."),
            DeviceFailure.unsupported,
        ),
        (RuntimeError("Found no NVIDIA driver on your system."), DeviceFailure.unsupported),
        (AssertionError("Torch not compiled with CUDA enabled"), DeviceFailure.unsupported),
        (
            RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
            DeviceFailure.busy,
        ),
        (torch.OutOfMemoryError(FULL), DeviceFailure.memory),
        (RuntimeError("CUDA error: out of memory"), DeviceFailure.memory),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), DeviceFailure.memory),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
            DeviceFailure.memory,
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
            DeviceFailure.memory,
        ),
        (MemoryError(), DeviceFailure.memory),
        (RuntimeError("CUDA error: unspecified launch failure"), DeviceFailure.lost),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DeviceFailure.lost),
        # faults of a program, which are to be seen as such
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), None),
        (RuntimeError("Expected all tensors to be on the same device, cuda:0 and cpu!"), None),
        (AssertionError("out of order"), None),
        (ValueError("out of memory"), None),
    ],
)
def test_errors_of_torch_are_told_apart(error: Exception, failure: DeviceFailure | None):
    assert classify_device_failure(error) is failure
    raised = type(error) if failure is None else DeviceError
    with pytest.raises(raised), report_device_errors("cuda:1"):
        raise error


def test_auto_passes_over_a_gpu_without_kernels(gpus, caplog):
    gpus["cuda:0"] = [RuntimeError(NO_KERNEL)]
    assert pick_device() == torch.device("cuda:1") and resolve_device_name("auto") == "cuda:1"
    (said,) = caplog.messages
    assert said == explain_device_choice()
    assert "cuda:0 cannot be used: its driver and this PyTorch" in said and "no kernel" in said
    assert "CUDA kernel ..." not in said and said.endswith("Until then the GPU cuda:1 is used.")
    with pytest.raises(DeviceError, match=r"update its driver.*or choose the CPU\.$"):
        pick_device("cuda")
    assert pick_device("cuda:1").index == 1 and pick_device("cpu").type == "cpu"
    assert len(caplog.messages) == 1  # once in a process


def test_a_full_or_busy_gpu_is_tried_again_and_a_broken_one_is_not(gpus):
    busy = RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable")
    gpus["cuda:0"] = [RuntimeError(NO_KERNEL), None]
    gpus["cuda:1"] = [torch.OutOfMemoryError(FULL), busy, None]
    assert pick_device() == torch.device("cpu")
    assert resolve_device_name("auto") == "cpu"  # the window asks often; nothing is tried
    assert "its memory is full; close other programs" in explain_device_choice()
    with pytest.raises(DeviceError, match="another program"):
        pick_device("cuda:1")
    assert pick_device() == torch.device("cuda:1")
    assert find_device_problem("cuda:0", again=True).failure is DeviceFailure.unsupported


def test_wrong_numbers_are_noticed(gpus, monkeypatch):
    compute = device_choice._compute_sample
    monkeypatch.setattr(
        device_choice, "_compute_sample", lambda d: compute(d) * (1.1 if d.type == "cuda" else 1)
    )
    assert pick_device() == torch.device("cpu")
    assert find_device_problem("cuda:0").failure is DeviceFailure.wrong


def test_a_lost_gpu_is_not_used_again(gpus):
    assert pick_device() == torch.device("cuda:0")
    with pytest.raises(DeviceError, match="it has stopped working"), report_device_errors("cuda:0"):
        raise RuntimeError("CUDA error: unspecified launch failure")
    assert pick_device() == torch.device("cuda:1")


def test_doctor_says_what_is_used_and_why(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("the GPU of this machine works")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # NVML counts what CUDA cannot use
    found = {r.name: r for r in compute_checks.check_devices()}
    assert found["auto"].said == "predictions run on the CPU (cpu)"
    assert found["cuda:0"].state is CheckStatus.broken
    assert found["cuda:0"].said.startswith("The GPU cuda:0 cannot be used: its driver and this")
    assert "cuda:0 float32" not in found and found["cpu float32"].state is CheckStatus.ok


def test_errors_survive_the_way_between_processes():
    error = DeviceError("cuda:1", DeviceFailure.busy, "said")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.failure is DeviceFailure.busy
    assert "of this machine" in str(DeviceError("cpu", DeviceFailure.memory))


def test_batches_are_halved_down_to_one():
    sizes: list[int] = []

    def compute(rows: torch.Tensor) -> torch.Tensor:
        if len(rows) > 2:
            raise torch.OutOfMemoryError(FULL)
        return 2 * rows

    rows = torch.arange(11)
    found = run_in_halves(compute, [rows], torch.device("cpu"), sizes.append)
    assert found.tolist() == (2 * rows).tolist() and min(sizes) == 1
    with pytest.raises(ZeroDivisionError):
        run_in_halves(lambda rows: 1 / 0, [rows], torch.device("cpu"))
