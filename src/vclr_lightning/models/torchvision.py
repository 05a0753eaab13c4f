"""Networks of torchvision without their classifier, under torchvision's own parameter names."""

from __future__ import annotations

from typing import Any

import torchvision.models
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.backbone import Backbone

RESNETS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
VIDEO_NETWORKS = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d")
TORCHVISION_S3D = {"bn_momentum": 0.001, "bn_eps": 0.001}
"""BatchNorm of torchvision's S3D, and of this package's in its first versions."""


def published_pixels(name: str) -> list[list[float]]:
    """Return mean and standard deviation of pixels for torchvision's Kinetics weights.

    Example:
        >>> published_pixels("r3d_18")[0]
        [0.43216, 0.394666, 0.37645]
    """
    preset: Any = torchvision.models.get_model_weights(name)["KINETICS400_V1"].transforms()
    return [list(preset.mean), list(preset.std)]


class _Torchvision(Backbone):
    """The children of a torchvision network, except for its classifier."""

    def _adopt(self, net: nn.Module) -> None:
        for name, module in net.named_children():
            if name not in ("avgpool", "fc", "classifier"):
                self.add_module(name, module)

    def forward_map(self, x: Tensor) -> Tensor:
        """Return the features before pooling, ``(N, F, h, w)`` or ``(N, F, t, h, w)``."""
        for module in self.children():
            x = module(x)
        return x


class TorchvisionResNet(_Torchvision):
    """A 2D ResNet; the paper's backbone is ``resnet50``.

    Args:
        name: one of torchvision's ResNet, ResNeXt and Wide ResNet builders.
        small_stem: a 3x3 first convolution of stride 1 and no max-pooling, for images below
            about 96 px.
        zero_init_residual: initialise the last norm layer of every residual branch to zero.

    Shape: - input: ``(N, 3, H, W)``; output: ``(N, F)``; F is 512 or 2048

    Raises:
        UserError: there is no such network.

    Example:
        >>> import torch
        >>> backbone = TorchvisionResNet(name="resnet18")
        >>> backbone.num_features, backbone(torch.zeros(2, 3, 64, 64)).shape
        (512, torch.Size([2, 512]))
    """

    clip_dims = 2

    def __init__(
        self,
        *,
        name: str = "resnet50",
        small_stem: bool = False,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        net = _build(name, RESNETS, torchvision.models, zero_init_residual=zero_init_residual)
        self.num_features = net.fc.in_features
        if small_stem:
            net.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
            nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
            net.maxpool = nn.Identity()
        self._adopt(net)


class TorchvisionVideo(_Torchvision):
    """A 3D network; ``r3d_18`` and ``s3d`` are the paper's.

    Args:
        name: one of ``r3d_18``, ``mc3_18``, ``r2plus1d_18``, ``s3d``.
        bn_momentum: of BatchNorm's running statistics. torchvision's S3D has 0.001, with which they
            lag thousands of steps behind the weights of a network trained from scratch.
        bn_eps: of BatchNorm; trained weights depend on it, and torchvision's for S3D need 0.001.
        conv_std: standard deviation of the weights of convolutions at the start, which are normal;
            CoCLR's S3D has 0.01. ``None`` for torchvision's own initialisation.

    Shape: - input: ``(N, 3, T, H, W)``; output: ``(N, F)``; F is 512, or 1024 for ``s3d``

    Raises:
        UserError: there is no such network, or a value is out of range; from forward, clips are too
            small for ``s3d``.

    Example:
        >>> import torch
        >>> backbone = TorchvisionVideo(name="r3d_18")
        >>> backbone.forward_map(torch.zeros(1, 3, 8, 32, 32)).shape
        torch.Size([1, 512, 1, 2, 2])
    """

    clip_dims = 3

    def __init__(
        self,
        *,
        name: str = "r3d_18",
        bn_momentum: float = 0.1,
        bn_eps: float = 1e-5,
        conv_std: float | None = None,
    ) -> None:
        super().__init__()
        if conv_std is not None and not conv_std > 0:
            raise UserError(f"conv_std={conv_std} must be above 0, or null")
        if not 0 < bn_momentum <= 1 or not bn_eps > 0:
            raise UserError(
                f"bn_momentum={bn_momentum} must be above 0 and at most 1, and bn_eps={bn_eps} "
                "above 0"
            )
        net = _build(name, VIDEO_NETWORKS, torchvision.models.video)
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm3d):
                layer.momentum, layer.eps = bn_momentum, bn_eps
            elif isinstance(layer, nn.Conv3d) and conv_std is not None:
                nn.init.normal_(layer.weight, std=conv_std)
        self.num_features = net.classifier[1].in_channels if name == "s3d" else net.fc.in_features
        self._adopt(net)

    def forward_map(self, x: Tensor) -> Tensor:
        """Return the features before pooling, ``(N, F, t, h, w)``."""
        frames, height, width = x.shape[2:]
        # Below 5 frames nothing is left to pool. For 5 to 7, oneDNN (of PyTorch 2.14, on CPUs)
        # computes wrong gradients of the first temporal convolution, beyond its memory.
        if "features" in self._modules and (frames < 8 or min(height, width) < 17):
            raise UserError(
                f"S3D takes clips of at least 8 frames of 17 x 17 pixels, and these have {frames} "
                f"of {height} x {width}; raise frames_per_clip or image_size"
            )
        return super().forward_map(x)


def _build(name: str, known: tuple[str, ...], source: Any, **options: Any) -> Any:
    if name not in known:
        raise UserError(f"there is no backbone name={name!r}; there are {', '.join(known)}")
    return getattr(source, name)(weights=None, **options)
