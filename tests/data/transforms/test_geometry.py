"""Crops and resizing against PIL and torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import transforms as tv

from vclr_lightning.data.transforms.augmentation import Box
from vclr_lightning.data.transforms.geometry import center_box, resized_crop, short_edge_size


def _assert_pil(ours: Tensor, theirs: NDArray[np.uint8]) -> None:
    """A weight of PIL has a few more digits: here and there a pixel is off by 1."""
    assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - theirs).max() <= 1


def _pil(frame: NDArray[np.uint8], box: Box, height: int, width: int) -> NDArray[np.uint8]:
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    resized = (
        Image.fromarray(frame).crop(corners).resize((width, height), Image.Resampling.BILINEAR)
    )
    return np.asarray(resized)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_resizing_agrees_with_pil(data: st.DataObject) -> None:
    edge = st.integers(1, 90)
    height, width = data.draw(edge), data.draw(edge)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    h, w = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    seed = data.draw(st.integers(0, 2**32))
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out_h, out_w = data.draw(edge), data.draw(edge)
    ours = resized_crop(frame, Box(top, left, h, w), out_h, out_w)
    _assert_pil(ours, _pil(frame, Box(top, left, h, w), out_h, out_w))


@pytest.mark.parametrize("box", [Box(0, 0, 256, 340), Box(31, 17, 200, 170), Box(3, 5, 90, 101)])
@pytest.mark.parametrize("size", [64, 112, 224])
def test_resizing_a_photo_agrees_with_pil(photo: NDArray[np.uint8], box: Box, size: int) -> None:
    ours = resized_crop(photo, box, size, size)
    theirs = _pil(photo, box, size, size)
    _assert_pil(ours, theirs)
    assert (ours.permute(1, 2, 0).numpy() != theirs).mean() < 0.02


def test_any_memory_layout_will_do(photo: NDArray[np.uint8]) -> None:
    box = Box(10, 20, 100, 120)
    turned = np.rot90(photo, 2)  # steps backwards
    fixed = photo.copy()
    fixed.flags.writeable = False
    planar = np.ascontiguousarray(photo.transpose(2, 0, 1)).transpose(1, 2, 0)
    for frame in (turned, fixed, planar):
        same = np.ascontiguousarray(frame)
        assert torch.equal(resized_crop(frame, box, 64, 64), resized_crop(same, box, 64, 64))
    assert np.array_equal(fixed, photo)


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 300), st.integers(1, 300))
def test_sizes_are_torchvisions(height: int, width: int, short: int, size: int) -> None:
    image = Image.new("L", (width, height))
    new_height, new_width = short_edge_size(height, width, short)
    if max(new_height, new_width) < 1000:
        assert tv.Resize(short)(image).size == (new_width, new_height)
    if size <= min(height, width):
        gradient = np.add.outer(1000 * np.arange(height), np.arange(width)).astype(np.int32)
        cut = np.asarray(tv.CenterCrop(size)(Image.fromarray(gradient, "I")))
        box = center_box(height, width, size)
        assert (box.height, box.width) == cut.shape
        assert cut[0, 0] == 1000 * box.top + box.left
