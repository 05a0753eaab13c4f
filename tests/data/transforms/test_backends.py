"""Who augments does not matter: the same draws, the same pictures; and what is refused."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import ClipTransform, SplitTransform
from vclr_lightning.data.transforms import (
    EvalTransform,
    FinetuneTransform,
    PretrainTransform,
    augment_batch,
    batched,
)
from vclr_lightning.data.transforms.backends import choose, is_split

Picture = NDArray[np.uint8]


def _clips(count: int, frames: int, height: int, width: int) -> list[list[Picture]]:
    pixels = np.random.default_rng(0).integers(
        0, 256, (count, frames, height, width, 3), dtype=np.uint8
    )
    return [list(clip) for clip in pixels]


def _on_device(transform: SplitTransform, clips: list[list[Picture]], seed: int) -> torch.Tensor:
    begun = [transform.begin(c, np.random.default_rng((seed, i))) for i, c in enumerate(clips)]
    rows = torch.from_numpy(np.stack([row for _, row in begun]))
    return transform.finish(torch.stack([clip for clip, _ in begun]), rows)


def _in_worker(transform: ClipTransform, clips: list[list[Picture]], seed: int) -> torch.Tensor:
    return torch.stack(
        [transform(clip, np.random.default_rng((seed, i))) for i, clip in enumerate(clips)]
    )


@settings(deadline=None, max_examples=40)
@given(
    options=st.fixed_dictionaries(
        {
            "size": st.integers(1, 24),
            "brightness": st.floats(0, 10),
            "contrast": st.floats(0, 10),
            "saturation": st.floats(0, 10),
            "hue": st.floats(0, 0.5),
            "jitter_p": st.sampled_from([0, 0.5, 1]),
            "gray_p": st.sampled_from([0, 0.5, 1]),
            "blur_p": st.sampled_from([0, 0.5, 1]),
            "blur_sigma": st.sampled_from([(0.1, 2.0), (0.01, 0.02), (3.0, 9.0)]),
            "flip_p": st.sampled_from([0, 0.5, 1]),
        }
    ),
    frames=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_the_device_gives_what_the_worker_gives(
    options: dict[str, Any], frames: int, seed: int
) -> None:
    transform = PretrainTransform(**options)
    clips = _clips(6, frames, 20, 27)
    assert torch.equal(_on_device(transform, clips, seed), _in_worker(transform, clips, seed))


def test_the_device_gives_what_the_worker_gives_on_photos(photo: Picture) -> None:
    transform = PretrainTransform(size=96)
    clips = [[photo, photo[::-1]]] * 40
    assert torch.equal(_on_device(transform, clips, 0), _in_worker(transform, clips, 0))


def test_large_batches_are_finished_in_parts(
    photo: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    transform, clips = PretrainTransform(size=16), [[photo]] * 11
    at_once = _on_device(transform, clips, 3)
    monkeypatch.setattr(batched, "_AT_ONCE", 3 * 3 * 16 * 16)
    assert torch.equal(_on_device(transform, clips, 3), at_once)


def test_finishing_leaves_its_argument_and_takes_any_layout(photo: Picture) -> None:
    transform = PretrainTransform(size=16, jitter_p=1, blur_p=1)
    begun = [transform.begin([photo, photo], np.random.default_rng(i)) for i in range(5)]
    clips = torch.stack([clip for clip, _ in begun]).permute(0, 4, 1, 2, 3).contiguous()
    rows = torch.from_numpy(np.stack([row for _, row in begun]))
    before = clips.clone()
    finished = augment_batch(clips, rows)
    assert torch.equal(clips, before)
    last = clips.contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(augment_batch(last, rows), finished)
    assert augment_batch(clips[:0], rows[:0]).shape == (0, 3, 2, 16, 16)


def test_all_take_the_same_numbers_from_the_generator(photo: Picture) -> None:
    states = []
    for run in (
        PretrainTransform(size=16),
        PretrainTransform(size=16, backend="opencv"),
        PretrainTransform(size=16).begin,
    ):
        rng = np.random.default_rng(2)
        for _ in range(5):
            run([photo], rng)
        states.append(rng.random())
    assert len(set(states)) == 1


@pytest.mark.parametrize("height", [100, 256])
def test_opencv_gives_the_same_pictures(photo: Picture, height: int, mean_error: Any) -> None:
    frame = np.ascontiguousarray(photo[:height])
    for seed in range(20):
        ours, other = (
            PretrainTransform(size=112, jitter_p=1, backend=backend)(
                [frame], np.random.default_rng(seed)
            )
            for backend in ("torch", "opencv")
        )
        assert mean_error(ours.numpy(), other.numpy()) <= 1


def test_opencv_has_no_threads_of_its_own() -> None:
    PretrainTransform(backend="opencv")
    assert cv2.getNumThreads() == 1


def test_a_transform_is_chosen() -> None:
    plain = PretrainTransform(size=64)
    assert choose(plain, None) is plain
    assert choose(plain, "torch") == plain
    assert choose(plain, "opencv") == PretrainTransform(size=64, backend="opencv")
    assert choose(plain, "device") is plain
    assert choose(PretrainTransform(backend="opencv"), "torch") == PretrainTransform()
    own = EvalTransform(size=64, resize=64)
    assert choose(own, "torch") is own
    assert is_split(plain)
    assert not is_split(own)


@pytest.mark.parametrize(
    ("transform", "augment", "message"),
    [
        (PretrainTransform(), "gpu", "augment='gpu' is unknown; take torch, opencv, device"),
        (FinetuneTransform(), "device", "'device' is not for FinetuneTransform, which only torch"),
        (FinetuneTransform(), "opencv", "'opencv' is not for FinetuneTransform"),
        (EvalTransform(), "opencv", "'opencv' is not for EvalTransform, .*; take 'torch'"),
    ],
)
def test_what_cannot_be_is_refused(transform: ClipTransform, augment: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose(transform, augment)


def test_without_opencv_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "vclr_lightning.data.transforms.opencv"
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(UserError, match=r"pip install 'vclr_lightning\[opencv\]'"):
        PretrainTransform(backend="opencv")
    monkeypatch.undo()
    importlib.import_module(name)


class Own(PretrainTransform):
    """With an argument of its own, beside all of its base."""

    def __init__(self, *, tint: int = 0, **given: Any) -> None:
        super().__init__(**given)
        self.__dict__["tint"] = tint


@pytest.mark.parametrize("augment", ["torch", "opencv", "device"])
def test_a_subclass_keeps_what_is_its_own(augment: str) -> None:
    own = Own(tint=7, size=32)
    chosen: Any = choose(own, augment)
    assert (type(chosen), chosen.tint, chosen.size) == (Own, 7, 32)
    assert chosen.backend == ("opencv" if augment == "opencv" else "torch")
    assert own.backend == "torch"


def test_a_call_of_one_s_own_is_not_left_to_the_device() -> None:
    class Inverted(PretrainTransform):
        def __call__(self, clip: Any, rng: np.random.Generator) -> torch.Tensor:
            return 255 - super().__call__(clip, rng)

    assert is_split(PretrainTransform())
    assert not is_split(Inverted())
    with pytest.raises(UserError, match="not for Inverted"):
        choose(Inverted(), "device")
