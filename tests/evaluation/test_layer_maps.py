"""Maps of any layer, in whatever layout it holds them, against each network run by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation import frame_encoder
from vclr_lightning.evaluation.layer_maps import WatchedForward, watched_forward
from vclr_lightning.evaluation.layers import default_layer, find_layer, layer_gradients
from vclr_lightning.models import TorchvisionMViT, TorchvisionSwin, TSMResNet, WrappedBackbone
from vclr_lightning.modules.encoding import layer_outputs


def vit(*, registers: int = 0, token: bool = True, pool: str = "token") -> nn.Module:
    torch.manual_seed(0)
    net = VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=12,
        depth=3,
        num_heads=2,
        num_classes=0,
        class_token=token,
        reg_tokens=registers,
        global_pool=pool,
    )
    return WrappedBackbone(net, num_features=12).eval()


def swin() -> nn.Module:
    torch.manual_seed(0)
    net = SwinTransformer(
        img_size=32,
        patch_size=4,
        embed_dim=8,
        depths=(1, 2),
        num_heads=(1, 2),
        window_size=4,
        num_classes=0,
    )
    return WrappedBackbone(net, num_features=16).eval()


def captured(network: nn.Module, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
    found = find_layer(network, layer)
    with layer_gradients(found, layer, network=network) as of_score:
        return of_score(network(x)[:, 0].sum())


@pytest.mark.parametrize(("registers", "pool"), [(0, "token"), (4, "token"), (2, "avg")])
def test_tokens_of_a_vit_are_on_their_grid(registers: int, pool: str) -> None:
    """The last block by hand, from what it attends to; each token stands where its patch does."""
    network = vit(registers=registers, pool=pool)
    assert default_layer(network.net) == "blocks.2.norm1"
    x = torch.randn(2, 3, 32, 32)
    net, prefix = network.net, registers + 1
    with torch.no_grad():
        before = net.norm_pre(net.patch_drop(net._pos_embed(net.patch_embed(x))))
        for block in net.blocks[:-1]:
            before = block(before)
    last = net.blocks[-1]
    normed = last.norm1(before).detach().requires_grad_()
    y = before + last.attn(normed)
    y = net.norm(y + last.mlp(last.norm2(y)))
    features = y[:, 0] if pool == "token" else net.fc_norm(y[:, prefix:].mean(dim=1))
    (gradient,) = torch.autograd.grad(features[:, 0].sum(), normed)
    activations, gradients = captured(network, "blocks.2.norm1", x)
    assert activations.shape == (2, 12, 4, 4)
    for row in range(4):
        for column in range(4):
            number = prefix + 4 * row + column
            at = (slice(None), slice(None), row, column)
            torch.testing.assert_close(activations[at], normed.detach()[:, number])
            torch.testing.assert_close(gradients[at], gradient[:, number])
    assert gradients.abs().amax(dim=(1, 2, 3)).min() > 0


def test_a_vit_without_tokens_is_explained_by_its_last_block() -> None:
    network = vit(token=False, pool="avg")
    assert default_layer(network.net) == "blocks"
    activations, _ = captured(network, "blocks", torch.randn(1, 3, 32, 32))
    assert activations.shape == (1, 12, 4, 4)


@pytest.mark.parametrize("place", [(0, 0), (3, 1), (2, 3)])
def test_a_changed_patch_changes_its_own_position(place: tuple[int, int]) -> None:
    """Of the first layer, in which patches are still apart; for tokens and for channels last."""
    x = torch.randn(1, 3, 32, 32)
    changed = x.clone()
    row, column = place
    changed[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 1
    for network, layer, patch in ((vit(), "blocks.0.norm1", 8), (swin(), "patch_embed", 4)):
        one, other = (captured(network, layer, clip)[0] for clip in (x, changed))
        differs = (one - other).abs().sum(dim=1)[0] > 1e-6
        side = 8 // patch
        expected = torch.zeros(32 // patch, 32 // patch, dtype=torch.bool)
        expected[side * row : side * (row + 1), side * column : side * (column + 1)] = True
        assert torch.equal(differs, expected)


def test_channels_last_are_moved() -> None:
    network = swin()
    x = torch.randn(2, 3, 32, 32)
    assert default_layer(network.net) == "layers"
    with torch.no_grad():
        maps = network.net.layers(network.net.patch_embed(x))
    activations, gradients = captured(network, "layers", x)
    torch.testing.assert_close(activations, maps.permute(0, 3, 1, 2))
    assert gradients.shape == activations.shape
    frames = torch.randint(0, 256, (2, 3, 1, 32, 32), dtype=torch.uint8)
    assert frame_encoder(network, layer="layers.0")(frames).shape == (2, 8)


@pytest.mark.parametrize(
    ("build", "layer", "shape"),
    [
        (lambda: TorchvisionMViT(), "blocks.15.norm1", (768, 2, 2, 2)),
        (lambda: TorchvisionMViT(global_pool="avg"), "blocks.15", (768, 2, 2, 2)),
        (lambda: TorchvisionMViT(), "blocks.0", (96, 2, 16, 16)),
        (lambda: TorchvisionSwin(), "features", (768, 2, 2, 2)),
        (lambda: TorchvisionSwin(), "features.0", (96, 2, 16, 16)),
        (lambda: TSMResNet(name="resnet18"), "layer4", (512, 4, 2, 2)),
    ],
)
def test_clips(build: Callable[[], nn.Module], layer: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = build().eval()
    activations, gradients = captured(network, layer, torch.randn(2, 3, 4, 64, 64))
    assert activations.shape == (2, *shape)
    assert gradients.abs().amax(dim=(1, 2, 3, 4)).min() > 0


def test_defaults_of_networks_of_clips() -> None:
    with torch.device("meta"):
        assert default_layer(TorchvisionMViT()) == "blocks.15.norm1"
        assert default_layer(TorchvisionSwin()) == "features"
        assert default_layer(TSMResNet(name="resnet18")) == "layer4"


def test_frames_of_a_clip_stay_its_own() -> None:
    network = TSMResNet(name="resnet18").eval()
    x = torch.randn(2, 3, 4, 64, 64)
    activations, _ = captured(network, "layer4", x)
    torch.testing.assert_close(activations, network.forward_map(x).detach())


def test_the_last_block_of_mvit_by_hand() -> None:
    torch.manual_seed(0)
    network = TorchvisionMViT().eval()
    x = torch.randn(1, 3, 4, 64, 64)
    with torch.no_grad():
        tokens, grid = (
            network.pos_encoding(network.conv_proj(x).flatten(2).transpose(1, 2)),
            (
                2,
                16,
                16,
            ),
        )
        for block in network.blocks[:-1]:
            tokens, grid = block(tokens, grid)
        normed = network.blocks[-1].norm1(tokens)
    activations, _ = captured(network, "blocks.15.norm1", x)
    t, h, w = activations.shape[2:]
    assert (t, h, w) == grid
    by_hand = torch.stack([normed[0, 1 + i] for i in range(t * h * w)], dim=1)
    torch.testing.assert_close(activations[0].flatten(1), by_hand)


@given(
    patch=st.integers(2, 32),
    rows=st.integers(2, 14),
    columns=st.integers(2, 14),
    prefix=st.sampled_from([0, 1]),
)
def test_a_declared_prefix_gives_the_grid_or_none(
    patch: int, rows: int, columns: int, prefix: int
) -> None:
    """Any grid of square patches is found; if it is not the only one, nothing is chosen."""
    size = (patch * rows, patch * columns)
    watched = WatchedForward(count=3, size=size, prefix=prefix)
    output = torch.zeros(3, prefix + rows * columns, 5)
    others = {
        (math.ceil(size[0] / p), math.ceil(size[1] / p))
        for p in range(1, max(size))
        if math.ceil(size[0] / p) * math.ceil(size[1] / p) == rows * columns
    }
    if others == {(rows, columns)}:
        assert watched.layout(output, "a").grid == (rows, columns)
    else:
        with pytest.raises(UserError, match="in several layouts"):
            watched.layout(output, "a")


@pytest.mark.parametrize(
    ("shape", "watched", "says"),
    [
        ((2, 18, 8), {"size": (32, 32)}, "is no map"),
        ((8, 16, 8), {"size": (32, 32)}, "is no map"),  # of windows, not of pictures
        ((2, 8, 8, 8), {"size": (32, 32)}, "in several layouts"),
        ((2, 393, 8), {"size": (16, 224, 224)}, "in several layouts"),
        ((2, 8, 4, 4), {"size": (8, 32, 32)}, "is no map"),
        ((2, 8), {"size": (32, 32)}, "is no map"),
    ],
)
def test_no_layout_is_guessed(shape: tuple[int, ...], watched: dict, says: str) -> None:
    with pytest.raises(UserError, match=rf"layer=some returns .*{says}.*take another layer"):
        WatchedForward(count=2, **watched).layout(torch.zeros(shape), "some")


def test_networks_without_attention_have_channels_first() -> None:
    convolutional = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4))
    with watched_forward(convolutional) as watched:
        maps = convolutional(torch.zeros(2, 3, 32, 32))
        assert watched.layout(maps, "0").kind == "first"
    assert not convolutional[0]._forward_pre_hooks
    assert not convolutional._forward_pre_hooks


def test_a_block_that_norms_after_attention_is_explained_by_the_one_before() -> None:
    def block() -> nn.Module:
        return nn.ModuleDict({"attn": nn.MultiheadAttention(4, 1), "norm1": nn.LayerNorm(4)})

    net = nn.Module()
    net.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
    net.blocks = nn.Sequential(block(), block())
    assert default_layer(net) == "blocks.0"


@pytest.mark.parametrize("named", ["blocks.1", "blocks.2.norm1", "blocks.2:input"])
def test_an_objective_reads_tokens_as_a_map(named: str) -> None:
    """Pooled, class and register tokens do not count."""
    network = vit(registers=2, pool="avg")
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        x = torch.randn(2, 3, 32, 32)
        with layer_outputs(network, x, [named]) as outputs:
            network(x)
            maps = outputs(named)
        net = network.net
        y = net.norm_pre(net.patch_drop(net._pos_embed(net.patch_embed(x))))
        for number, block in enumerate(net.blocks):
            found[f"blocks.{number}:input"] = y
            found[f"blocks.{number}.norm1"] = block.norm1(y)
            found[f"blocks.{number}"] = y = block(y)
    assert maps.shape == (2, 12, 4, 4)
    torch.testing.assert_close(maps.flatten(2).mean(2), found[named][:, 3:].mean(dim=1))
