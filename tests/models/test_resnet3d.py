"""3D ResNets: known sizes, and their layers computed by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv3d, max_pool3d, relu

from vclr_lightning.core.errors import UserError
from vclr_lightning.models import Backbone, ResNet2d3d, SlowFastPathway, load_initial_weights


@pytest.mark.parametrize(
    ("build", "parameters", "clip", "maps"),
    [
        (ResNet2d3d, 14_057_536, (5, 128), (256, 2, 4, 4)),
        (lambda: ResNet2d3d(depth=34), 32_422_208, (5, 224), (256, 2, 7, 7)),
        (SlowFastPathway, 31_634_496, (8, 224), (2048, 8, 7, 7)),
        (
            lambda: SlowFastPathway(stem_frames=5, stem_stride=2),
            31_672_128,
            (16, 224),
            (2048, 8, 7, 7),
        ),
        (
            lambda: SlowFastPathway(width=8, stem_frames=5, temporal_from=1),
            514_152,
            (32, 224),
            (256, 32, 7, 7),
        ),
        (
            lambda: SlowFastPathway(stem_frames=5, temporal_from=1),
            32_204_608,
            (8, 112),
            (2048, 8, 4, 4),
        ),
    ],
    ids=["dpc18", "dpc34", "slow", "cvrl", "fast", "fast_wide"],
)
def test_sizes_are_the_published_ones(
    build: Callable[[], Backbone],
    parameters: int,
    clip: tuple[int, int],
    maps: tuple[int, ...],
) -> None:
    with torch.device("meta"):
        backbone = build()
        found = backbone.forward_map(torch.zeros(1, 3, clip[0], clip[1], clip[1]))
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    assert backbone.num_features == maps[0]
    assert found.shape == (1, *maps)


def norm(x: Tensor, state: Mapping[str, Tensor], name: str) -> Tensor:
    mean, var = state.get(f"{name}.running_mean"), state.get(f"{name}.running_var")
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return batch_norm(x, mean, var, weight, bias, training=mean is None)


def dpc(x: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """DPC's network of depth 18, from the names of its checkpoints."""
    x = conv3d(x, state["conv1.weight"], stride=(1, 2, 2), padding=(0, 3, 3))
    x = max_pool3d(relu(norm(x, state, "bn1")), (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage, stride in ((1, (1, 1, 1)), (2, (1, 2, 2)), (3, (2, 2, 2)), (4, (2, 2, 2))):
        pad = (0, 1, 1) if stage < 3 else (1, 1, 1)
        for block in (0, 1):
            at, step = f"layer{stage}.{block}", (1, 1, 1) if block else stride
            y = conv3d(x, state[f"{at}.conv1.weight"], stride=step, padding=pad)
            y = conv3d(relu(norm(y, state, f"{at}.bn1")), state[f"{at}.conv2.weight"], padding=pad)
            if stage > 1 and block == 0:
                x = conv3d(x, state[f"{at}.downsample.0.weight"], stride=step)
                x = norm(x, state, f"{at}.downsample.1")
            x = x + norm(y, state, f"{at}.bn2")
            x = x if (stage, block) == (4, 1) else relu(x)
    return x


@pytest.mark.parametrize("tracked", [True, False])
def test_2d3d_is_dpcs(tracked: bool) -> None:
    torch.manual_seed(0)
    backbone = ResNet2d3d(track_running_stats=tracked).double().eval()
    for name, tensor in backbone.state_dict().items():
        if name.endswith(("bn1.weight", "bn2.bias", "running_mean")):
            tensor += 0.1 * torch.randn_like(tensor)
    assert ("bn1.running_mean" in backbone.state_dict()) == tracked
    x = torch.randn(2, 3, 5, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        maps, expected = backbone.forward_map(x), dpc(x, backbone.state_dict())
        torch.testing.assert_close(maps, expected, rtol=1e-10, atol=1e-10)
        assert (maps < 0).any()
        torch.testing.assert_close(backbone(x), relu(expected).mean((2, 3, 4)))


def slow(x: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """CVRL's network of depth 50."""
    x = conv3d(x, state["stem.0.weight"], stride=2, padding=(2, 3, 3))
    x = max_pool3d(relu(norm(x, state, "stem.1")), (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            step = (1, 2, 2) if stage > 1 and block == 0 else (1, 1, 1)
            time = (1, 0, 0) if stage > 2 else (0, 0, 0)
            y = relu(norm(conv3d(x, state[f"{at}.conv1.weight"], padding=time), state, f"{at}.bn1"))
            y = conv3d(y, state[f"{at}.conv2.weight"], stride=step, padding=(0, 1, 1))
            y = conv3d(relu(norm(y, state, f"{at}.bn2")), state[f"{at}.conv3.weight"])
            if block == 0:
                x = conv3d(x, state[f"{at}.downsample.0.weight"], stride=step)
                x = norm(x, state, f"{at}.downsample.1")
            x = relu(x + norm(y, state, f"{at}.bn3"))
    return x


def test_pathway_is_a_bottleneck_network_with_time_in_its_last_stages() -> None:
    torch.manual_seed(0)
    backbone = SlowFastPathway(width=8, stem_frames=5, stem_stride=2).double().eval()
    x = torch.randn(2, 3, 6, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = slow(x, backbone.state_dict())
        torch.testing.assert_close(backbone.forward_map(x), expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(backbone(x), expected.mean((2, 3, 4)))


@pytest.mark.parametrize("prefix", ["module.backbone.", "backbone."], ids=["dpc", "memdpc"])
def test_the_authors_checkpoints_load_by_name(prefix: str, tmp_path: Path) -> None:
    theirs, ours = ResNet2d3d(), ResNet2d3d()
    state = {prefix + name: tensor for name, tensor in theirs.state_dict().items()}
    heads = {"agg.ConvGRUCell_00.reset_gate.weight": torch.zeros(256, 512, 1, 1)}
    state |= {prefix.replace("backbone.", "") + name: tensor for name, tensor in heads.items()}
    torch.save({"epoch": 1, "net": "resnet18", "state_dict": state}, tmp_path / "dpc.pth.tar")
    report = load_initial_weights(ours, tmp_path / "dpc.pth.tar")
    assert len(report.loaded) == len(theirs.state_dict())
    assert all(torch.equal(t, ours.state_dict()[n]) for n, t in theirs.state_dict().items())


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: ResNet2d3d(depth=50), "depth=50 must be one of 18, 34"),
        (lambda: SlowFastPathway(depth=101), "depth=101"),
        (lambda: SlowFastPathway(stem_frames=4), "stem_frames=4 odd"),
        (lambda: SlowFastPathway(temporal_from=0), "temporal_from=0"),
    ],
)
def test_wrong_values_are_named(build: Callable[[], Backbone], says: str) -> None:
    with pytest.raises(UserError, match=says):
        build()
