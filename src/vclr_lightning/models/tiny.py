"""A small ResNet for images of 32 to 96 px, fast enough to train on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import relu

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.backbone import Backbone

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": partial(nn.GroupNorm, 4),
}


class TinyBackbone(Backbone):
    """A residual network of one strided convolution and ``stages`` blocks.

    Every block halves the resolution and doubles the channels, so F is ``width * 2 ** stages``.

    Args:
        width: channels after the first convolution, a multiple of 4.
        stages: number of residual blocks.
        norm: ``"batch"``, or ``"group"`` for a network without batch statistics.

    Shape: - input: ``(N, 3, H, W)``; output: ``(N, F)``

    Raises:
        UserError: a value is out of range.

    Example:
        >>> import torch
        >>> backbone = TinyBackbone(width=8)
        >>> backbone.num_features, backbone.forward_map(torch.zeros(2, 3, 64, 64)).shape
        (64, torch.Size([2, 64, 4, 4]))
    """

    clip_dims = 2

    def __init__(self, *, width: int = 32, stages: int = 3, norm: str = "batch") -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise UserError(f"width={width} of TinyBackbone must be a positive multiple of 4")
        if stages < 1:
            raise UserError(f"stages={stages} of TinyBackbone must be at least 1")
        if norm not in NORMS:
            raise UserError(f"norm={norm!r} of TinyBackbone must be one of {', '.join(NORMS)}")
        self.num_features = width * 2**stages
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.stem_norm = NORMS[norm](width)
        self.blocks = nn.Sequential(
            *(_Block(width * 2**i, width * 2 ** (i + 1), NORMS[norm]) for i in range(stages))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_map(self, x: Tensor) -> Tensor:
        """Return the features before pooling, ``(N, F, h, w)``."""
        y: Tensor = self.blocks(relu(self.stem_norm(self.stem(x))))
        return y


class _Block(nn.Module):
    """Two 3x3 convolutions next to a strided 1x1."""

    def __init__(self, inside: int, outside: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False)
        self.norm1 = norm(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.norm2 = norm(outside)
        self.shortcut = nn.Conv2d(inside, outside, 1, stride=2, bias=False)
        self.shortcut_norm = norm(outside)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(relu(self.norm1(self.conv1(x)))))
        return relu(y + self.shortcut_norm(self.shortcut(x)))
