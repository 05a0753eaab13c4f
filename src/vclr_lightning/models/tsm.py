"""Temporal shift modules: a network of pictures that sees the frames beside each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.temporal_shift import temporal_shift
from vclr_lightning.models.backbone import bare


class TemporalShift:
    """Shifts channels between frames before the first convolution of each residual branch (TSM).

    The network stays as it is, with all names of its parameters, and costs nothing more: its
    convolutions are only given shifted channels. Set :attr:`num_frames` before each forward, whose
    pictures are then those of some videos, one video after another.

    Args:
        backbone: a network of pictures.
        divisions: 8 shifts an eighth of the channels each way.
        layers: names of the layers to shift before; ``None`` for ``conv1`` of every block that has
            a ``conv1`` and a ``conv2``, which are the residual blocks of a ResNet.

    Attributes:
        num_frames: S, frames of each video; 1 shifts nothing.
        layers: names of the layers that are shifted before.

    Raises:
        UserError: the network is one of clips, has no such layers or is shifted already, or
            ``divisions`` is below 2.

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
                f"TSM shifts the channels of a network of pictures, and {type(backbone).__name__} "
                "is one of clips; take a 2D network, or head=tsn"
            )
        if divisions < 2:
            raise UserError(f"divisions={divisions} of TSM must be at least 2")
        net = bare(backbone)
        modules = dict(net.named_modules())
        if layers is None:
            layers = [f"{name}.conv1" for name, block in modules.items() if name and _two(block)]
        if not layers or (unknown := [name for name in layers if name not in modules]):
            what = f"layers {', '.join(unknown)}" if layers else "blocks with conv1 and conv2"
            raise UserError(
                f"{type(net).__name__} has no {what} to shift before; name the first convolution "
                "of each residual branch in layers"
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
        """Leave the network as it was."""
        for handle in self._handles:
            handle.remove()

    def _shift(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
        x, *others = inputs
        return (temporal_shift(x, self.num_frames, divisions=self.divisions), *others)


def _two(block: nn.Module) -> bool:
    return all(isinstance(getattr(block, name, None), nn.Conv2d) for name in ("conv1", "conv2"))
