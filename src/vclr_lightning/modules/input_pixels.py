"""How uint8 clips are prepared for an encoder: dimensions, normalisation, memory format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.pixels import normalize, pixel_statistics

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
        self.check_length(clips.shape[2])
        if self.channels_last:  # rearranged as bytes, before they are floats
            clips = clips.contiguous(memory_format=torch.channels_last_3d)
        work = torch.promote_types(dtype, torch.float32)
        mean, std = (_constant(x, work, clips.device) for x in (self.mean, self.std))
        pictures = normalize(clips, mean, std, dtype=dtype)
        return pictures.squeeze(2) if self.clip_dims == 2 else pictures

    def check_length(self, frames: int) -> None:
        """Check that the encoder takes clips of so many frames.

        Raises:
            UserError: several frames for a 2D network, or a single one for a 3D network.
        """
        if self.clip_dims == 2 and frames != 1:
            raise UserError(
                f"the 2D backbone takes single frames, but the data gives clips of {frames} "
                "frames; set frames_per_clip=1 or use a 3D backbone"
            )
        if self.clip_dims == _3D and frames == 1:
            raise UserError(
                "the 3D backbone takes clips, but the data gives single frames; set "
                "frames_per_clip, such as frames_per_clip=16"
            )


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
