"""Execute a plan: read clips from a batch, encode them, hand the features out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Batch
from vclr_lightning.functional.order import reorder
from vclr_lightning.functional.pixels import normalize, pixel_statistics
from vclr_lightning.modules.plan import Forward, Plan, Source


@dataclass(frozen=True)
class Pixels:
    """How uint8 clips become what an encoder takes.

    Attributes:
        clip_dims: 2 for networks that take ``(N, C, H, W)``, 3 for ``(N, C, T, H, W)``.
        mean: of each channel, of values in 0 to 1.
        std: of each channel.
        channels_last: whether the memory format is the channels-last one.
    """

    clip_dims: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels_last: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory format of convolution weights."""
        if not self.channels_last:
            return torch.preserve_format
        return torch.channels_last if self.clip_dims == 2 else torch.channels_last_3d

    def __call__(self, clips: Tensor, dtype: torch.dtype) -> Tensor:
        """Normalise ``(N, C, T, H, W)`` uint8 clips.

        Raises:
            UserError: the network takes single pictures, but clips have several frames.
        """
        if self.clip_dims == 2 and clips.shape[2] != 1:
            raise UserError(
                f"the backbone takes single pictures, but the data gives clips of "
                f"{clips.shape[2]} frames; set frames_per_clip=1 or use a 3D backbone"
            )
        if self.channels_last:  # rearranged while they are bytes
            clips = clips.contiguous(memory_format=torch.channels_last_3d)
        work = torch.promote_types(dtype, torch.float32)
        mean, std = (_constant(x, work, clips.device) for x in (self.mean, self.std))
        pictures = normalize(clips, mean, std, dtype=dtype)
        return pictures.squeeze(2) if self.clip_dims == 2 else pictures


def pixels_of(
    backbone: nn.Module,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels_last: bool = False,
) -> Pixels:
    """Return how clips become what ``backbone`` takes, normalised as it wants or as said.

    Raises:
        UserError: the backbone does not say whether it takes pictures or clips.
    """
    own_mean, own_std = pixel_statistics(backbone)
    return Pixels(
        clip_dims=backbone_number(backbone, "clip_dims"),
        mean=own_mean if mean is None else tuple(mean),
        std=own_std if std is None else tuple(std),
        channels_last=channels_last,
    )


@lru_cache(maxsize=16)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return values on the device, where they stay: no transfer in every step."""
    return torch.tensor(values, dtype=dtype, device=device)


def read_clips(batch: Batch, source: Source) -> Tensor:
    """Return the clips of a source, ``(B, n, C, T, H, W)``.

    Raises:
        UserError: the batch has none of its views, or not its selection.
    """
    # A view of 0 clips is not part of a batch.
    views = [batch["views"][view] for view in source.views if view in batch["views"]]
    if not views:
        raise UserError(
            f"the batch has no view {' or '.join(source.views)}, only "
            f"{', '.join(sorted(batch['views']))}; give the data module a sampler that yields it"
        )
    clips = views[0] if len(views) == 1 else torch.cat(views, dim=1)
    return clips if source.rows is None else reorder(clips, _rows(batch, source.rows))


def encode_plan(
    plan: Plan,
    batch: Batch,
    *,
    encode: Callable[[Forward, Tensor], Tensor],
    pool: Callable[[Tensor], Tensor],
) -> dict[str, dict[str, Tensor]]:
    """Run all forwards of ``plan``, and return each objective's features by request.

    Args:
        plan: what to encode.
        batch: where the clips come from.
        encode: takes a forward and clips ``(B, n, C, T, H, W)``, returns features ``(B, n, F)``,
            or maps ``(B, n, F, ...)`` where the forward wants them.
        pool: takes maps ``(N, F, ...)`` to features ``(N, F)``.
    """
    encoded = [_encode_forward(forward, batch, encode) for forward in plan.forwards]
    features: dict[str, dict[str, Tensor]] = {}
    for (objective, name), read in plan.reads.items():
        parts = [encoded[read.forward][i] for i in read.sources if i in encoded[read.forward]]
        joined = _join(parts)
        if read.rows is not None:
            joined = reorder(joined, _rows(batch, read.rows))
        if read.pooled and plan.forwards[read.forward].maps:
            joined = pool(joined.flatten(0, 1)).view(*joined.shape[:3])
        features.setdefault(objective, {})[name] = joined
    return features


def through(
    encoder: nn.Module,
    clips: Tensor,
    *,
    pixels: Pixels,
    maps: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """Put clips through an encoder, ``chunk`` at a time if given.

    Shape:
        ``(B, n, C, T, H, W)`` uint8 to ``(B, n, F)``, or to maps ``(B, n, F, ...)``.
    """
    dtype = next((p.dtype for p in encoder.parameters()), torch.float32)
    run = cast(Callable[[Tensor], Tensor], encoder.forward_map if maps else encoder)
    flat = clips.flatten(0, 1)
    parts = [run(pixels(part, dtype)) for part in torch.split(flat, chunk or max(1, len(flat)))]
    features = parts[0] if len(parts) == 1 else torch.cat(parts)
    return features.view(*clips.shape[:2], *features.shape[1:])


def _encode_forward(
    forward: Forward, batch: Batch, encode: Callable[[Forward, Tensor], Tensor]
) -> dict[int, Tensor]:
    """Encode the sources of a forward, by position; clips of one shape go together."""
    clips = {
        i: read_clips(batch, source)
        for i, source in enumerate(forward.sources)
        if source.rows is not None or source.views[0] in batch["views"]
    }
    by_shape: dict[torch.Size, list[int]] = {}
    for i, some in clips.items():
        by_shape.setdefault(some.shape[2:], []).append(i)
    encoded: dict[int, Tensor] = {}
    for members in by_shape.values():
        features = encode(forward, _join([clips[i] for i in members]))
        counts = [clips[i].shape[1] for i in members]
        encoded |= dict(zip(members, torch.split(features, counts, dim=1), strict=True))
    return encoded


def _join(parts: Sequence[Tensor]) -> Tensor:
    if not parts:
        raise UserError(
            "an objective reads only views that the batch does not hold; give the data module a "
            "sampler that yields them"
        )
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)


def _rows(batch: Batch, name: str) -> Tensor:
    rows = batch["rows"]
    if name not in rows:
        raise UserError(
            f"the batch has no selection {name!r} of clips, only {', '.join(sorted(rows))}; "
            "give the data module a sampler that yields it"
        )
    return rows[name]


def backbone_number(backbone: nn.Module, name: str) -> int:
    """Return ``num_features`` or ``clip_dims`` of a backbone.

    Raises:
        UserError: it has none.
    """
    value = getattr(backbone, name, None)
    if not isinstance(value, int):
        raise UserError(
            f"the backbone {type(backbone).__name__} has no whole number {name!r}; wrap it in "
            "vclr_lightning.models.WrappedBackbone(net, num_features=...), which says both"
        )
    return value


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put ``module`` into evaluation mode for a while; every layer returns to its own mode."""
    modes = {layer: layer.training for layer in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for layer, training in modes.items():
            layer.training = training
