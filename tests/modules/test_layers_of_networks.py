"""Layers of networks of clips are read as maps, whatever their layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vclr_lightning.models import TorchvisionMViT, TorchvisionSwin, TSMResNet
from vclr_lightning.modules.encoding import encoded
from vclr_lightning.modules.input_pixels import pixels_of


def swin(net: Any, x: Tensor) -> tuple[str, Tensor]:
    channels_last = net.features[1](net.features[0](net.patch_embed(x)))
    return "features.1", torch.stack(channels_last.unbind(4), 1)


def mvit(net: Any, x: Tensor) -> tuple[str, Tensor]:
    maps = net.conv_proj(x)
    tokens, grid = net.pos_encoding(maps.flatten(2).transpose(1, 2)), tuple(maps.shape[2:])
    for block in net.blocks[:2]:
        tokens, grid = block(tokens, grid)
    time, height, width = grid
    channels = [c[:, 1:].unflatten(1, (time, height, width)) for c in tokens.unbind(2)]
    return "blocks.1", torch.stack(channels, 1)


def tsm(net: Any, x: Tensor) -> tuple[str, Tensor]:
    net.shift.num_frames = x.shape[2]
    frames = torch.cat([clip.unbind(1)[t][None] for clip in x for t in range(x.shape[2])])
    y = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(frames)))))
    return "layer1", torch.stack(y.split(x.shape[2])).transpose(1, 2)


@pytest.mark.parametrize(
    ("build", "by_hand"),
    [
        (lambda: TorchvisionSwin(stochastic_depth=0), swin),
        (lambda: TorchvisionMViT(stochastic_depth=0), mvit),
        (lambda: TSMResNet(name="resnet18"), tsm),
    ],
    ids=["swin", "mvit", "tsm"],
)
def test_maps_of_layers_have_channels_second(build: Any, by_hand: Any) -> None:
    torch.manual_seed(0)
    network = build().eval()
    clips = torch.randint(256, (2, 1, 3, 4, 40, 40), dtype=torch.uint8)
    pixels = pixels_of(network)
    with torch.no_grad():
        name, expected = by_hand(network, pixels(clips.flatten(0, 1), torch.float32))
        found = encoded(network, clips, pixels=pixels, kinds=("features", f"@{name}"))
        torch.testing.assert_close(found[f"@{name}"].squeeze(1), expected)
        alone = encoded(network, clips, pixels=pixels)
    assert torch.equal(found["features"], alone["features"])
    assert not any(m._forward_hooks for m in network.modules())
