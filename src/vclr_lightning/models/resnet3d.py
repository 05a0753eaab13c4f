"""3D ResNets that see little or nothing of time in their first stages."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn.functional import relu

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.residual3d import (
    ONE,
    Convolution,
    Residual3dNetwork,
    initialise,
    residual_stage,
)

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Residual blocks per stage, by depth; those of depth 50 are bottlenecks."""


class ResNet2d3d(Residual3dNetwork):
    """The 2D-3D ResNet of DPC, MemDPC and CoCLR: without time up to ``layer2``.

    The stem and ``layer1`` and ``layer2`` convolve in space alone, ``layer3`` and ``layer4`` in
    space and time, and halve both. ``layer4`` has 256 channels, and no ReLU at its end: maps are
    signed. Features are the average of their positive part, as these methods' classifiers see them.
    Parameters have the names of the authors' checkpoints.

    Args:
        depth: 18 or 34.
        track_running_stats: whether BatchNorm keeps running statistics. DPC pretrains without: then
            the statistics of the batch serve in evaluation, too.

    Shape: - input: ``(N, 3, T, H, W)``; output: ``(N, 256)``; maps: ``(N, 256, T / 4, H / 32,
        W / 32)``, rounded up

    Raises:
        UserError: there is no such depth.

    Reference:
        Han et al., "Video Representation Learning by Dense Predictive Coding", ICCVW 2019.

    Example:
        >>> import torch
        >>> backbone = ResNet2d3d(depth=18)
        >>> backbone.forward_map(torch.zeros(1, 3, 5, 64, 64)).shape
        torch.Size([1, 256, 2, 2, 2])
    """

    num_features = 256

    def __init__(self, *, depth: int = 18, track_running_stats: bool = True) -> None:
        super().__init__()
        counts = _blocks(depth, (18, 34))
        norm = partial(nn.BatchNorm3d, track_running_stats=track_running_stats)
        self.conv1 = nn.Conv3d(3, 64, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        self.bn1 = norm(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = _maxpool()
        inside = 64
        for i, (width, time, stride) in enumerate(
            [(64, 1, ONE), (128, 1, (1, 2, 2)), (256, 3, (2, 2, 2)), (256, 3, (2, 2, 2))]
        ):
            kernel = (time, 3, 3)
            first = ((width, kernel, stride), (width, kernel, ONE))
            stage = residual_stage(inside, first, count=counts[i], norm=norm, final_relu=i < 3)
            self.add_module(f"layer{i + 1}", stage)
            inside = width
        initialise(self)

    def pool(self, maps: Tensor) -> Tensor:
        """Average the positive part of a map over its positions and times."""
        return super().pool(relu(maps))


class SlowFastPathway(Residual3dNetwork):
    """One pathway of a SlowFast network, without lateral connections; a 3D ResNet-50.

    Only the first convolution of a residual block sees time, from stage ``temporal_from`` on, and
    no stage shortens it.

    ================================  ===========  ===============  =================  ==========
    network                           stem_frames  stem_stride      temporal_from      width
    ================================  ===========  ===============  =================  ==========
    slow pathway                      1            1                3                  64
    R3D-50 of CVRL                    5            2                3                  64
    fast pathway                      5            1                1                  8 (or 64)
    ================================  ===========  ===============  =================  ==========

    Args:
        depth: 18, 34 or 50.
        width: channels after the stem, the base of all others.
        stem_frames: frames that the first convolution sees, an odd number.
        stem_stride: of the first convolution in time.
        temporal_from: the first stage with convolutions over 3 frames; 5 for none.

    Shape: - input: ``(N, 3, T, H, W)``; output: ``(N, F)``, F is 32 times ``width``, 8 times where
        the depth is 18 or 34; maps: ``(N, F, T / stem_stride, H / 32, W / 32)``, rounded up

    Raises:
        UserError: a value is out of range.

    Reference:
        Feichtenhofer et al., "SlowFast Networks for Video Recognition", ICCV 2019, Table 1; Qian et
        al., "Spatiotemporal Contrastive Video Representation Learning", CVPR 2021, Table 1. CVRL's
        code pads strided layers on one side alone, this network on both.

    Example:
        >>> import torch
        >>> fast = SlowFastPathway(depth=18, width=8, stem_frames=5, temporal_from=1)
        >>> fast.forward_map(torch.zeros(1, 3, 8, 64, 64)).shape
        torch.Size([1, 64, 8, 2, 2])
    """

    def __init__(
        self,
        *,
        depth: int = 50,
        width: int = 64,
        stem_frames: int = 1,
        stem_stride: int = 1,
        temporal_from: int = 3,
    ) -> None:
        super().__init__()
        counts = _blocks(depth, tuple(BLOCKS))
        if width < 1 or stem_frames < 1 or stem_frames % 2 == 0 or stem_stride < 1:
            raise UserError(
                f"width={width} and stem_stride={stem_stride} of SlowFastPathway must be at least "
                f"1, and stem_frames={stem_frames} odd"
            )
        if not 1 <= temporal_from <= 5:
            raise UserError(f"temporal_from={temporal_from} of SlowFastPathway must be in 1 to 5")
        kernel, padding = (stem_frames, 7, 7), (stem_frames // 2, 3, 3)
        self.stem = nn.Sequential(
            nn.Conv3d(3, width, kernel, (stem_stride, 2, 2), padding, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
            _maxpool(),
        )
        inside = width
        for i, count in enumerate(counts):
            channels, stride = width * 2**i, (1, 2, 2) if i else ONE
            time = 3 if i + 1 >= temporal_from else 1
            first: tuple[Convolution, ...]
            if depth < 50:
                first = ((channels, (time, 3, 3), stride), (channels, (1, 3, 3), ONE))
            else:
                first = (
                    (channels, (time, 1, 1), ONE),
                    (channels, (1, 3, 3), stride),
                    (channels * 4, ONE, ONE),
                )
            self.add_module(f"layer{i + 1}", residual_stage(inside, first, count=count))
            inside = first[-1][0]
        self.num_features = inside
        initialise(self)


def _blocks(depth: int, known: tuple[int, ...]) -> tuple[int, ...]:
    if depth not in known:
        raise UserError(f"depth={depth} must be one of {', '.join(map(str, known))}")
    return BLOCKS[depth]


def _maxpool() -> nn.MaxPool3d:
    return nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
