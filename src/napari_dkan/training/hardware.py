"""What a network is trained on: one CPU, one GPU or several processes, and in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..errors import DkanError
from .choices import Precision


@dataclass(frozen=True)
class TrainingHardware:
    """devices : GPUs where there are any, else processes on the CPU; above 1 they share each step.

    With several, every one takes other batches and their gradients are averaged (DDP), so a step
    sees ``devices`` times the batch.
    """

    devices: int = 1
    precision: Precision = Precision.auto

    def trainer_options(self) -> dict[str, Any]:
        """Arguments of a Lightning Trainer. Raises DkanError when there are not as many GPUs."""
        gpus = torch.cuda.device_count()
        if gpus and self.devices > gpus:
            raise DkanError(f"There are {gpus} GPUs, not {self.devices}; give --devices {gpus}.")
        options: dict[str, Any] = {
            "accelerator": "cuda" if gpus else "cpu",
            "devices": self.devices,
            "precision": self._lightning_precision(bool(gpus)),
        }
        if self.devices > 1:
            from lightning.pytorch.strategies import DDPStrategy

            # sections hold tensors that share memory, whose descriptors cannot be passed on twice
            torch.multiprocessing.set_sharing_strategy("file_system")
            # spawned, so that a fold of a longer run can be shared out and the rest not;
            # without contrast the expression path has no gradient
            options["strategy"] = DDPStrategy(
                start_method="spawn",
                find_unused_parameters=True,
                process_group_backend="nccl" if gpus else "gloo",
            )
            options["sync_batchnorm"] = bool(gpus)
        return options

    def _lightning_precision(self, gpu: bool) -> str:
        chosen = self.precision
        if chosen is Precision.auto:
            if not gpu:
                chosen = Precision.float32
            else:
                chosen = Precision.bfloat16 if torch.cuda.is_bf16_supported() else Precision.float16
        if chosen is Precision.float16 and not gpu:
            raise DkanError("16 bits need a GPU; give --precision 32 or bf16.")
        return {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}[chosen.value]
