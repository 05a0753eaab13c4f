"""The networks of clips that VCOP and pace prediction were first trained with."""

from __future__ import annotations

from torch import nn

from vclr_lightning.models.residual3d import (
    ONE,
    Residual3dNetwork,
    convolution,
    factored_convolution,
    initialise,
    residual_stage,
)


class C3D(Residual3dNetwork):
    """C3D with BatchNorm, and an average over the last map instead of its large linear layers.

    Shape: - input: ``(N, 3, T, H, W)``; output: ``(N, 512)``; maps: ``(N, 512, T / 8, H / 16,
        W / 16)``, rounded down

    Reference:
        Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", ICCV 2015.

    Example:
        >>> import torch
        >>> C3D().forward_map(torch.zeros(1, 3, 8, 32, 32)).shape
        torch.Size([1, 512, 1, 2, 2])
    """

    num_features = 512

    def __init__(self) -> None:
        super().__init__()
        inside = 3
        for i, (channels, count, time) in enumerate(
            [(64, 1, 1), (128, 1, 2), (256, 2, 2), (512, 2, 2), (512, 2, 0)]
        ):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [nn.Conv3d(inside, channels, 3, padding=1), nn.BatchNorm3d(channels)]
                layers += [nn.ReLU(inplace=True)]
                inside = channels
            if time:
                layers.append(nn.MaxPool3d((time, 2, 2)))
            self.add_module(f"layer{i}" if i else "stem", nn.Sequential(*layers))
        initialise(self)


class PaceResNet(Residual3dNetwork):
    """A 3D ResNet with one block per stage: the R3D and R(2+1)D of VCOP and pace prediction.

    They have 10 layers, not the 18 of :class:`~vclr_lightning.models.TorchvisionVideo`.

    Args:
        factored: every convolution, shortcuts included, is one in space and one in time, with
            BatchNorm and ReLU in between: R(2+1)D.

    Shape: - input: ``(N, 3, T, H, W)``; output: ``(N, 512)``; maps: ``(N, 512, T / 8, H / 16,
        W / 16)``, rounded up

    Reference:
        Xu et al., "Self-supervised Spatiotemporal Learning via Video Clip Order Prediction", CVPR
        2019; Wang et al., "Self-supervised Video Representation Learning by Pace Prediction", ECCV
        2020.

    Example:
        >>> import torch
        >>> PaceResNet(factored=True).forward_map(torch.zeros(1, 3, 16, 32, 32)).shape
        torch.Size([1, 512, 2, 2, 2])
    """

    num_features = 512

    def __init__(self, *, factored: bool = False) -> None:
        super().__init__()
        convolve = factored_convolution if factored else convolution
        self.stem = nn.Sequential(
            convolve(3, 64, (3, 7, 7), (1, 2, 2)), nn.BatchNorm3d(64), nn.ReLU(inplace=True)
        )
        inside = 64
        for i, channels in enumerate((64, 128, 256, 512), 1):
            kernel = (3, 3, 3)
            first = ((channels, kernel, (2, 2, 2) if i > 1 else ONE), (channels, kernel, ONE))
            stage = residual_stage(inside, first, count=1, convolve=convolve)
            self.add_module(f"layer{i}", stage)
            inside = channels
        initialise(self)
