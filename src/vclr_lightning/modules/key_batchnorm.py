"""BatchNorm of the keys, whose statistics must not identify a query's own keys.

On several ranks, videos are shuffled over the ranks before the key encoder and back afterwards
(Shuffle-BN of MoCo); on one rank, the batch is split into groups that are normalised separately.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vclr_lightning.core import distributed
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.momentum import momentum_copy
from vclr_lightning.core.transfer import to_device

KeyBatchNorm = Literal["auto", "shuffle", "split", "sync", "none"]
MODES = ("auto", "shuffle", "split", "sync", "none")

Encode = Callable[[Tensor], Mapping[str, Tensor]]
"""Encodes videos: ``(B, n, C, T, H, W)`` uint8 to tensors ``(B, n, F, ...)`` by name."""


def key_copy(encoder: nn.Module, mode: KeyBatchNorm) -> nn.Module:
    """Return the momentum copy of ``encoder``; with ``"sync"`` its BatchNorm spans all ranks.

    Raises:
        UserError: ``"sync"``, and a BatchNorm layer is a subclass, whose behaviour would be lost.
    """
    copy = momentum_copy(encoder)
    if mode == "sync":
        for layer in copy.modules():
            if isinstance(layer, _BatchNorm) and not type(layer).__module__.startswith("torch."):
                raise UserError(
                    "batchnorm='sync' of a momentum encoder supports only PyTorch's own BatchNorm, "
                    f"and this network has {type(layer).__name__}; take 'shuffle' or 'split'"
                )
        return cast(
            nn.Module,
            nn.SyncBatchNorm.convert_sync_batchnorm(copy),  # type: ignore[no-untyped-call]
        )
    return copy


def has_batchnorm(module: nn.Module) -> bool:
    """Return whether any layer of ``module`` is BatchNorm."""
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())


def running_statistics(*encoders: nn.Module | None) -> list[Tensor]:
    """Return the running means and variances of the BatchNorm layers of some networks.

    Example:
        >>> [t.tolist() for t in running_statistics(nn.Sequential(nn.BatchNorm2d(2)), None)]
        [[0.0, 0.0], [1.0, 1.0]]
    """
    modules = (layer for encoder in encoders if encoder is not None for layer in encoder.modules())
    layers = [layer for layer in modules if isinstance(layer, _BatchNorm)]
    pairs = ((layer.running_mean, layer.running_var) for layer in layers)
    return [tensor for pair in pairs for tensor in pair if tensor is not None]


def resolve_mode(mode: KeyBatchNorm, *, world_size: int, encoder: nn.Module) -> KeyBatchNorm:
    """Resolve ``"auto"``: shuffle on several ranks, split on one, none without BatchNorm.

    Raises:
        UserError: ``mode`` is ``"shuffle"`` on a single rank.

    Example:
        >>> resolve_mode("auto", world_size=1, encoder=nn.BatchNorm2d(2))
        'split'
    """
    if mode == "auto":
        if not has_batchnorm(encoder):
            return "none"
        return "shuffle" if world_size > 1 else "split"
    if mode == "shuffle" and world_size == 1:
        raise UserError(
            "batchnorm='shuffle' of a momentum encoder has nothing to shuffle over in a single "
            "process; use 'split' or 'auto'"
        )
    return mode


def encode_apart(
    clips: Tensor, encode: Encode, *, mode: KeyBatchNorm, groups: int, rng: torch.Generator
) -> Mapping[str, Tensor]:
    """Encode the keys of a batch by ``mode`` (resolved), and return them in their order.

    Shape: ``(B, n, C, T, H, W)`` to ``(B, n, F, ...)``.
    """
    if mode == "split":
        return split_videos(clips, encode, groups=groups, rng=rng)
    if mode == "shuffle":
        return shuffle_videos(clips, encode, rng=rng)
    return encode(clips)


def split_videos(
    clips: Tensor, encode: Encode, *, groups: int, rng: torch.Generator
) -> Mapping[str, Tensor]:
    """Encode random groups of videos separately, and return all in their order.

    Args:
        clips: all clips of each video.
        encode: encodes clips as one BatchNorm batch.
        groups: number of groups; fewer where one would be empty or a single clip, which BatchNorm
            cannot normalise.
        rng: of the permutation, on the CPU.

    Shape: ``(B, n, C, T, H, W)`` to ``(B, n, F, ...)``.
    """
    groups = min(groups, len(clips) if clips.shape[1] > 1 else len(clips) // 2)
    if groups <= 1:
        return encode(clips)
    order = to_device(torch.randperm(len(clips), generator=rng), clips.device)
    parts = [encode(clips[part]) for part in order.tensor_split(groups)]
    back = order.argsort()
    return {kind: torch.cat([part[kind] for part in parts])[back] for kind in parts[0]}


def shuffle_videos(clips: Tensor, encode: Encode, *, rng: torch.Generator) -> Mapping[str, Tensor]:
    """Encode the videos on random ranks, and return the features on their own rank, in order.

    Every rank sends its videos to the ranks in equal shares (a remainder to the next ranks), so
    each is normalised with other ranks' videos. Only frames that change ranks are sent, as uint8.

    Args:
        clips: all clips of each video, the same number of videos on every rank.
        encode: encodes clips as one BatchNorm batch.
        rng: of the shuffle, on the CPU, in the same state on every rank.

    Shape: ``(B, n, C, T, H, W)`` to ``(B, n, F, ...)``.
    """
    rank, world = distributed.rank(), distributed.world_size()
    routes = shuffle_routes(len(clips), world, rng)  # (world, B)
    leaving = to_device(routes[rank].argsort(stable=True), clips.device)
    send = torch.bincount(routes[rank], minlength=world).tolist()
    receive = (routes == rank).sum(1).tolist()
    here = distributed.exchange(clips[leaving], send=send, receive=receive)
    back = leaving.argsort()
    return {
        kind: distributed.exchange(values, send=receive, receive=send)[back]
        for kind, values in encode(here).items()
    }


def shuffle_routes(videos: int, world_size: int, rng: torch.Generator) -> Tensor:
    """Draw the rank that each rank's videos go to, balanced in both directions.

    Shape: ``(world_size, videos)`` int64.

    Example:
        >>> routes = shuffle_routes(4, 2, torch.Generator().manual_seed(0))
        >>> routes.sort(1).values.tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    shares = torch.arange(1, videos + 1)
    return torch.stack(
        [
            ((rank + shares) % world_size)[torch.randperm(videos, generator=rng)]
            for rank in range(world_size)
        ]
    )
