"""A device in Python that is not the CPU: torch's device "pretend", registered as PrivateUse1.

It computes on the CPU, so its numbers are right, and it is as strict as a GPU: tensors of two
devices do not mix, its tensors are not numpy's, and like an Apple GPU it has no float64. What torch
allows on a GPU is allowed: to copy between devices, a number (a tensor without dimensions) of the
CPU in an operation, and an index on the CPU.

Registering it lasts until the process ends, so these tests run in a process of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map

NAME = "pretend"
MIXING = {"copy_", "_to_copy", "index", "index_put_", "index_put", "_index_put_impl_"}

# Called with each operation before it runs on the device; one that raises makes it fail.
before_operation: list[Callable[[torch._ops.OpOverload], None]] = []


class PretendTensor(Tensor):
    """A tensor of the device; ``memory`` is the CPU tensor that stands for its memory."""

    memory: Tensor

    @staticmethod
    def __new__(cls, memory: Tensor) -> PretendTensor:
        return Tensor._make_wrapper_subclass(
            cls,
            memory.shape,
            strides=memory.stride(),
            storage_offset=memory.storage_offset(),
            dtype=memory.dtype,
            device=torch.device(NAME, 0),
        )

    def __repr__(self) -> str:
        return f"pretend {self.memory}"

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return run(operation, *args, **(kwargs or {}))


def run(operation: torch._ops.OpOverload, *args: Any, **kwargs: Any) -> Any:
    """Run an operation that has to do with the device."""
    # In inference mode these arrive in one piece, such as a `to` that copies to the CPU.
    if torch._C._dispatch_has_kernel_for_dispatch_key(
        operation.name(), "CompositeImplicitAutograd"
    ):
        return operation.decompose(*args, **kwargs)
    for observe in before_operation:
        observe(operation)
    inputs = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
    ours = [x for x in inputs if isinstance(x, PretendTensor)]
    target = kwargs.get("device")
    name = operation._schema.name.removeprefix("aten::")
    if (
        ours
        and name not in MIXING
        and any(not isinstance(x, PretendTensor) and x.ndim for x in inputs)
    ):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"cpu and {NAME}:0! (when {operation} was called)"
        )
    if kwargs.get("generator") is not None:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
    on_device = bool(ours) if target is None else torch.device(target).type == NAME
    if name == "copy_":
        on_device = isinstance(args[0], PretendTensor)
    wrappers = {id(x.memory): x for x in ours}
    # In inference mode too, a view of an ordinary tensor is an ordinary tensor.
    is_view = any(r.alias_info and not r.alias_info.is_write for r in operation._schema.returns)
    is_ordinary = is_view and not any(x.is_inference() for x in ours)
    if on_device and kwargs.get("pin_memory"):
        raise RuntimeError("only CPU tensors can be pinned")

    def unwrap(value: Any) -> Any:
        if isinstance(value, PretendTensor):
            return value.memory
        return torch.device("cpu") if isinstance(value, torch.device) else value

    def wrap(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in wrappers:  # changed in place
            wrapper = wrappers[id(value)]
            assert wrapper.shape == value.shape, f"{operation} changes a shape in place"
            return wrapper
        if not on_device:
            return value
        if value.dtype == torch.float64:
            raise TypeError(f"Cannot have a float64 tensor on {NAME}: it has no float64.")
        return PretendTensor(value)

    result = operation(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    with torch.inference_mode(torch.is_inference_mode_enabled() and not is_ordinary):
        return tree_map(wrap, result)


class PretendModule:
    """What torch asks of ``torch.pretend``."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_library, _aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")


def register() -> None:
    """Register the device in this process.

    Raises
    ------
    ImportError
        Where torch has no devices in Python.
    """
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, PretendModule())
    _library.fallback(run, "PrivateUse1")
    # `arange` would resize an empty tensor, and `torch.tensor` copies past __torch_dispatch__.
    arange, copy = torch.ops.aten.arange, torch.ops.aten.copy_
    for operation in (arange.default, arange.start, arange.start_step, copy.default):
        _aten.impl(operation.name(), partial(run, operation), "PrivateUse1")
