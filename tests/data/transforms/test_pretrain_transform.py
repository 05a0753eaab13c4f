"""The whole augmentation: agreement with PIL, one draw per clip, worker processes, bad values."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import ClipTransform, VideoError
from vclr_lightning.data.transforms import (
    Augmentation,
    Box,
    PretrainTransform,
    augment,
    augment_batch,
    opencv,
)
from vclr_lightning.data.transforms.backends import Backend
from vclr_lightning.data.transforms.batched import columns, pack

Picture = NDArray[np.uint8]
PilAugment = Callable[[Picture, Augmentation, int], Picture]
MeanError = Callable[[Picture, Picture], float]


def _on_device(clip: Sequence[Picture], augmentation: Augmentation, size: int) -> torch.Tensor:
    """What a worker begins and a device, here the CPU, finishes."""
    row = torch.from_numpy(pack(augmentation, columns(2.0)))
    return augment_batch(augment(clip, Augmentation(augmentation.crop), size)[None], row[None])[0]


WAYS = {"torch": augment, "opencv": opencv.augment, "device": _on_device}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Who augments."""
    return str(request.param)


def _ours(way: str, frame: Picture, augmentation: Augmentation, size: int) -> Picture:
    return WAYS[way]([frame], augmentation, size)[:, 0].permute(1, 2, 0).numpy()


def _draws(frame: Picture, count: int, **options: Any) -> list[Augmentation]:
    transform, rng = PretrainTransform(**options), np.random.default_rng(0)
    return [transform.sample(frame.shape[0], frame.shape[1], rng) for _ in range(count)]


@pytest.mark.parametrize("size", [64, 97, 224])
def test_the_chain_agrees_with_pil(
    way: str, photo: Picture, size: int, pil_augment: PilAugment, mean_error: MeanError
) -> None:
    errors = [
        mean_error(_ours(way, photo, drawn, size), pil_augment(photo, drawn, size))
        for drawn in _draws(photo, 40)
    ]
    assert max(errors) <= 1
    assert np.mean(errors) <= 0.5


@pytest.mark.parametrize(("blur_p", "bound"), [(0, 1), (1, 2)])
def test_the_chain_agrees_with_pil_on_every_picture(
    way: str,
    picture: Picture,
    blur_p: float,
    bound: float,
    pil_augment: PilAugment,
    mean_error: MeanError,
) -> None:
    errors = [
        mean_error(_ours(way, picture, drawn, 64), pil_augment(picture, drawn, 64))
        for drawn in _draws(picture, 40, jitter_p=1, blur_p=blur_p)
    ]
    assert max(errors) <= bound
    assert np.mean(errors) <= 0.6


def test_the_chain_agrees_with_pil_on_real_frames(
    way: str, real_frames: list[Picture], pil_augment: PilAugment, mean_error: MeanError
) -> None:
    for frame in real_frames:
        for drawn in _draws(frame, 12, jitter_p=1):
            assert mean_error(_ours(way, frame, drawn, 112), pil_augment(frame, drawn, 112)) <= 1


def test_the_order_of_colour_operations_counts(way: str, photo: Picture) -> None:
    box = Box(0, 0, 256, 340)
    steps = (("brightness", 1.4), ("contrast", 0.6))
    one = _ours(way, photo, Augmentation(box, jitter=steps), 64)
    other = _ours(way, photo, Augmentation(box, jitter=steps[::-1]), 64)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("backend", ["torch", "opencv"])
def test_all_frames_of_a_clip_get_the_same(backend: Backend, photo: Picture) -> None:
    transform = PretrainTransform(size=48, backend=backend)
    other = np.ascontiguousarray(photo[::-1])
    clip = transform([photo, other, photo], np.random.default_rng(3))
    assert clip.shape == (3, 3, 48, 48)
    assert clip.dtype == torch.uint8
    assert torch.equal(clip[:, 0], clip[:, 2])
    drawn = transform.sample(*photo.shape[:2], np.random.default_rng(3))
    assert torch.equal(clip[:, 1:2], WAYS[backend]([other], drawn, 48))


@pytest.mark.parametrize("backend", ["torch", "opencv"])
def test_frames_are_not_written_to(backend: Backend, photo: Picture) -> None:
    before = photo.copy()
    transform = PretrainTransform(size=48, jitter_p=1, blur_p=1, backend=backend)
    transform([photo], np.random.default_rng(0))
    whole = Augmentation(Box(0, 0, 256, 256), jitter=(("hue", 0.05), ("contrast", 1.2)))
    WAYS[backend]([photo], whole, 256)
    assert np.array_equal(photo, before)


def test_the_draw_depends_on_the_generator_alone(photo: Picture) -> None:
    one, other = PretrainTransform(size=32), PretrainTransform(size=32)
    torch.manual_seed(0)
    first = one([photo], np.random.default_rng(5))
    torch.manual_seed(1)
    assert torch.equal(first, other([photo], np.random.default_rng(5)))
    assert not torch.equal(first, one([photo], np.random.default_rng(6)))


def test_nothing_but_the_crop_is_left_at_chance_0(photo: Picture) -> None:
    off = PretrainTransform(
        size=256, scale=(1, 1), ratio=(340 / 256,) * 2, jitter_p=0, gray_p=0, blur_p=0, flip_p=0
    )
    drawn = off.sample(256, 340, np.random.default_rng(0))
    assert drawn == Augmentation(Box(0, 0, 256, 340))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("backend", ["torch", "opencv"])
def test_worker_processes_give_the_same(method: str, backend: Backend, photo: Picture) -> None:
    transform = PretrainTransform(size=32, jitter_p=1, blur_p=1, backend=backend)
    with multiprocessing.get_context(method).Pool(1) as pool:
        theirs = pool.apply(transform, ([photo], np.random.default_rng(8)))
        assert torch.equal(theirs, transform([photo], np.random.default_rng(8)))


def test_it_pickles_and_fits_the_protocol() -> None:
    transform = PretrainTransform(size=96, scale=[0.5, 1])  # type: ignore[arg-type]
    copied = pickle.loads(pickle.dumps(transform))
    assert copied == transform
    assert copied.scale == (0.5, 1.0)
    fits: ClipTransform = transform
    assert fits.size == 96


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": 0}, "size=0"),
        ({"size": 22.5}, "size=22.5"),
        ({"scale": (0, 1)}, "scale"),
        ({"scale": (0.8, 0.2)}, "scale"),
        ({"scale": (0.2, 1.1)}, "scale"),
        ({"scale": 0.2}, "scale"),
        ({"ratio": (0.75,)}, "ratio"),
        ({"ratio": (1, float("inf"))}, "ratio"),
        ({"brightness": -0.1}, "brightness"),
        ({"contrast": float("nan")}, "contrast"),
        ({"saturation": "0.4"}, "saturation"),
        ({"hue": 0.6}, "hue"),
        ({"jitter_p": 1.2}, "jitter_p"),
        ({"gray_p": -0.2}, "gray_p"),
        ({"blur_p": None}, "blur_p"),
        ({"blur_sigma": (0, 2)}, "blur_sigma"),
        ({"blur_sigma": "ab"}, "blur_sigma"),
        ({"flip_p": True}, "flip_p"),
        ({"backend": "pil"}, "backend='pil'"),
    ],
)
def test_a_wrong_value_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=f"^{named}.*; (give|take) "):
        PretrainTransform(**options)


@pytest.mark.parametrize(
    "clip",
    [
        [],
        [np.zeros((4, 4), np.uint8)],
        [np.zeros((4, 4, 3), np.float32)],
        [np.zeros((0, 4, 3), "u1")],
    ],
)
def test_what_is_no_clip_is_refused(clip: Sequence[Any]) -> None:
    with pytest.raises(UserError, match="; give "):
        PretrainTransform()(clip, np.random.default_rng(0))


def test_a_video_that_changes_size_cannot_be_used() -> None:
    clip = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)]
    with pytest.raises(VideoError, match="frame size changes"):
        PretrainTransform()(clip, np.random.default_rng(0))
