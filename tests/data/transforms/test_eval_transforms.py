"""The fixed transform against torchvision's on PIL pictures."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import transforms as tv

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import ClipTransform
from vclr_lightning.data.transforms import EvalTransform

Picture = NDArray[np.uint8]
RNG = np.random.default_rng(0)


def _assert_same(ours: Tensor, theirs: Image.Image) -> None:
    """Equal, but for a pixel here and there that is off by 1."""
    error = np.abs(ours[:, 0].permute(1, 2, 0).numpy().astype(int) - np.asarray(theirs))
    assert error.max() <= 1
    assert error.mean() <= 0.1


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (112, 112), (64, 97), (7, 300)])
def test_resize_and_centre_crop_agree_with_torchvision(
    picture: Picture, size: int, resize: int
) -> None:
    theirs = tv.Compose([tv.Resize(resize), tv.CenterCrop(size)])(Image.fromarray(picture))
    ours = EvalTransform(size=size, resize=resize)([picture], RNG)
    assert ours.shape == (3, 1, size, size)
    _assert_same(ours, theirs)


def test_stretching_agrees_with_torchvision(picture: Picture) -> None:
    theirs = tv.Compose([tv.Resize((256, 340)), tv.CenterCrop(224)])(Image.fromarray(picture))
    ours = EvalTransform(stretch=(256, 340))([picture], RNG)
    _assert_same(ours, theirs)


def test_frames_of_a_clip_keep_their_order(photo: Picture) -> None:
    other = np.ascontiguousarray(photo[::-1])
    transform = EvalTransform(size=32, resize=40)
    clip = transform([photo, other], RNG)
    assert torch.equal(clip[:, :1], transform([photo], RNG))
    assert torch.equal(clip[:, 1:], transform([other], RNG))


def test_it_pickles_and_fits_the_protocol() -> None:
    transform = EvalTransform(stretch=[256, 340])  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(transform)) == transform
    assert transform.stretch == (256, 340)
    fits: ClipTransform = transform
    assert fits.size == 224


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": -1}, "size=-1"),
        ({"resize": 0}, "resize=0"),
        ({"size": 256, "resize": 224}, "resize=224"),
        ({"stretch": (340,)}, "stretch"),
        ({"stretch": 256}, "stretch"),
        ({"stretch": (256, 0)}, "stretch"),
        ({"stretch": (200, 340)}, "stretch"),
    ],
)
def test_a_wrong_value_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=f"^{named}.*; give "):
        EvalTransform(**options)
