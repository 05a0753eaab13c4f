"""What a network can take is found out before anything is trained or extracted."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models import TimmBackbone, TinyBackbone, TorchvisionVideo, WrappedBackbone
from vclr_lightning.modules.clip_sizes import check_clip_sizes, check_first_batch


class Flat(nn.Module):
    """A network of one size, whose error is PyTorch's."""

    num_features, clip_dims = 5, 2

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.linear = nn.Linear(3 * 32 * 32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.dropout(self.norm(x), 0.5, True).flatten(1))


class Liar(Flat):
    num_features = 7


def test_nothing_of_the_network_or_of_the_random_numbers_changes() -> None:
    network = Flat().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    check_clip_sizes(network, [(1, 32)])
    assert torch.equal(torch.rand(4), expected)
    assert network.training
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


@pytest.mark.parametrize(
    ("build", "shape", "says"),
    [
        (Flat, (1, 48), r"Flat cannot encode pictures of 48 x 48 pixels \(image_size=48\): Runt"),
        (Liar, (1, 32), r"returns features \(5,\) of .*declares num_features=7"),
        (lambda: TinyBackbone(width=4), (2, 32), "set frames_per_clip=1 or use a 3D backbone"),
        (TorchvisionVideo, (1, 32), "frames_per_clip=16"),
        (lambda: TimmBackbone(name="test_vit", image_size=64), (1, 72), "multiple of 16"),
        (
            lambda: TimmBackbone(name="test_coatnet", image_size=64),
            (1, 96),
            "built for pictures of 64 pixels, and these have 96 x 96; give the same image_size",
        ),
        (
            lambda: WrappedBackbone(nn.Conv3d(3, 4, 9), num_features=4, clip_dims=3),
            (4, 32),
            r"Conv3d cannot encode clips of 4 frames of 32 x 32 .* image_size or frames_per_clip",
        ),
    ],
)
def test_one_sentence(build: Any, shape: tuple[int, int], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        check_clip_sizes(build(), [shape])
    assert "\n" not in str(caught.value)


def test_interpolated_positions_are_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    network = TimmBackbone(name="test_vit", image_size=64)
    check_clip_sizes(network, [(1, 64)])
    assert not caplog.messages
    check_clip_sizes(network, [(1, 96)])
    (said,) = caplog.messages
    assert said == "positions of VisionTransformer are those of 64 pixels, interpolated for 96"


def test_the_views_that_a_network_reads_are_checked() -> None:
    views = {
        "small": torch.zeros(2, 1, 3, 1, 32, 32, dtype=torch.uint8),
        "large": torch.zeros(2, 1, 3, 1, 48, 48, dtype=torch.uint8),
    }
    batch: Any = {"views": views}
    networks = {"query": Flat(), "key": Flat()}
    check_first_batch(networks, [("query", "small"), ("key", "small"), ("query", "none")], batch)
    with pytest.raises(UserError, match="48 x 48"):
        check_first_batch(networks, [("query", "small"), ("key", "large")], batch)
