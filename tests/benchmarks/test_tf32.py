"""The simulation of TF32, against rounding by another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks.tf32 import TF32, difference, rounded, step
from benchmarks.train_step import make_batch, make_module
from torch.nn.functional import conv2d

from vclr_lightning.models import TinyBackbone


def _by_frexp(x: np.ndarray) -> np.ndarray:
    """Round to 11 significant bits, halves away from zero, in float64."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    scaled = np.abs(mantissa) * 2**11
    return np.copysign(np.ldexp(np.floor(scaled + 0.5), exponent - 11), x)


def test_rounds_to_ten_bits_of_mantissa() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(10_000) * 10.0 ** rng.integers(-20, 20, 10_000)).astype(np.float32)
    x[:4] = 1 + 2**-11, -1 - 2**-11, 1 + 3 * 2**-11, 0
    found = rounded(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(found.astype(np.float64), _by_frexp(x))
    assert np.abs(found / np.where(x == 0, 1, x) - 1)[4:].max() <= 2**-11


def test_products_and_their_gradients_see_rounded_factors() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    bias, a = torch.randn(4), torch.randn(5, 4)
    with TF32():
        y = conv2d(x, w, bias)
        z = y.mean((2, 3)) @ a.T
        z.sum().backward()
    rx, rw = (t.detach().apply_(lambda v: float(_by_frexp(np.float32(v)))) for t in (x, w))
    torch.testing.assert_close(y, conv2d(rx, rw, bias))
    upstream = rounded(rounded(torch.ones(2, 5)) @ rounded(a))[:, :, None, None] / 36
    expected = torch.nn.grad.conv2d_weight(rx, w.shape, rounded(upstream.expand(-1, -1, 6, 6)))
    torch.testing.assert_close(w.grad, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("how", ["TF32", "bfloat16"])
def test_a_step_is_off_by_what_its_bits_allow(how: str) -> None:
    torch.manual_seed(0)
    module = make_module(TinyBackbone(width=8, norm="group"), 64)
    batch = make_batch(2, 32, 0)
    exact = step(module, batch)
    assert difference(step(module, batch), exact) == (0, 0)
    loss, gradient = difference(step(module, batch, how=how), exact)
    bits = {"TF32": 2**-11, "bfloat16": 2**-8}[how]
    assert 0 < loss < 16 * bits
    assert bits / 16 < gradient < 64 * bits
