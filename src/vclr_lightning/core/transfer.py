"""Small tensors on their way to a device, for which the host does not wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Return ``x``, which the host made, on ``device``.

    To a GPU it goes from pinned memory and in the order of the stream: a copy from pageable memory
    waits until all work queued before it is done.

    Example:
        >>> import torch
        >>> to_device(torch.arange(3), torch.device("cpu"))
        tensor([0, 1, 2])
    """
    if device.type != "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)
