"""Colours against PIL and against exact arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from colorsys import hsv_to_rgb, rgb_to_hsv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import functional as tv

from vclr_lightning.data.transforms import opencv
from vclr_lightning.data.transforms.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    fixed_point,
    luma,
    mean_luma,
)

Picture = NDArray[np.uint8]
MeanError = Callable[[Picture, Picture], float]
OPS = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}
OPENCV = {
    "brightness": opencv.adjust_brightness,
    "contrast": opencv.adjust_contrast,
    "saturation": opencv.adjust_saturation,
    "hue": opencv.adjust_hue,
}
BACKENDS = pytest.mark.parametrize("backend", ["torch", "opencv"])
FACTORS = (0.0, 0.6, 0.87, 1.0, 1.003, 1.2, 1.4, 3.0)
TURNS = (-0.5, -0.3, -0.1, -0.03, 0.0, 0.05, 0.1, 1 / 3, 0.5)


def _planes(picture: Picture) -> NDArray[np.int16]:
    return picture.transpose(2, 0, 1).astype(np.int16)


def _apply(backend: str, op: str, picture: Picture, amount: float) -> Picture:
    if backend == "opencv":
        unchanged = picture.copy()
        mixed = OPENCV[op](picture, amount)
        assert np.array_equal(picture, unchanged)
        assert mixed.dtype == np.uint8
        return mixed
    planes = _planes(picture)
    before = planes.copy()
    changed = OPS[op](planes, amount)
    assert np.array_equal(planes, before)
    assert changed.dtype == np.int16
    assert changed.min() >= 0
    assert changed.max() <= 255
    return changed.transpose(1, 2, 0).astype(np.uint8)


@BACKENDS
@pytest.mark.parametrize(
    ("op", "amount"),
    [(op, f) for op in ("brightness", "contrast", "saturation") for f in FACTORS]
    + [("hue", turns) for turns in TURNS],
)
def test_each_operation_agrees_with_pil(
    backend: str, picture: Picture, op: str, amount: float, mean_error: MeanError
) -> None:
    theirs = np.asarray(getattr(tv, f"adjust_{op}")(Image.fromarray(picture), amount))
    assert mean_error(_apply(backend, op, picture, amount), theirs) <= 1


@BACKENDS
@pytest.mark.parametrize(
    ("op", "amounts"), [(op, (0.6, 1.4)) for op in list(OPS)[:3]] + [("hue", (-0.1, 0.1))]
)
def test_each_operation_agrees_with_pil_on_real_frames(
    backend: str,
    real_frames: list[Picture],
    op: str,
    amounts: tuple[float, float],
    mean_error: MeanError,
) -> None:
    for frame in real_frames:
        for amount in amounts:
            theirs = np.asarray(getattr(tv, f"adjust_{op}")(Image.fromarray(frame), amount))
            assert mean_error(_apply(backend, op, frame, amount), theirs) <= 0.6


def test_greyscale_agrees_with_pil(picture: Picture, mean_error: MeanError) -> None:
    image = Image.fromarray(picture).convert("L")
    ours = luma(_planes(picture))
    assert mean_error(ours.astype(np.uint8), np.asarray(image)) <= 0.5
    assert mean_luma(_planes(picture)) == pytest.approx(np.asarray(image).mean(), abs=0.1)


def test_mean_of_a_tall_bright_picture() -> None:
    assert mean_luma(np.full((3, 1000, 3), 255, np.int16)) == 255


@settings(deadline=None)
@given(st.floats(-10, 10))
def test_fixed_point_is_close_and_fits_16_bits(value: float) -> None:
    gain, shift = fixed_point(value)
    assert abs(gain) <= 128
    assert 0 <= shift <= 15
    assert abs(gain / 2**shift - value) <= max(abs(value) / 128, 2**-15)


@BACKENDS
@settings(deadline=None)
@given(pixel=st.tuples(*[st.integers(0, 255)] * 3), turns=st.floats(-0.5, 0.5))
def test_hue_is_the_rotation_of_hsv(
    backend: str, pixel: tuple[int, int, int], turns: float
) -> None:
    ours = _apply(backend, "hue", np.array(pixel, np.uint8).reshape(1, 1, 3), turns).ravel()
    ours = ours.astype(int)
    hue, saturation, value = rgb_to_hsv(*(p / 255 for p in pixel))
    steps = int(turns * 255)  # PIL's resolution, and half a step that it loses on average
    exact = np.array(hsv_to_rgb((hue + (steps - 0.5) / 255) % 1, saturation, value)) * 255
    assert np.abs(ours - exact).max() <= 1.6
    assert (ours.max(), ours.min()) == (max(pixel), min(pixel))


@BACKENDS
@pytest.mark.parametrize("pixel", [(255, 0, 120), (0, 255, 255), (7, 250, 0)])
def test_every_shift_of_a_strong_hue(backend: str, pixel: tuple[int, int, int]) -> None:
    hue, saturation, value = rgb_to_hsv(*(p / 255 for p in pixel))
    picture = np.array(pixel, np.uint8).reshape(1, 1, 3)
    for steps in range(-127, 128):
        turns = (steps + 0.5 * np.sign(steps)) / 255
        exact = np.array(hsv_to_rgb((hue + (steps - 0.5) / 255) % 1, saturation, value)) * 255
        assert np.abs(_apply(backend, "hue", picture, turns).ravel() - exact).max() <= 1.6


@BACKENDS
@pytest.mark.parametrize("turns", TURNS)
def test_grey_has_no_hue(backend: str, turns: float) -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.array_equal(_apply(backend, "hue", grey, turns), grey)
