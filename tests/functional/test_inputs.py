"""No public function of the mathematics writes into what it is given."""

from __future__ import annotations

import doctest
import pkgutil
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from vclr_lightning import functional
from vclr_lightning.functional import bmn_losses, faiss_search, svm

MODULES = [
    import_module(f"vclr_lightning.functional.{m.name}")
    for m in pkgutil.iter_modules(functional.__path__)
]
PUBLIC = {
    f"{module.__name__}.{name}": function
    for module in MODULES
    for name, function in vars(module).items()
    if isinstance(function, FunctionType)
    and function.__module__ == module.__name__
    and not name.startswith("_")
}


class Watched:
    """Tensors and arrays among some arguments, and what they hold."""

    def __init__(self, arguments: Any) -> None:
        leaves = tree_leaves(arguments)
        tensors = [x for x in leaves if isinstance(x, Tensor) and x.layout == torch.strided]
        self.tensors = [(x, x._version, x.detach().clone()) for x in tensors]
        self.arrays = [(x, x.copy()) for x in leaves if isinstance(x, np.ndarray)]

    def unchanged(self) -> bool:
        same = all(x._version == v and torch.equal(x, old) for x, v, old in self.tensors)
        return same and all(np.array_equal(x, old) for x, old in self.arrays)


def as_kind(arguments: Any, kind: torch.dtype) -> Any:
    """Copies of the arguments, whose floats need no conversion where ``kind`` is computed in."""

    def copied(x: Any) -> Any:
        if isinstance(x, Tensor) and x.layout == torch.strided:
            return x.detach().to(kind if x.is_floating_point() else x.dtype, copy=True)
        return x.copy() if isinstance(x, np.ndarray) else x

    return tree_map(copied, arguments)


def watching(name: str, function: Callable[..., Any], seen: dict[str, list[bool]]) -> Any:
    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        verdicts = seen.setdefault(name, [])
        before = Watched((args, options))
        result = function(*args, **options)
        verdicts.append(before.unchanged())
        for kind in (torch.float32, torch.float64):
            more_args, more_options = as_kind((args, options), kind)
            before = Watched((more_args, more_options))
            with suppress(Exception):  # of mixed kinds; they are left alone all the same
                function(*more_args, **more_options)
            verdicts.append(before.unchanged())
        return result

    return call


def test_arguments_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every function, wherever the examples of the package call it, and with floats of its own."""
    seen: dict[str, list[bool]] = {}
    by_function = {function: watching(name, function, seen) for name, function in PUBLIC.items()}
    for module in MODULES:
        for name, value in list(vars(module).items()):
            if isinstance(value, FunctionType) and value in by_function:
                monkeypatch.setattr(module, name, by_function[value])
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    for module in MODULES:
        for example in doctest.DocTestFinder().find(module):
            torch.manual_seed(0)
            runner.run(example, out=lambda _: None)
    _call_the_others()
    wrote = sorted(name for name, verdicts in seen.items() if not all(verdicts))
    assert not wrote
    missed = {name.rpartition(".")[2] for name in PUBLIC.keys() - seen.keys()}
    assert missed <= {"load_faiss", "faiss_neighbours"}


def _call_the_others() -> None:
    """Functions that no example comes by."""
    rng = torch.Generator().manual_seed(0)
    maps = torch.rand(1, 2, 4, 4, generator=rng)
    edges = torch.rand(1, 4, generator=rng)
    bmn_losses.bmn_losses(
        maps, edges, edges, iou=maps[:, 0], start_label=edges, end_label=edges, generator=rng
    )
    rows = torch.randn(3000, 4, generator=rng)  # more in the margin than features
    svm.fit_linear_svm(rows, torch.arange(3000) % 2, num_classes=2)
    if find_spec("faiss") is not None:
        faiss_search.faiss_neighbours(rows, rows, 2)
