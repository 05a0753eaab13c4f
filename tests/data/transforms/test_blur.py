"""The blur against PIL's, and its laws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vclr_lightning.data.transforms import opencv
from vclr_lightning.data.transforms.blur import blur_taps, gaussian_blur

Picture = NDArray[np.uint8]
SIGMAS = (0.1, 0.25, 0.5, 0.8, 1.0, 1.3, 1.41, 1.42, 1.7, 2.0)


BACKENDS = pytest.mark.parametrize("backend", ["torch", "opencv"])


def _blur(backend: str, picture: Picture, sigma: float) -> Picture:
    if backend == "opencv":
        return opencv.gaussian_blur(picture, sigma)
    planes = picture.transpose(2, 0, 1).astype(np.int16)
    before = planes.copy()
    blurred = gaussian_blur(planes, sigma)
    assert np.array_equal(planes, before)
    assert blurred.min() >= 0
    assert blurred.max() <= 255
    return blurred.transpose(1, 2, 0).astype(np.uint8)


@BACKENDS
@pytest.mark.parametrize("sigma", SIGMAS)
def test_blur_agrees_with_pil(
    backend: str, picture: Picture, sigma: float, mean_error: Callable[[Picture, Picture], float]
) -> None:
    theirs = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(sigma)))
    assert mean_error(_blur(backend, picture, sigma), theirs) <= 2


@BACKENDS
@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_agrees_with_pil_on_real_frames(
    backend: str,
    real_frames: list[Picture],
    sigma: float,
    mean_error: Callable[[Picture, Picture], float],
) -> None:
    for frame in real_frames:
        theirs = np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(sigma)))
        assert mean_error(_blur(backend, frame, sigma), theirs) <= 1


@BACKENDS
def test_a_wide_blur_agrees_with_pil(
    backend: str, photo: Picture, mean_error: Callable[[Picture, Picture], float]
) -> None:
    theirs = np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(6.0)))
    assert mean_error(_blur(backend, photo, 6.0), theirs) <= 1


@settings(deadline=None)
@given(st.floats(0.05, 10))
def test_taps_sum_to_one_and_fall_off(sigma: float) -> None:
    center, *sides = blur_taps(sigma)
    assert center + 2 * sum(sides) == 256
    assert min(center, *sides, 256) >= 0
    assert not sides or sides[-1] > 0


@settings(deadline=None)
@given(st.floats(0.3, 3))
def test_taps_have_the_variance_of_the_gaussian(sigma: float) -> None:
    variance = sum(2 * tap * k * k for k, tap in enumerate(blur_taps(sigma))) / 256
    assert variance == pytest.approx(sigma**2, rel=0.1, abs=0.02)


@BACKENDS
@settings(deadline=None)
@given(
    value=st.integers(0, 255),
    sigma=st.floats(0.1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_a_flat_picture_stays_as_it_is(
    backend: str, value: int, sigma: float, height: int, width: int
) -> None:
    flat = np.full((height, width, 3), value, np.uint8)
    assert np.array_equal(_blur(backend, flat, sigma), flat)


def test_mirrored_pictures_have_mirrored_blurs(photo: Picture) -> None:
    planes = photo.transpose(2, 0, 1).astype(np.int16)
    mirrored = np.ascontiguousarray(planes[:, :, ::-1])
    assert np.array_equal(gaussian_blur(mirrored, 1.5)[:, :, ::-1], gaussian_blur(planes, 1.5))
