"""Temporal shift against a slow loop, and a network that keeps its names."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import relu

from vclr_lightning.core.errors import UserError
from vclr_lightning.models import TinyBackbone, TorchvisionResNet, TorchvisionVideo
from vclr_lightning.models.tsm import TemporalShift, temporal_shift


def slow_shift(x: Tensor, frames: int, divisions: int) -> Tensor:
    """Each channel of each frame by itself."""
    result = torch.zeros_like(x)
    fold = x.shape[1] // divisions
    for row in range(len(x)):
        time = row % frames
        for channel in range(x.shape[1]):
            if channel < fold:
                step = 1
            elif channel < 2 * fold:
                step = -1
            else:
                step = 0
            if 0 <= time + step < frames:
                result[row, channel] = x[row + step, channel]
    return result


@settings(deadline=None, max_examples=30)
@given(
    videos=st.integers(1, 3),
    frames=st.integers(1, 6),
    channels=st.integers(1, 17),
    divisions=st.integers(2, 8),
)
def test_shift_is_the_slow_one(videos: int, frames: int, channels: int, divisions: int) -> None:
    x = torch.rand(videos * frames, channels, 2, 3, dtype=torch.float64)
    shifted = temporal_shift(x, frames, divisions=divisions)
    assert torch.equal(shifted, slow_shift(x, frames, divisions))


def test_gradients_of_the_shift() -> None:
    x = torch.rand(4, 8, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: temporal_shift(y, 4, divisions=4), (x,))


def test_a_block_shifts_its_branch_and_not_its_shortcut() -> None:
    torch.manual_seed(0)
    backbone = TinyBackbone(width=8, stages=1).eval()
    pictures = torch.rand(6, 3, 16, 16)
    block = backbone.blocks[0]
    with torch.no_grad():
        x = relu(backbone.stem_norm(backbone.stem(pictures)))
        branch = relu(block.norm1(block.conv1(slow_shift(x, 3, 8))))
        branch = block.norm2(block.conv2(branch))
        expected = relu(branch + block.shortcut_norm(block.shortcut(x))).flatten(2).mean(2)
        plain = backbone(pictures)
        shift = TemporalShift(backbone)
        shift.num_frames = 3
        torch.testing.assert_close(backbone(pictures), expected)
        shift.num_frames = 1
        shift.remove()
        assert torch.equal(backbone(pictures), plain)
    assert not torch.allclose(plain, expected)


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 8), ("resnet50", 16)])
def test_every_block_of_a_resnet_is_shifted_and_no_name_changes(name: str, blocks: int) -> None:
    with torch.device("meta"):
        backbone = TorchvisionResNet(name=name)
    names = list(backbone.state_dict())
    shift = TemporalShift(backbone)
    assert len(shift.layers) == blocks
    assert all(layer.endswith(".conv1") and layer != "conv1" for layer in shift.layers)
    assert list(backbone.state_dict()) == names


def test_a_video_does_not_reach_the_next() -> None:
    backbone = TinyBackbone(width=8).eval()
    TemporalShift(backbone).num_frames = 2
    pictures = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        before = backbone(pictures)
        pictures[2:] = 0
        after = backbone(pictures)
    assert torch.equal(before[:2], after[:2])


def test_mistakes() -> None:
    with pytest.raises(UserError, match="is 3D"):
        TemporalShift(TorchvisionVideo(name="r3d_18"))
    with pytest.raises(UserError, match="no blocks with conv1 and conv2"):
        TemporalShift(nn.Sequential(nn.Conv2d(3, 4, 1)))
    with pytest.raises(UserError, match="no layers nothing"):
        TemporalShift(TinyBackbone(width=8), layers=["nothing"])
    with pytest.raises(UserError, match="divisions=1"):
        TemporalShift(TinyBackbone(width=8), divisions=1)
    backbone = TinyBackbone(width=8)
    shift = TemporalShift(backbone)
    with pytest.raises(UserError, match="shifted already"):
        TemporalShift(backbone)
    shift.remove()
    TemporalShift(backbone)
