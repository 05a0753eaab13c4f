"""Features of two draws of each video."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from vclr_lightning.core.types import Batch
from vclr_lightning.evaluation.encoders import Encode


@torch.no_grad()
def pair_features(
    batches: Iterable[Batch],
    encode: Encode,
    *,
    views: Sequence[str],
    device: torch.device,
    chunk: int = 256,
) -> list[Tensor]:
    """Encode the clips of each view and average them.

    Args:
        batches: of ``datamodule.pair_loader(split)``.
        encode: frames to features.
        views: names of the draws.
        device: where ``encode`` computes.
        chunk: clips encoded at a time.

    Returns:
        ``(V, F)`` of each view on the CPU, in the batches' order; nothing where they are empty.
    """
    found: dict[str, list[Tensor]] = {view: [] for view in views}
    for batch in batches:
        for view, features in found.items():
            clips = batch["views"].get(view)  # (B, n, C, T, H, W)
            if clips is not None and len(clips):
                flat = clips.flatten(0, 1).to(device)
                encoded = torch.cat([encode(p).float() for p in torch.split(flat, chunk)])
                features.append(encoded.view(*clips.shape[:2], -1).mean(dim=1).cpu())
    return [torch.cat(features) for features in found.values() if features]
