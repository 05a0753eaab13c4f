"""Execute an encoding plan: read clips from a batch, encode them, distribute the features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Batch
from vclr_lightning.functional.order import reorder
from vclr_lightning.functional.pixels import normalize, pixel_statistics
from vclr_lightning.models.backbone import Backbone
from vclr_lightning.modules.encoding_plan import ClipSource, EncodingPlan, Forward

_DIMS = 5  # of a batch of clips
_3D = 3  # clip_dims of a 3D network


@dataclass(frozen=True)
class Pixels:
    """How uint8 clips are prepared for an encoder.

    Attributes:
        clip_dims: 2 for networks that take ``(N, C, H, W)``, 3 for ``(N, C, T, H, W)``.
        mean: of each channel, in 0 to 1.
        std: of each channel.
        channels_last: whether to use the channels-last memory format.
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
            UserError: clips have other dimensions, several frames for a 2D network, or a single
                one for a 3D network.
        """
        if clips.dim() != _DIMS:
            raise UserError(
                f"clips need dimensions C, T, H, W after that of the batch; these have "
                f"{tuple(clips.shape[1:])}: unsqueeze(2) turns images into clips of one frame"
            )
        if self.clip_dims == 2 and clips.shape[2] != 1:
            raise UserError(
                f"the 2D backbone takes single frames, but the data gives clips of "
                f"{clips.shape[2]} frames; set frames_per_clip=1 or use a 3D backbone"
            )
        if self.clip_dims == _3D and clips.shape[2] == 1:
            raise UserError(
                "the 3D backbone takes clips, but the data gives single frames; set "
                "frames_per_clip, such as frames_per_clip=16"
            )
        if self.channels_last:  # rearranged as bytes, before they are floats
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
    """Return how clips are prepared for ``backbone``, and set its pixel statistics if given.

    Raises:
        UserError: the backbone has no ``clip_dims``.
    """
    own = pixel_statistics(backbone)
    if mean is not None or std is not None:  # evaluation normalises as training does
        own = own[0] if mean is None else tuple(mean), own[1] if std is None else tuple(std)
        backbone.pixel_mean, backbone.pixel_std = own  # type: ignore[assignment]
    clip_dims = backbone_number(backbone, "clip_dims")
    return Pixels(clip_dims=clip_dims, mean=own[0], std=own[1], channels_last=channels_last)


@lru_cache(maxsize=16)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return values on the device, cached to avoid a transfer in every step."""
    return torch.tensor(values, dtype=dtype, device=device)


def read_clips(batch: Batch, source: ClipSource) -> Tensor:
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
    clips = joined(views, dim=1)
    return clips if source.rows is None else reorder(clips, _rows(batch, source.rows))


Encoded = Mapping[str, Tensor]
"""``features`` ``(B, n, F)`` and ``maps`` ``(B, n, F, ...)``, as far as they are requested."""


def encode_plan(
    plan: EncodingPlan, batch: Batch, *, encode: Callable[[Forward, str, Tensor], Encoded]
) -> dict[str, dict[str, Tensor]]:
    """Run all forwards of ``plan``, and return each objective's features by request.

    Args:
        plan: what to encode.
        batch: where the clips come from.
        encode: takes a forward, and name and clips ``(B, n, C, T, H, W)`` of a BatchNorm batch;
            returns what the forward requests.
    """
    encoded = [_encode_forward(forward, batch, encode) for forward in plan.forwards]
    features: dict[str, dict[str, Tensor]] = {}
    for (objective, name), read in plan.reads.items():
        kind = "features" if read.pooled else "maps"
        found = encoded[read.forward]
        parts = _join([found[i][kind] for i in read.sources if i in found])
        if read.rows is not None:
            parts = reorder(parts, _rows(batch, read.rows))
        features.setdefault(objective, {})[name] = parts
    return features


def through(
    encoder: nn.Module, clips: Tensor, *, pixels: Pixels, chunk: int | None = None
) -> Tensor:
    """Return an encoder's features of clips, ``(B, n, F)``; see :func:`encoded`."""
    return encoded(encoder, clips, pixels=pixels, chunk=chunk)["features"]


def encoded(
    encoder: nn.Module,
    clips: Tensor,
    *,
    pixels: Pixels,
    features: bool = True,
    maps: bool = False,
    chunk: int | None = None,
) -> dict[str, Tensor]:
    """Return an encoder's features of clips, their maps before pooling, or both.

    ``chunk`` is the number of clips per forward of the encoder. Features are bit-equal whether or
    not maps are requested too.

    Shape: ``(B, n, C, T, H, W)`` uint8 to ``(B, n, F)`` and ``(B, n, F, ...)``.
    """
    dtype = next((p.dtype for p in encoder.parameters()), torch.float32)
    flat = clips.flatten(0, 1)
    parts = [
        _encoded(encoder, pixels(part, dtype), features=features, maps=maps)
        for part in torch.split(flat, chunk or max(1, len(flat)))
    ]
    whole = {kind: joined([part[kind] for part in parts]) for kind in parts[0]}
    return {kind: x.view(*clips.shape[:2], *x.shape[1:]) for kind, x in whole.items()}


def _encoded(encoder: Any, x: Tensor, *, features: bool, maps: bool) -> dict[str, Tensor]:
    if not maps:
        return {"features": encoder(x)}
    if not features:
        return {"maps": encoder.forward_map(x)}
    if type(encoder).forward is Backbone.forward:
        found = encoder.forward_map(x)
        return {"features": encoder.pool(found), "maps": found}
    # Features of other networks need not be the pooled map. The second pass restores all state.
    pooled = encoder(x)
    own = [(layer, dict(layer._buffers)) for layer in encoder.modules()]
    for layer, buffers in own:
        layer._buffers.update({n: b if b is None else b.clone() for n, b in buffers.items()})
    try:
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            return {"features": pooled, "maps": encoder.forward_map(x)}
    finally:
        for layer, buffers in own:
            layer._buffers.update(buffers)


def _encode_forward(
    forward: Forward, batch: Batch, encode: Callable[[Forward, str, Tensor], Encoded]
) -> Mapping[int, Encoded]:
    """Encode the sources of a forward, by position; clips of one shape go together."""
    clips = {
        i: read_clips(batch, source)
        for i, source in enumerate(forward.sources)
        if source.rows is not None or source.views[0] in batch["views"]
    }
    found: dict[int, dict[str, Tensor]] = {}
    for shape in dict.fromkeys(some.shape[2:] for some in clips.values()):
        members = [i for i, some in clips.items() if some.shape[2:] == shape]
        together = _join([clips[i] for i in members])
        if forward.apart:
            each = enumerate(torch.split(together, 1, dim=1))
            batches = [encode(forward, f"{forward.name}[{i}]", clip) for i, clip in each]
        else:
            batches = [encode(forward, forward.name, together)]
        counts = [clips[i].shape[1] for i in members]
        for kind in batches[0]:
            values = joined([one[kind] for one in batches], dim=1)
            for i, part in zip(members, torch.split(values, counts, dim=1), strict=True):
                found.setdefault(i, {})[kind] = part
    return found


def joined(parts: Sequence[Tensor], *, dim: int = 0) -> Tensor:
    """Concatenate tensors; one alone is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)


def _join(parts: Sequence[Tensor]) -> Tensor:
    if not parts:
        raise UserError(
            "an objective reads only views that the batch does not hold; give the data module a "
            "sampler that yields them"
        )
    return joined(parts, dim=1)


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
