"""Temporal shift modules (TSM): a 2D network that sees the neighbouring frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.backbone import unwrap
from vclr_lightning.models.torchvision import TorchvisionResNet


def temporal_shift(x: Tensor, num_frames: int, *, divisions: int = 8) -> Tensor:
    """Shift some channels one frame back and others one frame forward (TSM).

    The first ``C // divisions`` channels take the next frame's values, as many after them the
    previous frame's; beyond the first and the last frame there are zeros.

    Args:
        x: maps of the frames of some videos, one video after another.
        num_frames: S, of each video.
        divisions: 8 shifts an eighth of the channels each way.

    Shape: ``(B * S, C, ...)``, the result is of the same shape

    Example:
        >>> x = torch.tensor([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]])
        >>> temporal_shift(x, 2, divisions=3).tolist()
        [[2.0, 0.0, 100.0], [0.0, 10.0, 200.0]]
    """
    fold = x.shape[1] // divisions
    by_video = (-1, num_frames, *x.shape[1:])
    shifted = torch.zeros_like(x)
    videos, result = x.view(by_video), shifted.view(by_video)
    result[:, :-1, :fold] = videos[:, 1:, :fold]
    result[:, 1:, fold : 2 * fold] = videos[:, :-1, fold : 2 * fold]
    result[:, :, 2 * fold :] = videos[:, :, 2 * fold :]
    return shifted


class TemporalShift:
    """Insert temporal shifts before the first convolution of each residual branch, by hooks.

    The network and its parameter names do not change. Set :attr:`num_frames` before each forward,
    which takes the frames of some videos, one video after another.

    Args:
        backbone: a 2D network.
        divisions: 8 shifts an eighth of the channels each way.
        layers: names of the layers before which to shift; ``None`` for ``conv1`` of every block
            with a ``conv1`` and a ``conv2``, which are the residual blocks of a ResNet.

    Attributes:
        num_frames: S, frames of each video; 1 shifts nothing.
        layers: names of the layers before which channels are shifted.

    Raises:
        UserError: the network is 3D, has no such layers or is shifted already, or ``divisions`` is
            below 2.

    Example:
        >>> import torch
        >>> from vclr_lightning.models import TinyBackbone
        >>> backbone = TinyBackbone(width=8)
        >>> names = list(backbone.state_dict())
        >>> shift = TemporalShift(backbone)
        >>> shift.layers
        ('blocks.0.conv1', 'blocks.1.conv1', 'blocks.2.conv1')
        >>> list(backbone.state_dict()) == names
        True
        >>> shift.num_frames = 4
        >>> backbone(torch.zeros(2 * 4, 3, 32, 32)).shape
        torch.Size([8, 64])
    """

    def __init__(
        self, backbone: nn.Module, *, divisions: int = 8, layers: Sequence[str] | None = None
    ) -> None:
        if getattr(backbone, "clip_dims", 2) != 2:
            raise UserError(
                f"TSM shifts channels of a 2D backbone, and {type(backbone).__name__} is 3D; take "
                "a 2D backbone, or head=tsn"
            )
        if divisions < 2:
            raise UserError(f"divisions={divisions} of TSM must be at least 2")
        net = unwrap(backbone)
        modules = dict(net.named_modules())
        if layers is None:
            layers = [f"{n}.conv1" for n, block in modules.items() if n and _is_residual(block)]
        if not layers or (unknown := [name for name in layers if name not in modules]):
            what = f"layers {', '.join(unknown)}" if layers else "blocks with conv1 and conv2"
            raise UserError(
                f"{type(net).__name__} has no {what} to shift; name the first convolution of "
                "each residual branch in layers"
            )
        hooks = (hook for name in layers for hook in modules[name]._forward_pre_hooks.values())
        if any(isinstance(getattr(hook, "__self__", None), TemporalShift) for hook in hooks):
            raise UserError(
                f"the channels of this {type(net).__name__} are shifted already; remove() that "
                "TemporalShift first, or take a fresh network"
            )
        self.num_frames = 1
        self.divisions = divisions
        self.layers = tuple(layers)
        self._handles = [modules[n].register_forward_pre_hook(self._shift) for n in layers]

    def remove(self) -> None:
        """Remove the shifts."""
        for handle in self._handles:
            handle.remove()

    def _shift(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
        x, *others = inputs
        return (temporal_shift(x, self.num_frames, divisions=self.divisions), *others)


class TSMResNet(TorchvisionResNet):
    """A 2D ResNet over the frames of a clip, with temporal shifts: a network of clips (TSM).

    Parameters have torchvision's names, so weights of a 2D ResNet fit, and these fit one. Frames
    may be consecutive, or, far apart, one of each segment of a video.

    Args:
        name: one of torchvision's ResNet, ResNeXt and Wide ResNet builders.
        divisions: 8 shifts an eighth of the channels each way.
        every: shift before every block (1), or, as MMAction2 in ResNet-101 and 152, before the
            first of every two (2) of a stage.
        small_stem, zero_init_residual: see :class:`TorchvisionResNet`.

    Shape: - input: ``(N, 3, T, H, W)``; output: ``(N, F)``, the average over frames; maps:
        ``(N, F, T, H / 32, W / 32)``, rounded up

    Raises:
        UserError: there is no such network, ``divisions`` is below 2, or ``every`` below 1.

    Reference:
        Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", ICCV 2019.

    Example:
        >>> import torch
        >>> TSMResNet(name="resnet18").forward_map(torch.zeros(2, 3, 4, 64, 64)).shape
        torch.Size([2, 512, 4, 2, 2])
    """

    def __init__(
        self,
        *,
        name: str = "resnet50",
        divisions: int = 8,
        every: int = 1,
        small_stem: bool = False,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__(name=name, small_stem=small_stem, zero_init_residual=zero_init_residual)
        if every < 1:
            raise UserError(f"every={every} of TSM must be at least 1")
        blocks = (name for name, block in self.named_modules() if name and _is_residual(block))
        layers = [f"{name}.conv1" for name in blocks if int(name.split(".")[1]) % every == 0]
        self.shift = TemporalShift(self, divisions=divisions, layers=layers)
        self.clip_dims = 3

    def to(self, *args: Any, memory_format: Any = None, **kwargs: Any) -> Self:
        """As of any module, with the memory format of clips taken as that of frames."""
        if memory_format is torch.channels_last_3d:  # which only 3D convolutions have
            memory_format = torch.channels_last
        if memory_format is not None:
            kwargs["memory_format"] = memory_format
        return super().to(*args, **kwargs)

    def forward_map(self, x: Tensor) -> Tensor:
        """Return the features before pooling, ``(N, F, T, h, w)``."""
        self.shift.num_frames = x.shape[2]
        maps = super().forward_map(x.transpose(1, 2).flatten(0, 1))
        return maps.reshape(len(x), -1, *maps.shape[1:]).transpose(1, 2)


def _is_residual(block: nn.Module) -> bool:
    return all(isinstance(getattr(block, name, None), nn.Conv2d) for name in ("conv1", "conv2"))
