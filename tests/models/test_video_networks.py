"""Networks of clips: known sizes, and their layers computed by hand."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models.video as tv
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv3d, max_pool3d, relu
from torchvision.ops import StochasticDepth

from vclr_lightning.core.errors import UserError
from vclr_lightning.models import (
    C3D,
    S3DG,
    Backbone,
    PaceResNet,
    ResNet2d3d,
    SlowFastPathway,
    TorchvisionMViT,
    TorchvisionResNet,
    TorchvisionSwin,
    TorchvisionVideo,
    TSMResNet,
    export_backbone,
    load_backbone,
    load_initial_weights,
)
from vclr_lightning.models.tsm import TemporalShift


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
        (C3D, 27_661_440, (16, 112), (512, 2, 7, 7)),
        (PaceResNet, 14_361_792, (16, 112), (512, 2, 7, 7)),
        (lambda: PaceResNet(factored=True), 14_365_303, (16, 112), (512, 2, 7, 7)),
        (S3DG, 9_125_072, (64, 224), (1024, 8, 7, 7)),
        (lambda: TSMResNet(name="resnet50"), 23_508_032, (8, 224), (2048, 8, 7, 7)),
    ],
    ids=[
        "dpc18",
        "dpc34",
        "slow",
        "cvrl",
        "fast",
        "fast_wide",
        "c3d",
        "r3d10",
        "r2plus1d10",
        "s3dg",
        "tsm50",
    ],
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


@pytest.mark.parametrize(
    ("name", "weights", "clip", "maps"),
    [
        ("r3d_18", tv.R3D_18_Weights.KINETICS400_V1, (16, 112), (512, 2, 7, 7)),
        ("mc3_18", tv.MC3_18_Weights.KINETICS400_V1, (16, 112), (512, 16, 7, 7)),
        ("r2plus1d_18", tv.R2Plus1D_18_Weights.KINETICS400_V1, (16, 112), (512, 2, 7, 7)),
        ("s3d", tv.S3D_Weights.KINETICS400_V1, (32, 128), (1024, 4, 4, 4)),
        ("swin3d_t", tv.Swin3D_T_Weights.KINETICS400_V1, (5, 100), (768, 3, 4, 4)),
        ("swin3d_s", tv.Swin3D_S_Weights.KINETICS400_V1, (32, 224), (768, 16, 7, 7)),
        ("swin3d_b", tv.Swin3D_B_Weights.KINETICS400_IMAGENET22K_V1, (8, 64), (1024, 4, 2, 2)),
        ("mvit_v2_s", tv.MViT_V2_S_Weights.KINETICS400_V1, (16, 224), (768, 8, 7, 7)),
        ("mvit_v2_s", tv.MViT_V2_S_Weights.KINETICS400_V1, (5, 100), (768, 3, 4, 4)),
    ],
)
def test_torchvisions_networks_have_their_published_sizes_and_take_their_weights(
    name: str, weights: Any, clip: tuple[int, int], maps: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        if name.startswith("swin"):
            backbone: Backbone = TorchvisionSwin(name=name)
        elif name.startswith("mvit"):
            backbone = TorchvisionMViT(global_pool="avg")
        else:
            backbone = TorchvisionVideo(name=name)
        theirs = getattr(tv, name)()
    classifier = sum(
        parameter.numel()
        for name, parameter in theirs.named_parameters()
        if name.startswith(("fc.", "head.", "classifier."))
    )
    own = sum(parameter.numel() for parameter in backbone.parameters())
    assert own + classifier == weights.meta["num_params"]
    shapes = {n: t.shape for n, t in theirs.state_dict().items()}
    assert all(shapes[n] == t.shape for n, t in backbone.state_dict().items())
    with torch.device("meta"):
        found = backbone.forward_map(torch.zeros(1, 3, clip[0], clip[1], clip[1]))
    assert (backbone.num_features, backbone.clip_dims) == (maps[0], 3)
    assert found.shape == (1, *maps)


@pytest.mark.parametrize("name", ["swin3d_t", "mvit_v2_s"])
def test_transformers_are_torchvisions(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = getattr(tv, name)().eval()
    for parameter in theirs.parameters():  # positions, class token and biases too
        parameter.data += 0.02 * torch.randn_like(parameter)
    torch.save(theirs.state_dict(), tmp_path / "kinetics.pth")
    ours = TorchvisionSwin() if name == "swin3d_t" else TorchvisionMViT()
    report = load_initial_weights(ours, tmp_path / "kinetics.pth")
    assert report.missing == ()
    assert all(name.startswith("head.") for name in report.left)
    recognised: Any = load_backbone(tmp_path / "kinetics.pth")
    assert recognised.spec == ours.spec
    theirs.head = nn.Identity()
    if name == "mvit_v2_s":  # whose own forward takes clips of one size alone
        theirs.pos_encoding.temporal_size, theirs.pos_encoding.spatial_size = 2, (16, 16)
    x = torch.rand(1, 3, 4, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs(x))


@pytest.mark.parametrize("name", ["r3d_18", "s3d"])
def test_torchvisions_weights_bring_their_normalisation(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(getattr(tv, name)().state_dict(), tmp_path / "kinetics.pth")
    loaded: Any = load_backbone(tmp_path / "kinetics.pth")
    assert loaded.pixel_mean == (0.43216, 0.394666, 0.37645)
    assert loaded.pixel_std == (0.22803, 0.22145, 0.216989)
    eps = loaded.spec["bn_eps"]
    load_initial_weights(TorchvisionVideo(name=name, bn_eps=eps), tmp_path / "kinetics.pth")
    assert "set module.mean and module.std to keep those of its training" in caplog.text


def test_mvit_reads_its_tokens_or_their_average() -> None:
    torch.manual_seed(0)
    token, average = TorchvisionMViT().eval(), TorchvisionMViT(global_pool="avg").eval()
    average.load_state_dict(token.state_dict())
    x = torch.rand(2, 3, 4, 40, 64)
    with torch.no_grad():
        maps = average.forward_map(x)
        assert maps.shape == (2, 768, 2, 2, 2)
        assert torch.equal(average(x), average.pool(maps))
        assert not torch.allclose(average(x), token(x), atol=1e-3)
    with pytest.raises(UserError, match=r"give backbone\.global_pool=avg"):
        token.forward_map(x)


@pytest.mark.parametrize("kind", [TorchvisionSwin, TorchvisionMViT])
def test_stochastic_depth_grows_with_the_layers(kind: Any) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 4, 32, 32)
    for depth in (0.0, 0.5):
        backbone = kind(stochastic_depth=depth)
        p = [m.p for m in backbone.modules() if isinstance(m, StochasticDepth)]
        assert (p[0], p[-1]) == (0, depth)
        assert p == sorted(p)
        with torch.no_grad():
            assert torch.equal(backbone(x), backbone(x)) == (depth == 0)


def test_tsm_is_a_2d_network_with_shifts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    frames = TorchvisionResNet(name="resnet18").eval()
    export_backbone(frames, tmp_path / "frames.safetensors")
    clips = TSMResNet(name="resnet18").eval()
    load_initial_weights(clips, tmp_path / "frames.safetensors")
    x = torch.rand(2, 3, 5, 32, 32)
    shift = TemporalShift(frames)
    shift.num_frames = 5
    with torch.no_grad():
        each = frames.forward_map(x.transpose(1, 2).reshape(10, 3, 32, 32)).view(2, 5, 512, 1, 1)
        torch.testing.assert_close(clips.forward_map(x), each.transpose(1, 2))
        torch.testing.assert_close(clips(x), each.mean((1, 3, 4)))
        # A copy shifts by itself, by its own number of frames.
        again = copy.deepcopy(clips)
        expected = clips(x)
        again(x[:, :, :2])
        assert (clips.shift.num_frames, again.shift.num_frames) == (5, 2)
        assert torch.equal(again(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(clips))(x), expected)


def test_s3dg_gates_every_branch_and_pools_with_zeros_behind() -> None:
    torch.manual_seed(0)
    backbone = S3DG().double().eval()
    state = backbone.state_dict()
    x = torch.rand(1, 3, 5, 40, 40, dtype=torch.float64)

    def layer(x: Tensor, name: str, **how: Any) -> Tensor:
        y = conv3d(x, state[f"{name}.0.weight"], **how)
        mean, var, weight, bias = (
            state[f"{name}.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return relu(batch_norm(y, mean, var, weight, bias))

    def separable(x: Tensor, name: str) -> Tensor:
        return layer(layer(x, f"{name}.0", padding=(0, 1, 1)), f"{name}.1", padding=(1, 0, 0))

    def gate(x: Tensor, name: str) -> Tensor:
        scores = state[f"{name}.fc.weight"] @ x.mean((2, 3, 4))[0] + state[f"{name}.fc.bias"]
        return x / (1 + torch.exp(-scores))[None, :, None, None, None]

    def pool(x: Tensor) -> Tensor:  # 3 x 3 at even positions, zeros below and to the right
        height, width = (math.ceil((side - 2) / 2) + 1 for side in x.shape[3:])
        padded = x.new_zeros(*x.shape[:3], 2 * height + 1, 2 * width + 1)
        padded[..., : x.shape[3], : x.shape[4]] = x
        return padded.unfold(3, 3, 2).unfold(4, 3, 2).amax((5, 6))

    y = layer(x, "stem", stride=2, padding=(1, 3, 3))
    y = separable(layer(pool(y), "layer1.1"), "layer1.2")
    y = pool(gate(y, "layer1.3"))
    branches = [
        layer(y, "layer2.1.branch0.0"),
        separable(layer(y, "layer2.1.branch1.0.0"), "layer2.1.branch1.0.1"),
        separable(layer(y, "layer2.1.branch2.0.0"), "layer2.1.branch2.0.1"),
        layer(max_pool3d(y, 3, 1, 1), "layer2.1.branch3.0.1"),
    ]
    expected = torch.cat(
        [gate(branch, f"layer2.1.branch{i}.1") for i, branch in enumerate(branches)], dim=1
    )
    layers: Any = backbone
    with torch.no_grad():
        found = layers.layer2[1](layers.layer2[0](layers.layer1(layers.stem(x))))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert all(n.eps == 1e-5 for n in backbone.modules() if isinstance(n, nn.BatchNorm3d))


@pytest.mark.parametrize(
    "build",
    [
        lambda: TSMResNet(name="resnet18"),
        TorchvisionSwin,
        TorchvisionMViT,
        lambda: TorchvisionMViT(global_pool="avg"),
        lambda: TorchvisionVideo(name="s3d"),
        lambda: PaceResNet(factored=True),
        S3DG,
        lambda: SlowFastPathway(width=8, stem_frames=5, temporal_from=1),
        lambda: ResNet2d3d(track_running_stats=False),
    ],
)
def test_every_parameter_is_trained_in_either_memory_format(
    build: Callable[[], Backbone],
) -> None:
    torch.manual_seed(0)
    backbone = build().double().eval()
    x = torch.rand(2, 3, 8, 32, 32, dtype=torch.float64)
    features = backbone(x)
    features.square().sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())
    backbone.to(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        again = backbone(x.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(again, features.detach(), rtol=1e-9, atol=1e-9)


def test_a_factored_convolution_is_two() -> None:
    torch.manual_seed(0)
    backbone = PaceResNet(factored=True).double().eval()
    state = backbone.state_dict()
    assert state["stem.0.0.weight"].shape == (83, 3, 1, 7, 7)
    x = torch.randn(1, 64, 4, 6, 6, dtype=torch.float64)

    def factored(x: Tensor, name: str, stride: int, pad: int) -> Tensor:
        space, time = (1, stride, stride), (stride, 1, 1)
        x = conv3d(x, state[f"{name}.0.weight"], stride=space, padding=(0, pad, pad))
        x = relu(norm(x, state, f"{name}.1"))
        return conv3d(x, state[f"{name}.3.weight"], stride=time, padding=(pad, 0, 0))

    y = relu(norm(factored(x, "layer2.0.conv1", 2, 1), state, "layer2.0.bn1"))
    y = norm(factored(y, "layer2.0.conv2", 1, 1), state, "layer2.0.bn2")
    shortcut = norm(factored(x, "layer2.0.downsample.0", 2, 0), state, "layer2.0.downsample.1")
    with torch.no_grad():
        found = backbone.get_submodule("layer2")(x)
        torch.testing.assert_close(found, relu(y + shortcut), rtol=1e-10, atol=1e-10)


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
    loaded = load_backbone(tmp_path / "dpc.pth.tar", ResNet2d3d())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[name])
        assert torch.equal(tensor, loaded.state_dict()[name])


def test_weights_without_running_statistics_start_them_afresh(tmp_path: Path) -> None:
    pretrained, finetuned = ResNet2d3d(track_running_stats=False), ResNet2d3d()
    export_backbone(pretrained, tmp_path / "dpc.safetensors")
    report = load_initial_weights(finetuned, tmp_path / "dpc.safetensors")
    assert report.loaded == tuple(pretrained.state_dict())
    assert "bn1.running_mean" in report.missing
    assert torch.equal(finetuned.conv1.weight, pretrained.conv1.weight)
    # The other way, statistics are left over.
    export_backbone(finetuned, tmp_path / "tracked.safetensors")
    report = load_initial_weights(pretrained, tmp_path / "tracked.safetensors")
    assert (report.missing, "bn1.running_mean" in report.left) == ((), True)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: ResNet2d3d(depth=50), "depth=50 must be one of 18, 34"),
        (lambda: SlowFastPathway(depth=101), "depth=101"),
        (lambda: SlowFastPathway(stem_frames=4), "stem_frames=4 odd"),
        (lambda: SlowFastPathway(temporal_from=0), "temporal_from=0"),
        (lambda: TorchvisionSwin(name="swin2d"), "'swin2d'; there are swin3d_t"),
        (lambda: TorchvisionSwin(stochastic_depth=1), "stochastic_depth=1"),
        (lambda: TorchvisionMViT(global_pool="max"), "global_pool='max' must be one of token, avg"),
        (lambda: TSMResNet(divisions=1), "divisions=1 of TSM"),
    ],
)
def test_wrong_values_are_named(build: Callable[[], Backbone], says: str) -> None:
    with pytest.raises(UserError, match=says):
        build()
