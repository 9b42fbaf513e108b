"""One training step of the published size, ours against the published one taken literally.

Prints the loss of both, how far their gradients are apart, the time of a whole step (loss,
gradients, Adam) and the peak of its memory. On a GPU with batch 128 where there is one, else on
the CPU with a batch that fits. Each figure of memory, and both of time, come from a process of
their own.

The memory of a step is what it takes at its peak over what lasts from step to step: weights,
gradients, Adam's two moments and the batch. `total` counts these too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from published_model import published_config
from published_step import PublishedStep
from torch import Tensor

from napari_dkan.model.network.dkan_network import DKAN
from napari_dkan.training.data.section_batches import TrainingBatch
from napari_dkan.training.fit.lightning_module import DKANLightningModule
from napari_dkan.training.train_settings import TrainSettings

Loss = Callable[[], Tensor]
STEPS = ("ours", "literal")


def drawn_batch(args: argparse.Namespace) -> TrainingBatch:
    spots, dim, device = args.spots, args.dim, args.device
    draw = torch.Generator().manual_seed(2021)
    side = int(spots**0.5) + 1
    cells = torch.arange(spots)
    mask = torch.ones(args.batch, 25)
    mask[::4, :5] = 0  # some neighbours lie off the slide

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(device)

    return {
        "patches": normal(args.batch, 3, args.patch, args.patch),
        "slide_features": normal(spots, dim),
        "positions": torch.stack([cells // side, cells % side], dim=1).to(device),
        "neighbor_features": normal(args.batch, 25, dim),
        "neighbor_mask": mask.to(device),
        "rows": torch.arange(args.batch, device=device),
        "labels": normal(args.batch, args.genes),
    }


class Bench:
    """Both steps on the same weights, batch and optimiser."""

    def __init__(self, args: argparse.Namespace) -> None:
        warnings.filterwarnings("ignore", message=".*self.log.*")
        torch.manual_seed(2021)
        self.gpu = args.device == "cuda"
        self.precision = partial(torch.autocast, args.device, torch.bfloat16, args.mixed)
        network = DKAN(published_config(args.dim, args.genes), torch.randn(args.genes, args.dim))
        network = network.to(args.device).train()
        settings = TrainSettings(
            contrastive_factor=1.0,
            correlation=0.0,
            genes_per_step=None,
            contrastive_rows=None,
            **({} if args.keep_rows else {"checkpoint_rows": args.rows}),
        )
        self.batch = drawn_batch(args)
        self.literal = PublishedStep(network, settings)
        module = DKANLightningModule(network, settings)
        self.losses: dict[str, Loss] = {
            "ours": lambda: module.training_step(self.batch, 0),
            "literal": lambda: self.literal(self.batch)[0],
        }
        self.shared = list(network.parameters())
        # fused: the same numbers in one pass over the weights, for both
        self.optimiser = torch.optim.Adam(self.literal.parameters(), lr=1e-4, fused=True)

    def step(self, which: str) -> None:
        self.optimiser.zero_grad()
        self.loss(which).backward()
        self.optimiser.step()
        self.wait()

    def loss(self, which: str) -> Tensor:
        with self.precision():
            return self.losses[which]()

    def gradients(self, which: str) -> tuple[float, list[Tensor]]:
        loss = self.loss(which)
        return loss.item(), list(torch.autograd.grad(loss, self.shared))

    def wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()


def compare(args: argparse.Namespace) -> dict[str, float]:
    """Losses and gradients of both, then the seconds of their steps, in turns."""
    bench = Bench(args)
    ours, got = bench.gradients("ours")
    literal, wanted = bench.gradients("literal")
    apart = torch.stack([(a - b).norm() for a, b in zip(got, wanted, strict=True)]).norm()
    size = torch.stack([g.norm() for g in wanted]).norm()
    del got, wanted
    wall: dict[str, list[float]] = {which: [] for which in STEPS}
    busy: dict[str, list[float]] = {which: [] for which in STEPS}
    for _ in range(args.repeats):
        for which in STEPS:
            start = time.perf_counter(), time.process_time()
            bench.step(which)
            wall[which].append(time.perf_counter() - start[0])
            busy[which].append(time.process_time() - start[1])
    return {
        "parameters": sum(p.numel() for p in bench.shared),
        "ours": ours,
        "literal": literal,
        "gradient": (apart / size).item(),
        **{f"{which} seconds": median(values) for which, values in wall.items()},
        **{f"{which} busy": median(values) for which, values in busy.items()},
    }


def memory(args: argparse.Namespace) -> dict[str, float]:
    """Peak of one step in a fresh process, over what lasts, and with it; GB."""
    bench = Bench(args)
    for parameter in bench.literal.parameters():
        parameter.grad = torch.zeros_like(parameter)
    bench.optimiser.step()  # makes the moments
    bench.wait()
    before = _now(args.device)
    bench.loss(args.memory).backward()
    bench.optimiser.step()
    bench.wait()
    peak = _peak(args.device)
    return {"step": (peak - before) / 1e9, "total": peak / 1e9}


def _now(device: str) -> int:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    args = _arguments()
    if args.memory or args.compare:
        print(json.dumps(memory(args) if args.memory else compare(args)))
        return

    def fresh(*more: str) -> dict[str, float]:
        command = [sys.executable, __file__, *sys.argv[1:], *more]
        # What is freed goes back to the system at once: else the allocator is measured too.
        told = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"} if "--memory" in more else None
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=told)
        return json.loads(done.stdout)

    both = fresh("--compare")
    where = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(
        f"\n{where}, {torch.get_num_threads()} CPU threads: {both['parameters'] / 1e6:.0f} M "
        f"parameters, d = {args.dim}, {args.genes} genes, batch {args.batch}, a section of "
        f"{args.spots} spots; {args.repeats} steps of each in turns, medians; gradients apart by "
        f"{both['gradient']:.1e} of their size\n"
    )
    print("| step | loss | seconds | CPU seconds |\n|---|---|---|---|")
    for which in STEPS:
        seconds, busy = (both[f"{which} {k}"] for k in ("seconds", "busy"))
        print(f"| {which} | {both[which]:.6f} | {seconds:.2f} | {busy:.2f} |")
    faster, less = (both[f"literal {k}"] / both[f"ours {k}"] for k in ("seconds", "busy"))
    print(f"| literal / ours | | {faster:.2f} | {less:.2f} |\n", flush=True)

    peaks = {which: fresh("--memory", which) for which in STEPS}
    print("| peak memory | of the step, GB | with weights and moments, GB |\n|---|---|---|")
    for which, peak in peaks.items():
        print(f"| {which} | {peak['step']:.2f} | {peak['total']:.2f} |")
    step, total = (peaks["ours"][k] / peaks["literal"][k] for k in ("step", "total"))
    print(f"| ours / literal | {step:.2f} | {total:.2f} |")


def _arguments() -> argparse.Namespace:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a quick form: d = 256, 128 genes")
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, help="spots in a batch")
    parser.add_argument("--dim", type=int)
    parser.add_argument("--genes", type=int)
    parser.add_argument("--spots", type=int, default=300, help="spots of the section")
    parser.add_argument("--patch", type=int, help="side of a patch, px")
    parser.add_argument("--rows", type=int, help="Settings.checkpoint_rows")
    parser.add_argument("--keep-rows", action="store_true", help="all activations are kept")
    parser.add_argument("--mixed", action="store_true", help="both in mixed precision, bfloat16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory", choices=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    small = {"batch": 16, "dim": 256, "genes": 128, "patch": 64}
    gpu = args.device == "cuda"
    full = {"batch": 128 if gpu else 32, "dim": 1024, "genes": 250, "patch": 224}
    for name, value in (small if args.small else full).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.rows is None:
        args.rows = 8000 if gpu else 500
    return args


if __name__ == "__main__":
    main()
