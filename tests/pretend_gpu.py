"""A device that says it is a GPU and computes on the CPU: it finds tensors that were left on the wrong side.

On a GPU an operation on tensors of both sides ends the program. Here it does so on any machine; the numbers are the
CPU's. It cannot run backward (autograd asks the driver for a stream), and knows nothing of half precision and of the
kernels of a GPU. It leans on what torch's FakeTensorMode leans on, which is private to torch: see ``works``.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
aten = torch.ops.aten
ACROSS = {aten._to_copy.default, aten.copy_.default}
NUMBERS = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "bincount", "repeat_interleave",
    "_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive",
}  # fmt: skip
"""Operations whose result, or its size, the host has to know."""
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
"""Those too, where an index is a mask: how many are true?"""
PACKAGE = str(Path(__file__).parents[1] / "rsepm_edu")

WAITS: list[str] = []
"""What has made the host wait for the GPU so far, each time, and the line of the package that asked for it."""


def _wait(what: str) -> None:
    frame: Any = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    place = "no line of the package"
    if frame is not None:
        place = f"rsepm_edu{frame.f_code.co_filename.removeprefix(PACKAGE)}:{frame.f_lineno}"
    WAITS.append(f"{place}: {what}")


class OnGpu(Tensor):
    """A tensor of the CPU that says it lies on the GPU."""

    kept: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnGpu":
        made: OnGpu = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device("cpu"),
            dispatch_device=True,
            requires_grad=inner.requires_grad,
        )
        made.kept = inner
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        """In a file it is a tensor like any other."""
        return self.kept.__reduce_ex__(protocol)

    def tolist(self) -> Any:
        """As on a GPU: a copy to the host."""
        _wait("tolist")
        return self.kept.tolist()

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None) -> Tensor:  # type: ignore[override]
        """As on a GPU: there."""
        return torch.tensor(data, dtype=dtype or self.dtype, device=GPU)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Every operation where the mode is off."""
        return run(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation on tensors that all lie on one side, and its result on that side or where it is asked for."""
    if func is torch.ops.prim.device.default:
        return GPU
    if func is aten.is_pinned.default:  # page-locked memory needs a driver
        return False
    if func is aten._pin_memory.default:
        return args[0]
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = any(isinstance(tensor, OnGpu) for tensor in tensors)
    indexed = func is aten.index.Tensor and isinstance(args[0], OnGpu)  # there, by indices of either side
    if here and func not in ACROSS and not indexed:
        strangers = [tuple(t.shape) for t in tensors if not isinstance(t, OnGpu) and t.dim()]
        if strangers:
            raise AssertionError(f"{func}: tensors on the GPU, and on the CPU one of shape {strangers[0]}")
    kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}  # which needs a driver
    asked = kwargs.get("device")
    if asked is not None:
        here = torch.device(asked).type == GPU.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if func is aten.copy_.default:
        here = isinstance(args[0], OnGpu)
    source = args[1] if func is aten.copy_.default else args[0] if args else None
    crosses = func in ACROSS and isinstance(source, Tensor) and isinstance(source, OnGpu) != here
    if (crosses and not (here and _asked_not_to_wait(func, args, kwargs))) or (here and _asks_for_numbers(func, args)):
        _wait(str(func))
    args, kwargs = tree_map(lambda leaf: leaf.kept if isinstance(leaf, OnGpu) else leaf, (args, kwargs))
    result = func(*args, **kwargs)
    if not here:
        return result
    known = {id(t.kept): t for t in tensors if isinstance(t, OnGpu)}  # of an operation in place: the same one
    return tree_map(lambda leaf: _wrapped(leaf, known) if isinstance(leaf, Tensor) else leaf, result)


def _asked_not_to_wait(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    return bool(kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2]))


def _asks_for_numbers(func: Any, args: Any) -> bool:
    name = func.overloadpacket.__name__
    if name in INDEXED:
        return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return name in NUMBERS


def _wrapped(inner: Tensor, known: dict[int, OnGpu]) -> OnGpu:
    return known[id(inner)] if id(inner) in known else OnGpu(inner)


class PretendGpu(TorchDispatchMode):
    """While it is on, device "cuda" is the pretended one."""

    # As FakeTensorMode does it: no driver is looked for.
    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __enter__(self) -> "PretendGpu":
        """Switch it on."""
        torch._C._ensureCUDADeviceGuardSet()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device="cuda") is a copy to it, which we see
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Switch it off."""
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_overwrite_module_params_on_conversion(False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation."""
        return run(func, args, kwargs or {})


def works() -> bool:
    """Whether this torch lets itself be deceived."""
    try:
        with PretendGpu():
            return torch.zeros(2, device="cuda").device == GPU
    except Exception:  # whatever another version raises: the tests that need this are skipped
        return False
