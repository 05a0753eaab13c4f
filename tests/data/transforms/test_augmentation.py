"""The law of the parameters is that of torchvision's transforms."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torchvision import transforms as tv

from vclr_lightning.data.transforms import PretrainTransform
from vclr_lightning.data.transforms.augmentation import sample_crop, sample_jitter

OPS = ("brightness", "contrast", "saturation", "hue")
STRENGTHS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
DRAWS = 4000
# Seeds are fixed, so the tests cannot fail by chance; a wrong law gives far less than this.
ALPHA = 1e-3


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (256, 340, (0.2, 1.0), (3 / 4, 4 / 3)),
        (340, 256, (0.08, 1.0), (3 / 4, 4 / 3)),
        (64, 64, (0.5, 0.6), (1.0, 1.0)),
        (40, 400, (0.2, 1.0), (3 / 4, 4 / 3)),  # most draws do not fit
    ],
)
def test_crops_have_torchvisions_law(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> None:
    torch.manual_seed(11)
    image = Image.new("RGB", (width, height))
    theirs = [
        tv.RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(DRAWS)
    ]
    rng = np.random.default_rng(12)
    boxes = [sample_crop(height, width, rng, scale=scale, ratio=ratio) for _ in range(DRAWS)]
    ours = [(box.top, box.left, box.height, box.width) for box in boxes]
    for a, b in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        assert stats.ks_2samp(a, b).pvalue > ALPHA
    shapes = [[w / h for *_, h, w in draws] for draws in (ours, theirs)]
    assert stats.ks_2samp(*shapes).pvalue > ALPHA
    areas = [[w * h for *_, h, w in draws] for draws in (ours, theirs)]
    assert stats.ks_2samp(*areas).pvalue > ALPHA


@settings(deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(0, 2**32),
    st.floats(1e-4, 1),
    st.floats(1e-4, 1),
    st.floats(0.1, 10),
    st.floats(0.1, 10),
)
def test_a_crop_lies_in_the_frame(
    height: int, width: int, seed: int, s0: float, s1: float, r0: float, r1: float
) -> None:
    scale, ratio = (min(s0, s1), max(s0, s1)), (min(r0, r1), max(r0, r1))
    box = sample_crop(height, width, np.random.default_rng(seed), scale=scale, ratio=ratio)
    assert box.height > 0
    assert box.width > 0
    assert 0 <= box.top <= height - box.height
    assert 0 <= box.left <= width - box.width


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (1, 9), (9, 1)])
def test_where_no_crop_fits_the_middle_is_taken(height: int, width: int) -> None:
    ratio = (3 / 4, 4 / 3)
    image = Image.new("RGB", (width, height))
    theirs = tv.RandomResizedCrop.get_params(image, [1.0, 1.0], list(ratio))
    box = sample_crop(height, width, np.random.default_rng(0), scale=(1.0, 1.0), ratio=ratio)
    assert (box.top, box.left, box.height, box.width) == theirs


def test_jitter_has_torchvisions_law() -> None:
    torch.manual_seed(3)
    bounds = ([0.6, 1.4], [0.6, 1.4], [0.6, 1.4], [-0.1, 0.1])
    theirs = [tv.ColorJitter.get_params(*bounds) for _ in range(DRAWS)]
    rng = np.random.default_rng(4)
    ours = [sample_jitter(rng, **STRENGTHS) for _ in range(DRAWS)]
    for i, op in enumerate(OPS):
        pvalue = stats.ks_2samp([dict(j)[op] for j in ours], [t[1 + i] for t in theirs]).pvalue
        assert pvalue > ALPHA
    orders = list(permutations(range(4)))
    our_orders = Counter(tuple(OPS.index(op) for op, _ in jitter) for jitter in ours)
    their_orders = Counter(tuple(t[0].tolist()) for t in theirs)
    table = [[count[order] for order in orders] for count in (our_orders, their_orders)]
    assert stats.chi2_contingency(table).pvalue > ALPHA
    assert stats.chisquare(table[0]).pvalue > ALPHA


def test_jitter_is_independent_of_its_order() -> None:
    rng = np.random.default_rng(5)
    draws = [sample_jitter(rng, **STRENGTHS) for _ in range(DRAWS)]
    first = [dict(jitter)["hue"] for jitter in draws if jitter[0][0] == "hue"]
    later = [dict(jitter)["hue"] for jitter in draws if jitter[0][0] != "hue"]
    assert stats.ks_2samp(first, later).pvalue > ALPHA
    table = np.array([[dict(jitter)[op] for op in OPS] for jitter in draws])
    correlations = np.corrcoef(table, rowvar=False) - np.eye(4)
    assert np.abs(correlations).max() < 4 / np.sqrt(DRAWS)


def test_strong_jitter_stops_at_black() -> None:
    rng = np.random.default_rng(6)
    factors = [
        dict(sample_jitter(rng, brightness=3, contrast=0, saturation=0, hue=0))["brightness"]
        for _ in range(1000)
    ]
    assert stats.kstest(factors, stats.uniform(0, 4).cdf).pvalue > ALPHA


def test_chances_and_blur() -> None:
    transform, rng = PretrainTransform(), np.random.default_rng(7)
    draws = [transform.sample(256, 340, rng) for _ in range(DRAWS)]
    events = np.array([[bool(d.jitter), d.gray, d.sigma > 0, d.flip] for d in draws])
    for happened, chance in zip(events.T, (0.8, 0.2, 0.5, 0.5), strict=True):
        assert stats.binomtest(int(happened.sum()), DRAWS, chance).pvalue > ALPHA
    correlations = np.corrcoef(events, rowvar=False) - np.eye(4)
    assert np.abs(correlations).max() < 4 / np.sqrt(DRAWS)
    sigmas = [d.sigma for d in draws if d.sigma]
    assert stats.kstest(sigmas, stats.uniform(0.1, 1.9).cdf).pvalue > ALPHA


def test_turning_one_operation_off_changes_no_other() -> None:
    with_all, without = PretrainTransform(), PretrainTransform(gray_p=0, blur_p=0, hue=0)
    for seed in range(20):
        a = with_all.sample(256, 340, np.random.default_rng(seed))
        b = without.sample(256, 340, np.random.default_rng(seed))
        assert (a.crop, a.flip) == (b.crop, b.flip)
        assert tuple(step for step in a.jitter if step[0] != "hue") == b.jitter
