"""Augmentations made of steps, against torchvision's and PIL's operations, and their laws."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from scipy.ndimage import correlate1d
from torchvision.transforms import functional as tv

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.transforms import (
    AreaCrop,
    Blur,
    Compose,
    FixedCrop,
    Flip,
    Gray,
    Jitter,
    PairTransform,
    PretrainTransform,
    Resize,
    Solarize,
    UniformAspectCrop,
)
from vclr_lightning.data.transforms.augmentation import sample_jitter
from vclr_lightning.data.transforms.clip_steps import Frames, as_frames, as_planes

Picture = NDArray[np.uint8]
REFERENCE = Path(__file__).parents[2] / "reference" / "g15_clip_nce.json"
FIGURES = json.loads(REFERENCE.read_text())["pair_augmentation"]
NONE: dict[str, Any] = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _error(one: NDArray[Any], other: NDArray[Any]) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def _clip(photo: Picture, frames: int) -> list[Picture]:
    """Frames that all differ, also in brightness and colour."""
    moved = (np.roll(photo, (17 * t, t % 3), (0, 2)) for t in range(frames))
    return [(frame // (1 + t)).astype(np.uint8) for t, frame in enumerate(moved)]


def _changed(step: Any, clip: Any, seed: int = 0) -> list[Picture]:
    return list(as_frames(step(clip, _rng(seed))))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(128, 171), (64, 64), (512, 400)])
def test_resizing_agrees_with_pil(photo: Picture, interpolation: Any, size: Any) -> None:
    resize = Resize(size=size, interpolation=interpolation)
    ours = resize([photo], _rng())[0]
    method = getattr(Image.Resampling, interpolation.upper())
    theirs = np.asarray(Image.fromarray(photo).resize(size[::-1], method))
    assert ours.shape == (*size, 3)
    if interpolation == "nearest":
        assert np.array_equal(ours, theirs)
    else:
        assert _error(ours, theirs) < 0.1


def test_resizing_without_antialiasing_agrees_with_opencv(photo: Picture) -> None:
    ours = Resize(size=(64, 91), antialias=False)([photo], _rng())[0]
    assert _error(ours, cv2.resize(photo, (91, 64))) < 0.5
    assert _error(ours, Resize(size=(64, 91))([photo], _rng())[0]) > 2


def test_a_crop_is_a_part_of_all_frames(photo: Picture) -> None:
    frames = _clip(photo, 3)
    cut = Resize(size=112, crop=FixedCrop(size=112))(frames, _rng(3))
    box = FixedCrop(size=112)(*photo.shape[:2], _rng(3))
    for one, frame in zip(cut, frames, strict=True):
        expected = frame[box.top : box.top + 112, box.left : box.left + 112]
        assert np.array_equal(one, expected)


def test_places_of_a_fixed_crop_are_equally_likely() -> None:
    crop, rng = FixedCrop(size=4), _rng()
    seen = Counter((b.top, b.left) for b in (crop(6, 7, rng) for _ in range(6000)))
    assert len(seen) == 3 * 4
    assert stats.chisquare(list(seen.values())).pvalue > 1e-4
    assert (crop(3, 9, rng).height, crop(3, 9, rng).width) == (3, 4)


def test_the_law_of_boxes_with_uniform_aspect_ratio() -> None:
    """Area and ratio are uniform and the ratio swapped, in large frames where every box fits."""
    crop, rng = UniformAspectCrop(scale=(0.1, 0.3), ratio=(1, 3), tries=1), _rng()
    boxes = [crop(2000, 2000, rng) for _ in range(8000)]
    areas = [box.height * box.width / 2000**2 for box in boxes]
    assert stats.kstest(areas, stats.uniform(0.1, 0.2).cdf).pvalue > 1e-4
    ratios = np.array([box.width / box.height for box in boxes])

    def swapped(x: NDArray[np.float64]) -> NDArray[np.float64]:
        plain, inverse = stats.uniform(1, 2).cdf(x), stats.uniform(1, 2).sf(1 / x)
        return (plain + inverse) / 2

    assert stats.kstest(ratios, swapped).pvalue > 1e-4
    assert stats.kstest(ratios, stats.uniform(1, 2).cdf).pvalue < 1e-4
    logs = stats.uniform(-np.log(3), 2 * np.log(3)).cdf
    assert stats.kstest(np.log(ratios), logs).pvalue < 1e-4


def test_a_box_drawn_once_is_often_the_whole_frame() -> None:
    """29 % of CoCLR's draws do not fit into 320 x 240."""
    crop, rng = UniformAspectCrop(scale=(0.2, 1), tries=1, fallback="whole"), _rng()
    boxes = [crop(240, 320, rng) for _ in range(8000)]
    share = np.mean([(box.height, box.width) == (240, 320) for box in boxes])
    assert abs(share - 0.294) < 0.02
    central = UniformAspectCrop(scale=(1, 1), ratio=(3, 4), fallback="center")(240, 320, rng)
    assert (central.top, central.left, central.height, central.width) == (0, 40, 240, 240)
    again = UniformAspectCrop(scale=(0.2, 1), tries=10, fallback="whole")
    retried = [again(240, 320, rng) for _ in range(1000)]
    assert np.mean([(box.height, box.width) == (240, 320) for box in retried]) < 0.01


def test_jitter_is_torchvisions(photo: Picture) -> None:
    jitter = Jitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, p=1)
    for seed in range(6):
        frames = _clip(photo, 2)
        ours = _changed(jitter, frames, seed)
        drawn = sample_jitter(_rng(seed), brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
        for frame, one in zip(frames, ours, strict=True):
            image = Image.fromarray(frame)
            for op, amount in drawn:
                image = getattr(tv, f"adjust_{op}")(image, amount)
            assert _error(one, np.asarray(image)) < 1


def test_jitter_of_each_frame_is_drawn_anew(photo: Picture) -> None:
    frames = [photo] * 40
    shared = _changed(Jitter(p=1), frames)
    assert all(np.array_equal(shared[0], frame) for frame in shared)
    apart = _changed(Jitter(p=0.8, per_frame=True), frames, 1)
    kept = sum(np.array_equal(photo, frame) for frame in apart)
    assert 1 <= kept <= 18  # 8 expected
    assert len({frame.tobytes() for frame in apart}) == 40 - kept + 1


def test_contrast_around_the_mean_of_the_clip(photo: Picture) -> None:
    frames = _clip(photo, 3)
    only = Jitter(**{**NONE, "contrast": 0.8}, p=1, center="channels")
    ours = np.stack(_changed(only, frames, 8))
    [(_, factor)] = sample_jitter(_rng(8), **{**NONE, "contrast": 0.8})
    mean = np.stack(frames).astype(float).mean((0, 1, 2))
    expected = np.clip((np.stack(frames) - mean) * factor + mean, 0, 255)
    assert _error(ours, expected) < 0.8
    by_frame = np.stack(_changed(Jitter(**{**NONE, "contrast": 0.8}, p=1), frames, 8))
    assert _error(by_frame, expected) > 1


def test_blue_first_takes_blue_for_red(photo: Picture) -> None:
    only: dict[str, Any] = {**NONE, "saturation": 0.8, "p": 1}
    ours = _changed(Jitter(**only, blue_first=True), [photo], 2)[0]
    swapped = _changed(Jitter(**only), [np.ascontiguousarray(photo[..., ::-1])], 2)[0]
    assert np.array_equal(ours, swapped[..., ::-1])
    assert not np.array_equal(ours, _changed(Jitter(**only), [photo], 2)[0])


def test_a_channel_as_grey(photo: Picture) -> None:
    """The decision is the clip's or each frame's, the channel always each frame's."""
    frames = [photo] * 60
    channel = [np.repeat(photo[..., c : c + 1], 3, 2) for c in range(3)]

    def kinds(gray: Gray, seed: int = 0) -> Counter[int]:
        """Count the frames that show each channel; -1: in colour."""
        return Counter(
            next((c for c in range(3) if np.array_equal(frame, channel[c])), -1)
            for frame in _changed(gray, frames, seed)
        )

    every = kinds(Gray(p=1, kind="channel"))
    assert set(every) == {0, 1, 2}
    assert stats.chisquare(list(every.values())).pvalue > 1e-4
    together = [kinds(Gray(p=0.5, kind="channel"), seed) for seed in range(12)]
    assert {seen[-1] for seen in together} == {0, 60}
    apart = kinds(Gray(p=0.25, kind="channel", per_frame=True))
    assert 25 <= apart[-1] <= 57  # 45 expected


def test_grey_by_luma_is_torchvisions(photo: Picture) -> None:
    gray = _changed(Gray(p=1), [photo])[0]
    theirs = np.asarray(tv.rgb_to_grayscale(Image.fromarray(photo), num_output_channels=3))
    assert _error(gray, theirs) < 0.5


def test_blur_is_pils_or_a_sampled_gaussian(photo: Picture) -> None:
    size = Resize(size=64)
    small = size([photo], _rng())[0]
    pil = PretrainTransform(
        size=64, scale=(1, 1), ratio=(340 / 256,) * 2, jitter_p=0, gray_p=0, flip_p=0, blur_p=1
    )
    sigma = 0.1 + 1.9 * _rng(1).random(2)[1]
    fixed = (sigma, sigma + 1e-9)
    one = Compose(size=64, steps=[size, Blur(p=1, sigma=fixed)])([photo], _rng(1))
    other = PretrainTransform(
        **{**vars(pil), "blur_sigma": fixed}  # the same, with one strength
    )([photo], _rng(1))
    assert torch.equal(one, other)

    at = np.arange(-11, 12)
    taps = np.exp(-(at**2) / (2 * sigma**2))
    expected = small.astype(float)
    for axis in (0, 1):
        expected = correlate1d(expected, taps / taps.sum(), axis, mode="constant")
    blurred = _changed(Blur(p=1, sigma=(0.1, 2.0), radius=11), [small], 1)[0]
    assert _error(blurred, expected) < 0.3
    assert blurred[0].mean() < _changed(Blur(p=1, sigma=fixed), [small])[0][0].mean()


def test_solarize_and_flip(photo: Picture) -> None:
    inverted = _changed(Solarize(p=1), [photo])[0]
    assert np.array_equal(inverted, np.asarray(tv.solarize(Image.fromarray(photo), 128)))
    for clip in ([photo], as_planes([photo])):
        assert np.array_equal(_changed(Flip(p=1), clip)[0], photo[:, ::-1])


@pytest.mark.parametrize(
    "step", [Flip(p=0.3), Jitter(p=0.3), Gray(p=0.3), Blur(p=0.3), Solarize(p=0.3)]
)
def test_probabilities(step: Any) -> None:
    rng = _rng()
    frames = [rng.integers(0, 256, (6, 5, 3), np.uint8)]
    changed = sum(
        not np.array_equal(as_frames(step(frames, rng))[0], frames[0]) for _ in range(2000)
    )
    assert abs(changed / 2000 - 0.3) < 0.04


def test_the_steps_make_pretraining_views(photo: Picture) -> None:
    """What MoCo v2's recipe draws, made of steps, has its law: means of many views agree."""
    steps = [Resize(size=32, crop=AreaCrop(scale=(0.2, 1))), Flip(), Jitter(), Gray(), Blur()]
    means = []
    for transform in (Compose(size=32, steps=steps), PretrainTransform(size=32)):
        rng = _rng()
        views = torch.stack([transform([photo], rng) for _ in range(400)]).float()
        means.append(torch.stack([views.mean((1, 2, 3, 4)), views.std((1, 2, 3, 4))]).numpy())
    for ours, theirs in zip(*means, strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


def test_steps_may_have_names(photo: Picture) -> None:
    steps = {"resize": Resize(size=32), "jitter": Jitter(p=1), "flip": None, "gray": Gray(p=1)}
    named = Compose(size=32, steps=steps)
    listed = Compose(size=32, steps=[Resize(size=32), Jitter(p=1), Gray(p=1)])
    assert named == listed
    assert torch.equal(named([photo], _rng()), listed([photo], _rng()))


def _marked(clip: Frames, rng: np.random.Generator) -> list[Picture]:
    return [np.where(frame == 7, 107, frame + 100).astype(np.uint8) for frame in clip]


def test_pairs_of_coclr() -> None:
    """24.5 % of pairs are null/null, 35.5 % base/null or null/base, 4.5 % base/base."""
    plain = Resize(size=2)
    pair = PairTransform(
        strong=Compose(size=2, steps=[plain, _marked]), weak=Compose(size=2, steps=[plain])
    )
    assert pair.size == 2
    clips = [np.full((2, 2, 3), value, np.uint8) for value in (1, 1, 1, 2, 2, 2)]
    seen: Counter[tuple[bool, int, bool, int]] = Counter()
    rng = _rng()
    for _ in range(8000):
        made = pair(clips, rng)
        assert made.shape == (3, 6, 2, 2)
        query, key = (int(x) for x in (made[0, 0, 0, 0], made[0, 3, 0, 0]))
        assert (made[:, :3] == query).all()
        assert (made[:, 3:] == key).all()
        seen[query > 100, query % 100, key > 100, key % 100] += 1
    one = {(q, c, not q, c): 1 / 8 for q in (True, False) for c in (1, 2)}
    chance = {True: 0.3, False: 0.7}
    two = {(q, 1, k, 2): chance[q] * chance[k] / 2 for q in chance for k in chance}
    expected = one | two
    assert set(seen) == set(expected)
    recorded = {  # of the authors' code: query, key, the query's clip from 0
        (q == "base", int(which) + 1, k == "base", int(which) + 1 if kind == "same" else 2): share
        for kind, q, k, which, share in (
            (*name.split(), share) for name, share in FIGURES["fraction"].items()
        )
    }
    assert recorded == pytest.approx(expected, abs=0.004)  # of 200000 pairs
    counts = [seen[key] for key in expected]
    assert stats.chisquare(counts, [8000 * p for p in expected.values()]).pvalue > 1e-4


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Compose(size=4, steps=[]), "steps of Compose"),
        (lambda: Compose(size=0, steps=[Flip()]), "size=0"),
        (lambda: Resize(size="large"), "size="),
        (lambda: Resize(size=8, interpolation="cubic"), "interpolation='cubic'"),
        (lambda: UniformAspectCrop(fallback="none"), "fallback='none'"),
        (lambda: UniformAspectCrop(tries=0), "tries=0"),
        (lambda: FixedCrop(size=0), "size=0"),
        (lambda: Jitter(center="mean"), "center='mean'"),
        (lambda: Jitter(hue=0.7), "hue=0.7"),
        (lambda: Gray(kind="red"), "kind='red'"),
        (lambda: Blur(sigma=(0, 1)), "sigma"),
        (lambda: Blur(radius=0), "radius=0"),
        (lambda: Solarize(threshold=-1), "threshold=-1"),
        (lambda: Flip(p=1.5), "p=1.5"),
        (
            lambda: PairTransform(
                strong=PretrainTransform(size=8), weak=PretrainTransform(), one_clip_p=2
            ),
            "one_clip_p=2",
        ),
        (
            lambda: PairTransform(strong=PretrainTransform(size=8), weak=PretrainTransform()),
            "strong and weak",
        ),
    ],
)
def test_mistakes(make: Any, named: str) -> None:
    with pytest.raises(UserError, match=f"^{named}.*; (give|take) |^{named}.*give "):
        make()


def test_clips_that_do_not_fit(photo: Picture) -> None:
    with pytest.raises(UserError, match="leave frames of 256 x 340 pixels, but size=64"):
        Compose(size=64, steps=[Flip()])([photo], _rng())
    whole = PretrainTransform(size=8)
    with pytest.raises(UserError, match="there are 3 frames; give the views"):
        PairTransform(strong=whole, weak=whole)([photo] * 3, _rng())


def test_steps_leave_frames_alone_and_pickle(photo: Picture) -> None:
    before = photo.copy()
    photo.flags.writeable = False
    steps = [Jitter(p=1), Resize(size=32), Gray(p=1, kind="channel"), Solarize(p=1), Blur(p=1)]
    transform = Compose(size=32, steps=[Flip(p=1), *steps])
    made = pickle.loads(pickle.dumps(transform))([photo, photo[::-1]], _rng(1))
    assert torch.equal(made, transform([photo, photo[::-1]], _rng(1)))
    assert np.array_equal(photo, before)
    planes = as_planes([photo])
    kept = planes.copy()
    for step in (*steps, Flip(p=1), Jitter(p=1, center="channels", per_frame=True)):
        step(planes, _rng())
        assert np.array_equal(planes, kept)


def test_a_shaken_box_moves_in_every_frame_and_stays_inside() -> None:
    ramp = np.arange(100, dtype=np.uint8)
    frame = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(0)), axis=2)
    corner = FixedCrop(size=100)
    for crop, seen in ((FixedCrop(size=80), range(21)), (corner, range(1))):
        step = Resize(size=crop.size, crop=crop, shake=5)
        tops = Counter()
        for seed in range(300):
            clip = as_frames(step([frame] * 4, _rng(seed)))
            corners = np.array([picture[0, 0, :2] for picture in clip])
            assert np.ptp(corners, axis=0).max() <= 10
            tops.update(corners.ravel().tolist())
        assert set(tops) == set(seen)
    still = Resize(size=80, crop=FixedCrop(size=80))
    assert all(
        (picture == pictures[0]).all()
        for pictures in [still([frame] * 4, _rng())]
        for picture in pictures
    )
    with pytest.raises(UserError, match="shake"):
        Resize(size=80, shake=-1)
