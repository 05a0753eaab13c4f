"""The classes in a batch of any structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

Labels = Callable[[Any], Tensor] | str | None

_LABELS = ("label", "labels", "target", "targets", "y")


def find_labels(batch: Any, labels: Labels) -> Tensor | None:
    """Return the classes ``(B,)`` of a batch; ``None`` where there are none.

    Args:
        batch: a mapping, a list or tuple, or an object with attributes.
        labels: as of :class:`~vclr_lightning.callbacks.online_probe.OnlineProbe`.

    Example:
        >>> import torch
        >>> find_labels([torch.zeros(2, 3), torch.tensor([4, 5])], None)
        tensor([4, 5])
    """
    if callable(labels):
        found: Any = labels(batch)
    elif isinstance(batch, list | tuple):
        found = next((x for x in reversed(batch) if _is_labels(x)), None)
    else:
        read = batch.get if isinstance(batch, Mapping) else partial(_attribute, batch)
        keys = _LABELS if labels is None else (labels,)
        found = next((x for key in keys if _is_labels(x := read(key))), None)
    return found if _is_labels(found) else None


def _attribute(owner: Any, name: str) -> Any:
    return getattr(owner, name, None)


def _is_labels(x: Any) -> bool:
    return isinstance(x, Tensor) and x.ndim == 1 and not x.is_floating_point() and len(x) > 0
