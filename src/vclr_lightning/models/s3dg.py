"""S3D with gates, the network of pace prediction."""

from __future__ import annotations

from typing import Any

import torchvision.models.video
from torch import Tensor, nn
from torchvision.ops import Conv3dNormActivation

from vclr_lightning.models.residual3d import Residual3dNetwork

_POOLS = [((1, 3, 3), (1, 2, 2)), ((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2,) * 3,) * 2]


class S3DG(Residual3dNetwork):
    """S3D-G, as pace prediction trains it.

    It differs from :class:`~vclr_lightning.models.TorchvisionVideo` ``(name="s3d")`` in a first
    convolution over time and space at once, in gates after the third convolution and on every
    branch, and in pooling that adds zeros behind its input alone and leaves nothing out.

    Shape: - input: ``(N, 3, T, H, W)``; output: ``(N, 1024)``; maps: ``(N, 1024, T / 8, H / 32,
        W / 32)``, rounded up

    Reference:
        Xie et al., "Rethinking Spatiotemporal Feature Learning", ECCV 2018; Wang et al.,
        "Self-supervised Video Representation Learning by Pace Prediction", ECCV 2020.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     S3DG().forward_map(torch.zeros(1, 3, 64, 224, 224)).shape
        torch.Size([1, 1024, 8, 7, 7])
    """

    num_features = 1024

    def __init__(self) -> None:
        super().__init__()
        layers: list[Any] = list(torchvision.models.video.s3d(weights=None).features)
        self.stem = Conv3dNormActivation(3, 64, (3, 7, 7), stride=2, norm_layer=nn.BatchNorm3d)
        self.layer1 = nn.Sequential(_pool(0), *layers[2:4], SelfGating(192))
        self.layer2 = nn.Sequential(_pool(1), *map(_gated, layers[5:7]))
        self.layer3 = nn.Sequential(_pool(2), *map(_gated, layers[8:13]))
        self.layer4 = nn.Sequential(_pool(3), *map(_gated, layers[14:16]))
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm3d):
                layer.momentum, layer.eps = 0.1, 1e-5


class SelfGating(nn.Module):
    """Scale each channel by a value in 0 to 1, a linear function of all channels' averages.

    Shape: ``(N, channels, t, h, w)``, the result is of the same shape
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        gates: Tensor = self.fc(x.mean((2, 3, 4))).sigmoid()
        return x * gates[..., None, None, None]


def _gated(block: Any) -> nn.Module:
    """Add a gate to each branch of an inception block."""
    for name, branch in list(block.named_children()):
        norms = [layer for layer in branch.modules() if isinstance(layer, nn.BatchNorm3d)]
        setattr(block, name, nn.Sequential(branch, SelfGating(norms[-1].num_features)))
    gated: nn.Module = block
    return gated


def _pool(number: int) -> nn.Module:
    kernel, stride = _POOLS[number]
    behind = [size - step for size, step in zip(kernel, stride, strict=True)]
    zeros = nn.ConstantPad3d((0, behind[2], 0, behind[1], 0, behind[0]), 0.0)
    return nn.Sequential(zeros, nn.MaxPool3d(kernel, stride, ceil_mode=True))
