"""Residual blocks of 3D convolutions, and networks of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from vclr_lightning.models.backbone import Backbone

Triple = tuple[int, int, int]
Convolution = tuple[int, Triple, Triple]  # channels, kernel, stride
ONE = (1, 1, 1)


class Residual3dNetwork(Backbone):
    """A 3D network of children that follow one another."""

    clip_dims = 3

    def forward_map(self, x: Tensor) -> Tensor:
        """Return the features before pooling, ``(N, F, t, h, w)``."""
        for module in self.children():
            x = module(x)
        return x


def convolution(inside: int, outside: int, kernel: Triple, stride: Triple) -> nn.Module:
    """Return a 3D convolution that keeps the size, up to its stride, and has no bias."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Conv3d(inside, outside, kernel, stride, padding, bias=False)


def factored_convolution(inside: int, outside: int, kernel: Triple, stride: Triple) -> nn.Module:
    """Return a convolution in space and one in time, with BatchNorm and ReLU in between.

    Together they have about as many parameters as one in both (Tran et al., "A Closer Look at
    Spatiotemporal Convolutions for Action Recognition", CVPR 2018, section 3.5).
    """
    time, height, width = kernel
    area = height * width * inside
    between = time * area * outside // (area + time * outside)
    return nn.Sequential(
        convolution(inside, between, (1, height, width), (1, *stride[1:])),
        nn.BatchNorm3d(between),
        nn.ReLU(inplace=True),
        convolution(between, outside, (time, 1, 1), (stride[0], 1, 1)),
    )


class VideoResidual(nn.Module):
    """Convolutions, each with BatchNorm, beside a shortcut."""

    def __init__(
        self,
        inside: int,
        convolutions: tuple[Convolution, ...],
        *,
        norm: Callable[[int], nn.Module] = nn.BatchNorm3d,
        convolve: Callable[[int, int, Triple, Triple], nn.Module] = convolution,
        final_relu: bool = True,
    ) -> None:
        super().__init__()
        outside = convolutions[-1][0]
        strides = [stride for _, _, stride in convolutions if stride != ONE]
        self.downsample: nn.Module | None = None
        if strides or inside != outside:
            shortcut = convolve(inside, outside, ONE, strides[0] if strides else ONE)
            self.downsample = nn.Sequential(shortcut, norm(outside))
        self.depth = len(convolutions)
        for i, (channels, kernel, stride) in enumerate(convolutions, 1):
            self.add_module(f"conv{i}", convolve(inside, channels, kernel, stride))
            self.add_module(f"bn{i}", norm(channels))
            inside = channels
        self.relu = nn.ReLU(inplace=True)
        self.final_relu = final_relu

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.depth + 1):
            y = self._modules[f"bn{i}"](self._modules[f"conv{i}"](y))  # type: ignore[misc]
            y = self.relu(y) if i < self.depth else y
        y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y) if self.final_relu else y


def residual_stage(
    inside: int, first: tuple[Convolution, ...], *, count: int, final_relu: bool = True, **how: Any
) -> nn.Sequential:
    """Return ``count`` blocks, of which the first one strides.

    Args:
        inside: channels of the input.
        first: convolutions of the first block.
        count: number of blocks.
        final_relu: whether the last block ends in a ReLU.
        how: see :class:`VideoResidual`.
    """
    others = tuple((channels, kernel, ONE) for channels, kernel, _ in first)
    blocks = [VideoResidual(inside, first, **how)]
    for i in range(1, count):
        last_relu = final_relu or i < count - 1
        blocks.append(VideoResidual(first[-1][0], others, final_relu=last_relu, **how))
    return nn.Sequential(*blocks)


def initialise(network: nn.Module) -> None:
    """Draw the weights of convolutions from He's normal distribution, by their outputs."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
