"""Where workers run: one for every GPU; on a CPU one for every core that has the memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import DkanError

VISIBLE_DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
CPU_WORKER_BYTES = 2 * 2**30  # of memory that a worker on the CPU may come to need


@dataclass(frozen=True)
class WorkerDevice:
    """One worker's device.

    name : what a person calls it. device : as the worker itself sees it: with only its own GPU in
    sight, that is the first. environment : set before torch is loaded. threads : of torch.
    """

    name: str
    device: str
    n_threads: int
    environment: Mapping[str, str] = field(default_factory=dict)


def assign_worker_devices(
    available: Sequence[str],
    requested: Sequence[str] | None,
    n_workers: int | None,
    n_jobs: int,
    n_cores: int,
    free_memory: int,
    environment: Mapping[str, str],
) -> tuple[WorkerDevice, ...]:
    """Places for workers, never more than there are jobs.

    there : devices of this machine, best first. asked : of them, all GPUs (else the best device)
    when None. workers : how many processes, spread over the devices; one per GPU and as many as
    cores and memory (bytes free) allow on the CPU when None.

    A worker on the CPU computes in one thread: more workers use more cores, without the quarrel
    of several thread pools, and a slide's values do not depend on how many cores there were.

    Raises DkanError when a device is not there.
    """
    gpus = [name for name in available if name.startswith("cuda")]
    chosen = list(requested or gpus or available[:1])
    for i, name in enumerate(chosen):
        chosen[i] = "cuda:0" if name == "cuda" else name
        if chosen[i] not in available:
            raise DkanError(
                f"The device {name} is not on this machine; choose {' or '.join(available)}."
            )
    most = max(1, min(n_cores, free_memory // CPU_WORKER_BYTES))
    if n_workers is None:  # the CPU's come last, should there be fewer jobs
        chosen.sort(key="cpu".__eq__)
        names = [name for name in chosen for _ in range(most if name == "cpu" else 1)]
    else:
        names = [chosen[i % len(chosen)] for i in range(n_workers)]
    names = names[: max(1, n_jobs)]
    share = max(1, n_cores // len(names))
    return tuple(_create_worker_device(name, share, environment) for name in names)


def _create_worker_device(name: str, n_threads: int, environment: Mapping[str, str]) -> WorkerDevice:
    if name == "cpu":
        return WorkerDevice(name, "cpu", 1, {"OMP_NUM_THREADS": "1"})
    if not name.startswith("cuda:"):
        return WorkerDevice(name, name, n_threads)
    number = int(name.removeprefix("cuda:"))
    visible = [v.strip() for v in environment.get(VISIBLE_DEVICES_VARIABLE, "").split(",") if v.strip()]
    own = visible[number] if number < len(visible) else str(number)
    return WorkerDevice(name, "cuda:0", n_threads, {VISIBLE_DEVICES_VARIABLE: own})
