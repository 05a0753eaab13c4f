"""A CUDA device that is not there: its tensors have shapes, types and a place, but no values."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
NCCL_TYPES = (  # of torch/csrc/distributed/c10d/NCCLUtils.cpp, without 8-bit floats
    *(torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
)
_READ = "aten::_local_scalar_dense"
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_unsafe_index")
_CHECKED = ("aten::_linalg_eigh", "aten::_linalg_svd", "aten::linalg_eig", "aten::linalg_inv")
_COPIES = ("aten::_to_copy", "aten::copy_")


class HostWaitError(AssertionError):
    """The host would wait for the device."""


class WrongDeviceError(AssertionError):
    """Tensors of host and device meet."""


class Event:
    """Stands for ``torch.cuda.Event``: waited for a step later, it has long happened."""

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


def set_gradients(loss: Tensor, *_: Any, **__: Any) -> None:
    """Stands for ``Tensor.backward``, which needs a driver: every parameter of the graph gets some.

    Accumulates as backward does.
    """
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaf = node.variable
            fresh = torch.zeros_like(leaf)
            leaf.grad = fresh if leaf.grad is None else leaf.grad + fresh
        waiting += [following for following, _ in node.next_functions]


class FakeCuda(TorchDispatchMode):
    """Within it, tensors on ``cuda`` are fake, and tensors on the CPU are real.

    Raises :class:`HostWaitError` where the host would wait: at a read of a value (``item``,
    ``tolist``, ``bool``, ``cpu``), at an operation whose result has as many elements as the values
    say (``nonzero``, masks as indices, ``unique``), and at a copy to the device that is not
    asynchronous or not from pinned memory. Raises :class:`WrongDeviceError` where an operation
    takes tensors of both sides, which CUDA would copy (indices) or refuse. Numbers, and tensors
    without dimensions that stand for numbers, may go along.

    Attributes:
        allowed: ends of the names of files whose functions may read, such as ``grad_scaler.py``.
        reads: what they have read.
        strict: whether waits raise; otherwise every value read is 1.
        collectives: kind and type of the tensors, of all between the ranks of a group. A tensor of
            the host or another one that NCCL refuses raises an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.allowed: tuple[str, ...] = ()
        self.reads: list[str] = []
        self.strict = True
        self.collectives: set[tuple[str, str]] = set()
        self._pinned: dict[int, Tensor] = {}

    def pin(self, x: Tensor) -> Tensor:
        self._pinned[x.untyped_storage().data_ptr()] = x
        return x

    def pinned(self, x: Tensor) -> bool:
        return x.untyped_storage().data_ptr() in self._pinned or not x.numel()

    def __enter__(self) -> FakeCuda:
        self.fake.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.fake.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        ours = [x for x in tensors if isinstance(x, FakeTensor)]
        device = kwargs.get("device")
        onto = device is not None and torch.device(device).type == "cuda"
        name = func._schema.name
        if name.startswith("c10d::") and name != "c10d::barrier":
            self._check_collective(name, tensors)
        if not ours and not onto:
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if name in _COPIES:
            return self._copied(func, args, kwargs)
        if name == _READ:
            return self._read(args[0])
        if name in _INDEXING:
            self._check_index(name, args)
        elif any(x.ndim for x in tensors if not isinstance(x, FakeTensor)):
            raise WrongDeviceError(f"{name} takes tensors of host and device")
        if name.startswith(_CHECKED):
            self._wait(f"{name} reads whether it succeeded")
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if "Dynamic" in type(error).__name__ or "DataDependent" in type(error).__name__:
                raise HostWaitError(f"{name}: the size of its result is read") from error
            if "DeviceMismatch" in type(error).__name__:
                raise WrongDeviceError(f"{name}: {error}") from error
            raise

    def _check_collective(self, name: str, tensors: list[Tensor]) -> None:
        for x in tensors:
            if not isinstance(x, FakeTensor):
                raise WrongDeviceError(f"{name} takes a tensor of the host")
            if x.dtype not in NCCL_TYPES:
                raise TypeError(f"{name} takes {x.dtype}, which NCCL does not")
            if not x.is_contiguous(memory_format=torch._prims_common.suggest_memory_format(x)):
                raise ValueError(f"{name} takes a tensor that is not contiguous")
        kind = name.removeprefix("c10d::").strip("_")
        self.collectives.add((kind, str(tensors[0].dtype).removeprefix("torch.")))

    def _check_index(self, name: str, args: tuple[Any, ...]) -> None:
        indices = [x for x in tree_leaves(args[1:2]) if isinstance(x, Tensor)]
        value = args[2] if len(args) > 2 else None
        number = isinstance(value, Tensor) and not isinstance(value, FakeTensor) and not value.ndim
        masks = [x for x in indices if x.dtype in (torch.bool, torch.uint8)]
        if not all(isinstance(x, FakeTensor) for x in indices):
            raise WrongDeviceError(f"{name} takes an index of the host")
        if masks and not (number and len(indices) == 1):  # otherwise it is masked_fill
            self._wait(f"{name} takes a mask, whose size is read")
        if number and not masks:
            self._wait(f"{name} copies a number to the device")

    def _wait(self, what: str) -> None:
        if self.strict:
            raise HostWaitError(what)

    def _read(self, x: Tensor) -> Any:
        frame: Any = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.endswith(self.allowed or ("\0",)):
                self.reads.append(frame.f_code.co_filename)
                return 0.0
            frame = frame.f_back
        self._wait("a value is read")
        with unset_fake_temporarily():
            return torch.ones((), dtype=x.dtype).item()

    def _copied(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        into = func._schema.name == "aten::copy_"
        source = args[1] if into else args[0]
        if into:
            onto, asynchronous = isinstance(args[0], FakeTensor), (*args, False)[2]
        else:
            device = kwargs.get("device")
            onto = isinstance(source, FakeTensor) if device is None else device.type == "cuda"
            asynchronous = False
        asynchronous = kwargs.get("non_blocking", asynchronous)
        if isinstance(source, FakeTensor) and not onto:
            if not (into and asynchronous and self.pinned(args[0])):
                self._wait("a tensor is copied to the host")
            with unset_fake_temporarily():
                host = (
                    args[0]
                    if into
                    else torch.empty(source.shape, dtype=kwargs.get("dtype", source.dtype))
                )
                return host.fill_(1)
        if not isinstance(source, FakeTensor) and not (asynchronous and self.pinned(source)):
            how = "from pageable memory" if asynchronous else "synchronously"
            self._wait(f"a tensor {tuple(source.shape)} is copied to the device {how}")
        if not into and not isinstance(source, FakeTensor) and "memory_format" not in kwargs:
            # As the operation does, but many times quicker.
            dtype = kwargs.get("dtype") or source.dtype
            return torch.empty_strided(source.size(), source.stride(), dtype=dtype, device=CUDA)
        return func(*args, **kwargs)
