"""Normalisation against torchvision's and against exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as tv

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.pixels import IMAGENET_MEAN, IMAGENET_STD, normalize

PIXELS = torch.from_numpy(
    np.random.default_rng(0).integers(0, 256, (2, 5, 3, 2, 6, 7), dtype=np.uint8)
)


def _exact() -> np.ndarray:
    mean = np.array(IMAGENET_MEAN).reshape(3, 1, 1, 1)
    std = np.array(IMAGENET_STD).reshape(3, 1, 1, 1)
    return (PIXELS.numpy() / 255 - mean) / std


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)],
)
def test_values_and_dtype(dtype: torch.dtype, tolerance: float) -> None:
    before = PIXELS.clone()
    result = normalize(PIXELS, dtype=dtype)
    assert result.dtype == dtype
    assert result.shape == PIXELS.shape
    assert np.abs(result.double().numpy() - _exact()).max() <= tolerance
    assert torch.equal(PIXELS, before)


def test_it_is_torchvisions_normalization() -> None:
    frame = PIXELS[0, 0, :, 0]
    theirs = tv.normalize(frame / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    assert torch.allclose(normalize(PIXELS)[0, 0, :, 0], theirs, atol=1e-6)


def test_mean_and_std_may_be_tensors() -> None:
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    assert torch.equal(normalize(PIXELS, mean, std), normalize(PIXELS))


def test_half_precision_is_rounded_once() -> None:
    assert torch.equal(normalize(PIXELS, dtype=torch.bfloat16), normalize(PIXELS).bfloat16())


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16])
def test_floats_from_0_to_1_are_taken_by_name_and_left_alone(kind: torch.dtype) -> None:
    shares = (PIXELS.double() / 255).to(kind)
    before = shares.clone()
    result = normalize(shares, dtype=torch.float64, unit=True)
    assert np.abs(result.numpy() - _exact()).max() < {torch.float16: 1e-2}.get(kind, 1e-6)
    assert torch.equal(shares, before)
    empty = torch.zeros(0, 3, 1, 2, 2, dtype=kind)
    assert normalize(empty, dtype=kind, unit=True).shape == empty.shape


@pytest.mark.parametrize(
    ("pixels", "unit", "said"),
    [
        (PIXELS.float(), False, "pixels are float32; give uint8 from 0 to 255, or floats from 0"),
        (PIXELS / 255, False, "pixels are float32; .* with unit=True"),
        (PIXELS.int(), False, "pixels are int32; give uint8"),
        (PIXELS, True, "pixels are uint8; .* floats from 0 to 1 with unit=True"),
        (PIXELS.float(), True, "floats from 0 to 255, not within 0 to 1"),
        (torch.full((3, 1, 1, 1), -0.5), True, "floats from -0.5 to -0.5, not within"),
        (torch.full((3, 1, 1, 1), torch.nan), True, "floats from nan to nan, not within"),
    ],
)
def test_other_pixels_are_refused(pixels: torch.Tensor, unit: bool, said: str) -> None:
    before = pixels.clone()
    with pytest.raises(UserError, match=said):
        normalize(pixels, unit=unit)
    torch.testing.assert_close(pixels, before, rtol=0, atol=0, equal_nan=True)
