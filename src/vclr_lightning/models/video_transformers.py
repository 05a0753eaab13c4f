"""Transformers of clips, torchvision's, without their classifier and under its parameter names."""

from __future__ import annotations

from typing import Any

import torchvision.models.video
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.backbone import Backbone

SWINS = ("swin3d_t", "swin3d_s", "swin3d_b")
POOLS = ("token", "avg")


class TorchvisionSwin(Backbone):
    """Video Swin, a transformer over windows of a clip, for clips of any size.

    Patches have 2 frames of 4 x 4 pixels; where a size is no multiple, zeros are added. Windows are
    8 x 7 x 7 patches, fewer where a map is smaller.

    Args:
        name: ``swin3d_t``, ``swin3d_s`` or ``swin3d_b``.
        stochastic_depth: chance that training skips the last block; it grows linearly up to there.

    Shape: - input: ``(N, 3, T, H, W)``; output: ``(N, F)``, F is 768, or 1024 for ``swin3d_b``;
        maps: ``(N, F, T / 2, H / 32, W / 32)``, rounded up

    Raises:
        UserError: there is no such network, or a value is out of range.

    Reference:
        Liu et al., "Video Swin Transformer", CVPR 2022.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     swin = TorchvisionSwin(name="swin3d_t")
        ...     swin.forward_map(torch.zeros(1, 3, 5, 112, 112)).shape
        torch.Size([1, 768, 3, 4, 4])
    """

    clip_dims = 3

    def __init__(self, *, name: str = "swin3d_t", stochastic_depth: float = 0.1) -> None:
        super().__init__()
        if name not in SWINS:
            raise UserError(f"there is no backbone name={name!r}; there are {', '.join(SWINS)}")
        net = getattr(torchvision.models.video, name)(weights=None)
        self.num_features = net.num_features
        self.patch_embed, self.pos_drop = net.patch_embed, net.pos_drop
        self.features, self.norm = net.features, net.norm
        _set_stochastic_depth(self, stochastic_depth)

    def forward_map(self, x: Tensor) -> Tensor:
        """Return the features before pooling, ``(N, F, t, h, w)``."""
        y: Tensor = self.norm(self.features(self.pos_drop(self.patch_embed(x))))
        return y.permute(0, 4, 1, 2, 3)


class TorchvisionMViT(Backbone):
    """MViT v2 (``mvit_v2_s``), a transformer that pools its tokens, for clips of any size.

    Tokens are 2 frames of 4 x 4 pixels at first, and of 32 x 32 pixels at the end. Their relative
    positions are those of 16 frames of 224 x 224 pixels, and interpolated for clips of other sizes.

    Args:
        global_pool: what the features are: the class token (``token``), as in torchvision, or the
            average of the others (``avg``), which a map needs.
        stochastic_depth: chance that training skips the last block; it grows linearly up to there.

    Shape: - input: ``(N, 3, T, H, W)``; output: ``(N, 768)``; maps: ``(N, 768, T / 2, H / 32,
        W / 32)``, rounded up

    Raises:
        UserError: a value is out of range; from :meth:`forward_map`, features are the class token.

    Reference:
        Li et al., "MViTv2: Improved Multiscale Vision Transformers for Classification and
        Detection", CVPR 2022.

    Example:
        >>> import torch
        >>> backbone = TorchvisionMViT(global_pool="avg").eval()
        >>> backbone.forward_map(torch.zeros(1, 3, 5, 64, 96)).shape
        torch.Size([1, 768, 3, 2, 3])
    """

    clip_dims = 3
    pixel_mean = (0.45, 0.45, 0.45)
    pixel_std = (0.225, 0.225, 0.225)

    def __init__(self, *, global_pool: str = "token", stochastic_depth: float = 0.2) -> None:
        super().__init__()
        if global_pool not in POOLS:
            raise UserError(f"global_pool={global_pool!r} must be one of {', '.join(POOLS)}")
        net = torchvision.models.video.mvit_v2_s(weights=None)
        self.global_pool = global_pool
        self.num_features = int(net.norm.normalized_shape[0])
        self.conv_proj, self.pos_encoding = net.conv_proj, net.pos_encoding
        self.blocks, self.norm = net.blocks, net.norm
        _set_stochastic_depth(self, stochastic_depth)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of each clip."""
        tokens, grid = self._tokens(x)
        return tokens[:, 0] if self.global_pool == "token" else self.pool(_on_grid(tokens, grid))

    def forward_map(self, x: Tensor) -> Tensor:
        """Return the features before pooling, ``(N, 768, t, h, w)``.

        Raises:
            UserError: the features are the class token, not an average over the map.
        """
        if self.global_pool == "token":
            raise UserError(
                "the features of this MViT are its class token, which a map does not hold; give "
                "backbone.global_pool=avg"
            )
        return _on_grid(*self._tokens(x))

    def _tokens(self, x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Return the class token and those of the grid, ``(N, 1 + t h w, 768)``, and its size."""
        maps = self.conv_proj(x)
        grid: tuple[int, int, int] = tuple(maps.shape[2:])
        tokens = self.pos_encoding(maps.flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens, grid = block(tokens, grid)
        return self.norm(tokens), grid


def _on_grid(tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, *grid)


def _set_stochastic_depth(network: nn.Module, probability: float) -> None:
    if not 0 <= probability < 1:
        raise UserError(f"stochastic_depth={probability} must be at least 0 and below 1")
    layers: list[Any] = [m for m in network.modules() if isinstance(m, StochasticDepth)]
    for i, layer in enumerate(layers):
        layer.p = probability * i / (len(layers) - 1)
