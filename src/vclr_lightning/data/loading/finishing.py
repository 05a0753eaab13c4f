"""Finish a batch's augmentation on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vclr_lightning.core.lightning import move_data_to_device
from vclr_lightning.data.faults import blaming

if TYPE_CHECKING:
    from vclr_lightning.core.lightning import Trainer
    from vclr_lightning.data.protocols import SplitTransform


def finish_batch(
    batch: Mapping[str, Any], transforms: Mapping[str, SplitTransform], device: torch.device | str
) -> dict[str, Any]:
    """Move a batch of a dataset with ``begin_only`` to ``device`` and finish its augmentation.

    Args:
        batch: collated, on the host. Instead of some or all ``views`` it holds ``begun`` and
            ``augmentations``, which stay on the host, so that nothing waits for the device.
        transforms: the ones that began, by view.
        device: where the batch is needed.

    Returns:
        A :class:`~vclr_lightning.core.types.Batch`.

    Shape:
        - ``begun[name]``: ``(B, n, ...)`` as the transform begins, here ``(B, n, T, H, W, C)``
        - ``views[name]``: ``(B, n, C, T, H, W)`` uint8
        - ``augmentations[name]``: ``(B, n, P)`` int32

    Example:
        >>> from vclr_lightning.data.transforms import PretrainTransform
        >>> begun = {"anchor": torch.zeros(2, 3, 1, 8, 8, 3, dtype=torch.uint8)}
        >>> rest = {"anchor": torch.zeros(2, 3, 25, dtype=torch.int32)}
        >>> batch = {"begun": begun, "augmentations": rest}
        >>> transforms = {"anchor": PretrainTransform(size=8)}
        >>> finish_batch(batch, transforms, "cpu")["views"]["anchor"].shape
        torch.Size([2, 3, 3, 1, 8, 8])
    """
    parameters: Mapping[str, Tensor] = batch["augmentations"]
    rest = {name: value for name, value in batch.items() if name != "augmentations"}
    moved: dict[str, Any] = move_data_to_device(rest, torch.device(device))
    views = moved.pop("views", {})
    for name, clips in moved.pop("begun").items():
        transform = transforms[name]
        with blaming(transform, f"a batch of {len(clips)} videos"):
            flat = transform.finish(clips.flatten(0, 1), parameters[name].flatten(0, 1))
        views[name] = flat.view(*clips.shape[:2], *flat.shape[1:])
    return {"views": views, **moved}


def finishing_time(trainer: Trainer) -> float:
    """Return the seconds that this process has spent on finishing batches, 0 if it finishes none.

    The rest of the time between two training steps is waiting for data. On a GPU, finishing is
    short, as the work is only enqueued.

    Args:
        trainer: whose data module keeps the time as ``finishing_time``.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> finishing_time(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
        0.0
    """
    return float(getattr(getattr(trainer, "datamodule", None), "finishing_time", 0.0))
