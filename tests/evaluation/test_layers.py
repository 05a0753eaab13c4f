"""Features of any layer, against the network run up to there by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation import frame_encoder
from vclr_lightning.functional.pixels import IMAGENET_MEAN, IMAGENET_STD, normalize
from vclr_lightning.models import TinyBackbone, TorchvisionResNet, WrappedBackbone


@pytest.fixture
def frames() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, 1, 32, 32), dtype=torch.uint8, generator=generator)


def test_a_map_is_averaged(frames: torch.Tensor) -> None:
    net = TinyBackbone(width=8).eval()
    pixels = normalize(frames, IMAGENET_MEAN, IMAGENET_STD).squeeze(2)
    with torch.no_grad():
        expected = net.blocks[1](net.blocks[0](relu(net.stem_norm(net.stem(pixels)))))
    got = frame_encoder(net, layer="blocks.1")(frames)
    assert torch.allclose(got, expected.mean(dim=(2, 3)))
    # the hook is gone, and the network's own features are what they were
    assert not net.blocks[1]._forward_hooks
    assert torch.equal(frame_encoder(net)(frames), frame_encoder(net, layer="blocks")(frames))


def test_scores_of_a_classifier_in_a_wrapper(frames: torch.Tensor) -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = nn.Sequential(body, nn.Linear(4, 200))
    backbone = WrappedBackbone(net, num_features=200)
    assert frame_encoder(backbone)(frames).shape == (3, 200)
    assert frame_encoder(backbone, layer="0")(frames).shape == (3, 4)
    assert frame_encoder(backbone, layer="net.0.0")(frames).shape == (3, 4)


@pytest.mark.parametrize(
    ("name", "words"),
    [("layer5", "near it are layer"), ("zzzz", "it has conv1, bn1, relu")],
)
def test_an_unknown_layer_is_named_beside_those_there_are(name: str, words: str) -> None:
    with pytest.raises(UserError, match=f"no layer '{name}'; {words}"):
        frame_encoder(TorchvisionResNet(name="resnet18"), layer=name)


class Odd(nn.Module):
    """A layer that is never called, and one that returns no map."""

    clip_dims, num_features = 2, 3

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Identity()
        self.pair = nn.Flatten(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.pair(x)
        return tokens.mean(dim=2)


@pytest.mark.parametrize(("layer", "words"), [("unused", "not used"), ("pair", "which is no map")])
def test_layers_without_features_are_refused(layer: str, words: str, frames: torch.Tensor) -> None:
    with pytest.raises(UserError, match=words):
        frame_encoder(Odd(), layer=layer)(frames)
