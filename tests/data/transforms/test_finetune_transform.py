"""Crops of training and testing: their laws, and where they lie."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.transforms import (
    AreaCrop,
    EvalTransform,
    FinetuneTransform,
    MultiScaleCrop,
    ViewsTransform,
)
from vclr_lightning.data.transforms.eval_transforms import view_boxes

SIZES = {1.0: 256, 0.875: 224, 0.75: 192, 0.66: 168}


@settings(deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    seed=st.integers(0, 1000),
    positions=st.sampled_from([5, 13]),
    max_gap=st.integers(0, 3),
)
def test_boxes_lie_within_the_frame_and_have_allowed_sizes(
    height: int, width: int, seed: int, positions: int, max_gap: int
) -> None:
    crop = MultiScaleCrop(positions=positions, max_gap=max_gap)
    box = crop(height, width, np.random.default_rng(seed))
    assert 0 <= box.top <= box.top + box.height <= height
    assert 0 <= box.left <= box.left + box.width <= width
    edges = [max(1, int(min(height, width) * scale)) for scale in crop.scales]
    gaps = [
        abs(i - j)
        for i, edge in enumerate(edges)
        for j, other in enumerate(edges)
        if (edge, other) == (box.height, box.width)
    ]
    assert min(gaps) <= max_gap


@pytest.mark.parametrize("positions", [5, 13])
def test_sizes_and_places_are_equally_likely(positions: int) -> None:
    rng = np.random.default_rng(0)
    crop = MultiScaleCrop(positions=positions)
    boxes = [crop(256, 340, rng) for _ in range(6000)]
    sizes = Counter((box.height, box.width) for box in boxes)
    edges = list(SIZES.values())
    allowed = {(a, b) for i, a in enumerate(edges) for j, b in enumerate(edges) if abs(i - j) <= 1}
    assert set(sizes) == allowed
    assert len(allowed) == 10
    assert all(abs(count - 600) < 120 for count in sizes.values())
    # Of one size: the places in quarters of the room there is.
    of_one = [box for box in boxes if (box.height, box.width) == (192, 192)]
    places = Counter((box.top // 16, box.left // 37) for box in of_one)
    corners = {(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)}
    more = {(0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3)}
    assert set(places) == (corners if positions == 5 else corners | more)
    expected = len(of_one) / positions
    assert all(abs(count - expected) < 6 * expected**0.5 for count in places.values())


def test_training_pictures_are_crops_of_the_resized_frame() -> None:
    """With the whole square as crop, nothing random is left."""
    frame = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    whole = AreaCrop(scale=(1, 1), ratio=(1, 1))
    rng = np.random.default_rng(1)
    plain = FinetuneTransform(size=40, resize=40, crop=whole, flip_p=0)([frame], rng)
    assert torch.equal(plain, EvalTransform(size=40, resize=40)([frame], rng))
    flipped = FinetuneTransform(size=40, resize=40, crop=whole, flip_p=1)([frame], rng)
    assert torch.equal(flipped, plain.flip(-1))


def test_resizing_first_bounds_what_a_crop_resolves() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    sharp, coarse = (
        FinetuneTransform(size=32, resize=resize, crop=AreaCrop(scale=(0.1, 0.1)))(
            [frame], np.random.default_rng(3)
        )
        for resize in (None, 24)
    )
    assert sharp.float().std() > 2 * coarse.float().std()


@settings(deadline=None)
@given(height=st.integers(8, 60), width=st.integers(8, 60))
def test_views_lie_within_the_frame(height: int, width: int) -> None:
    size = min(height, width) - height % 4
    for crops, count in (("center", 1), ("three", 3), ("ten", 5)):
        boxes = view_boxes(height, width, size, crops=crops)
        assert len(boxes) == count
        for box in boxes:
            assert 0 <= box.top <= height - size
            assert 0 <= box.left <= width - size
            assert (box.height, box.width) == (size, size)


def test_ten_views_are_five_and_their_mirror_images() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    views = ViewsTransform(size=32, resize=40, crops="ten")([frame, frame])
    pixels = torch.from_numpy(frame).permute(2, 0, 1)
    assert views.shape == (10, 3, 2, 32, 32)
    assert torch.equal(views[5:], views[:5].flip(-1))
    places = [(0, 0), (0, 28), (8, 0), (8, 28), (4, 14)]
    for view, (top, left) in zip(views, places, strict=False):
        assert torch.equal(view[:, 0], pixels[:, top : top + 32, left : left + 32])
        assert torch.equal(view[:, 0], view[:, 1])


def test_three_views_go_along_the_longer_edge() -> None:
    wide, tall = view_boxes(256, 340, 256, crops="three"), view_boxes(340, 256, 256, crops="three")
    assert [(box.top, box.left) for box in wide] == [(0, 0), (0, 42), (0, 84)]
    assert [(box.top, box.left) for box in tall] == [(0, 0), (42, 0), (84, 0)]


def test_one_view_is_what_evaluation_crops() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    view = ViewsTransform(size=32, resize=40)([frame])[0]
    assert torch.equal(view, EvalTransform(size=32, resize=40)([frame], np.random.default_rng(0)))


def test_mistakes() -> None:
    with pytest.raises(UserError, match="crops='five' is unknown; take center, three, ten"):
        ViewsTransform(crops="five")
    with pytest.raises(UserError, match="resize=200 is too small"):
        ViewsTransform(size=224, resize=200)
    with pytest.raises(UserError, match="positions=7"):
        MultiScaleCrop(positions=7)
    with pytest.raises(UserError, match="scales of MultiScaleCrop is empty"):
        MultiScaleCrop(scales=())
    with pytest.raises(UserError, match="flip_p"):
        FinetuneTransform(flip_p=2)
    with pytest.raises(UserError, match="scale"):
        AreaCrop(scale=(0, 1))
