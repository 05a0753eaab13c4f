"""Make a batch of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack samples along a new first dimension; those that are not ``valid`` are left out.

    Pictures become tensors. All smaller things become NumPy arrays, since every tensor that a
    worker sends holds a file descriptor in the receiving process; :func:`as_tensors` turns them
    into tensors there. Lists are joined, of the samples that are left out as well.

    Shape:
        Tensors and arrays ``(...)`` become ``(B, ...)``, numbers become ``(B,)``.

    Example:
        >>> good = {"label": 4, "rejected": [], "valid": True}
        >>> bad = {"label": 2, "rejected": ["a.mp4"], "valid": False}
        >>> collate([good, bad])
        {'label': array([4]), 'rejected': ['a.mp4']}
    """
    valid = [bool(sample["valid"]) for sample in samples]
    return {
        name: _join([sample[name] for sample in samples], valid)
        for name in samples[0]
        if name != "valid"
    }


def _join(values: list[Any], valid: list[bool]) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        return {name: _join([value[name] for value in values], valid) for name in first}
    if isinstance(first, list):
        return [item for value in values for item in value]
    # With no valid sample at all, the first one gives the shape of an empty batch.
    kept = [value for value, keep in zip(values, valid, strict=True) if keep] or [first]
    if isinstance(first, Tensor):
        return torch.stack(kept)[: sum(valid)]
    return np.stack(kept)[: sum(valid)]


def as_tensors(batch: Any) -> Any:
    """Turn the arrays of a collated batch into tensors that share their memory.

    Example:
        >>> as_tensors({"label": np.array([4]), "rejected": ["a.mp4"]})
        {'label': tensor([4]), 'rejected': ['a.mp4']}
    """
    if isinstance(batch, np.ndarray):
        return torch.from_numpy(batch)
    if isinstance(batch, Mapping):
        return {name: as_tensors(value) for name, value in batch.items()}
    return batch
