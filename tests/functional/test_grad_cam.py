"""Grad-CAM against loops in plain Python, and against a network whose map is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.layers import default_layer, find_layer, layer_gradients
from vclr_lightning.functional.grad_cam import enlarge, grad_cam, shares
from vclr_lightning.models import TinyBackbone, TorchvisionResNet, TorchvisionVideo


def slowly(activations: torch.Tensor, gradients: torch.Tensor) -> list[list[list[float]]]:
    """Equations 1 and 2 of the Grad-CAM paper, one number after another."""
    number, channels, height, width = activations.shape
    found = []
    for n in range(number):
        alpha = []
        for c in range(channels):
            total = sum(float(gradients[n, c, i, j]) for i in range(height) for j in range(width))
            alpha.append(total / (height * width))
        rows = []
        for i in range(height):
            values = (
                sum(alpha[c] * float(activations[n, c, i, j]) for c in range(channels))
                for j in range(width)
            )
            rows.append([max(0.0, value) for value in values])
        found.append(rows)
    return found


@given(st.tuples(*(st.integers(1, high) for high in (3, 4, 5, 5))), st.integers(0, 2**31 - 1))
def test_equals_plain_loops(shape: tuple[int, int, int, int], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    activations, gradients = (torch.randn(shape, generator=rng) for _ in range(2))
    heat = grad_cam(activations, gradients)
    torch.testing.assert_close(heat, torch.tensor(slowly(activations, gradients)))
    # Of clips, with one moment: the same.
    clips = grad_cam(activations[:, :, None], gradients[:, :, None])
    torch.testing.assert_close(clips[:, 0], heat)
    # Twice the score is twice the heat, wherever it is; where it is hottest is 1.
    torch.testing.assert_close(grad_cam(activations, 2 * gradients), 2 * heat)
    assert float(shares(heat).max()) == (1 if heat.any() else 0)


def test_a_linear_classifier_on_averaged_maps_gives_its_class_map() -> None:
    torch.manual_seed(0)
    convolution, classifier = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)
    pictures = torch.randn(2, 3, 8, 10)
    convolution.requires_grad_(False)  # a frozen network is explained as well
    with layer_gradients(convolution, "convolution") as captured:
        scores = classifier(convolution(pictures).mean(dim=(2, 3)))
        heat = grad_cam(*captured(scores[:, 2].sum()))
    maps = torch.einsum("c,nchw->nhw", classifier.weight[2], convolution(pictures)) / (6 * 8)
    torch.testing.assert_close(heat, maps.relu().detach())


def test_layers_that_work_in_place_and_that_are_called_twice() -> None:
    relu = nn.ReLU(inplace=True)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), relu, nn.Conv2d(4, 4, 1), relu, nn.ReLU(inplace=True))
    pictures = torch.randn(1, 3, 4, 4)
    expected = net(pictures)
    with layer_gradients(relu, "relu") as captured:
        output = net(pictures)
        activations, gradients = captured(output[:, 1].sum())
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(activations, expected.detach())
    assert torch.equal(gradients[:, 1], (activations[:, 1] > 0).float())
    assert not gradients[:, 0].any()


def test_enlarging_keeps_constants_and_corners() -> None:
    constant = enlarge(torch.full((1, 2, 2), 3.0), (5, 7))
    torch.testing.assert_close(constant, torch.full((1, 5, 7), 3.0))
    heat = enlarge(torch.arange(8.0).view(1, 2, 2, 2), (4, 6, 6))
    assert heat.shape == (1, 4, 6, 6)
    assert (heat[0, 0, 0, 0], heat[0, -1, -1, -1]) == (0, 7)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: TinyBackbone(width=4, stages=1), "blocks"),
        (lambda: TorchvisionResNet(name="resnet18"), "layer4"),
        (lambda: TorchvisionVideo(name="s3d"), "features"),
    ],
)
def test_the_default_layer_gives_the_map_that_is_pooled(
    build: Callable[[], nn.Module], name: str
) -> None:
    network = build()
    assert default_layer(network) == name
    clips = torch.randn(1, 3, *((16,) if network.clip_dims == 3 else ()), 32, 32)
    network.eval()
    with layer_gradients(find_layer(network, name), name, network=network) as captured:
        activations, _ = captured(network(clips).sum())
    torch.testing.assert_close(activations, network.forward_map(clips).detach())


def test_layers_without_maps_are_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    pictures = torch.randn(1, 3, 4, 4)
    unused = nn.Conv2d(3, 4, 3)
    with (
        layer_gradients(net[2], "2", network=net) as captured,
        pytest.raises(UserError, match=r"returns \(1, 2\)"),
    ):
        captured(net(pictures).sum())
    with layer_gradients(unused, "unused") as captured, pytest.raises(UserError, match="not used"):
        captured(net(pictures).sum())
    with layer_gradients(net[0], "0") as captured:
        net(pictures)
        with pytest.raises(UserError, match="does not depend on layer=0"):
            captured(torch.zeros((), requires_grad=True) * 1)
    with pytest.raises(UserError, match="has no layer of convolutions or attention"):
        default_layer(nn.Sequential(nn.Linear(2, 2)))
