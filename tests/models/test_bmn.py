"""The boundary-matching layer equals the dense form it replaces."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.models.bmn import BMN, MatchingConv

T, SAMPLES, POINTS = 12, 8, 3


def _dense_weights() -> Tensor:
    """Weights of position t in sample n of proposal (d, s), point by point: ``(T, N, T, T)``."""
    weights = torch.zeros(T, SAMPLES, T, T)
    for s in range(T):
        for d in range(T - s):
            low, high = s - (d + 1) / 2, s + d + (d + 1) / 2
            step = (high - low) / (SAMPLES * POINTS - 1)
            for n in range(SAMPLES):
                for point in range(POINTS):
                    x = low + step * (n * POINTS + point)
                    part, below = math.modf(x)
                    if 0 <= int(below) < T:
                        weights[int(below), n, d, s] += (1 - part) / POINTS
                    if 0 <= math.ceil(x) < T:
                        weights[math.ceil(x), n, d, s] += part / POINTS
    return weights


def test_matching_equals_sampling_then_convolving() -> None:
    torch.manual_seed(0)
    layer = MatchingConv(in_channels=6, out_channels=5, positions=T, samples=SAMPLES)
    x = torch.randn(2, 6, T, requires_grad=True)
    sampled = torch.einsum("bct,tnds->bcnds", x, _dense_weights())
    dense = nn.functional.conv3d(sampled, layer.weight, layer.bias)[:, :, 0]
    expected = dense[:, :, layer.duration, layer.start].permute(0, 2, 1)
    actual = layer(x)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    upstream = torch.randn_like(actual)
    wanted = torch.autograd.grad(expected, [x, layer.weight, layer.bias], upstream)
    given = torch.autograd.grad(actual, [x, layer.weight, layer.bias], upstream)
    for a, b in zip(given, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)


def test_network_equals_its_dense_form() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_1d": 8, "hidden_2d": 4, "hidden_3d": 6}
    model = BMN(num_features=4, positions=T, samples=SAMPLES, **sizes)
    x = torch.randn(3, 4, T)
    output = model(x)
    sampled = torch.einsum("bct,tnds->bcnds", model.proposal(model.base(x)), _dense_weights())
    cells = nn.functional.conv3d(sampled, model.matching.weight, model.matching.bias)[:, :, 0]
    reduced = nn.functional.conv2d(
        cells.relu(), model.reduce.weight[:, :, None, None], model.reduce.bias
    )
    torch.testing.assert_close(output.maps, model.maps(reduced.relu()).sigmoid(), atol=1e-5, rtol=0)
    assert output.start.shape == output.end.shape == (3, T)


def test_moves_to_another_precision_and_saves_only_parameters() -> None:
    model = BMN(num_features=4, positions=T, hidden_1d=8, hidden_2d=4, hidden_3d=6).double()
    assert model(torch.randn(1, 4, T, dtype=torch.float64)).maps.dtype == torch.float64
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_features_of_another_shape_are_refused() -> None:
    model = BMN(num_features=4, positions=T, hidden_1d=8, hidden_2d=4, hidden_3d=6)
    with pytest.raises(UserError, match="takes 4 channels at 12 positions"):
        model(torch.randn(1, 5, T))


@pytest.mark.parametrize("wrong", [{"num_features": 101}, {"num_features": 8, "hidden_1d": 6}])
def test_channels_that_groups_do_not_divide_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"(=101|=6) of the boundary-matching network must be a"):
        BMN(**wrong)
