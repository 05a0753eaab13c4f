"""Networks of timm: timm itself is the reference; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError
from PIL import Image
from torch import nn

from vclr_lightning.app.resolvers import register_resolvers
from vclr_lightning.core.errors import UserError
from vclr_lightning.models import TimmBackbone, export_backbone, load_backbone
from vclr_lightning.models.checkpoints import read_checkpoint
from vclr_lightning.models.tsm import TemporalShift
from vclr_lightning.models.weights import load_initial_weights
from vclr_lightning.modules.input_pixels import pixels_of
from vclr_lightning.modules.key_batchnorm import key_copy
from vclr_lightning.stages.shared.run_config import inherited_settings


@pytest.mark.parametrize(
    "name", ["test_resnet", "resnet10t", "test_vit", "test_convnext", "test_efficientnet"]
)
def test_features_are_timms(name: str) -> None:
    theirs = timm.create_model(name, pretrained=False, num_classes=0).eval()
    ours = TimmBackbone(name=name).eval()
    ours.load_state_dict(theirs.state_dict())
    config = timm.data.resolve_model_data_config(theirs)
    assert (3, ours.image_size, ours.image_size) == config["input_size"]
    assert (ours.pixel_mean, ours.pixel_std) == (config["mean"], config["std"])
    pixels = pixels_of(ours)
    assert (pixels.mean, pixels.std) == (config["mean"], config["std"])
    x = torch.rand(2, *config["input_size"])
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
    assert ours(x).shape == (2, ours.num_features)


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        ("test_resnet", None),
        ("test_convnext", None),  # normalises after pooling
        ("test_vit", "avg"),
        ("test_vit4", None),  # registers beside the patches, averaged
        ("mobilenetv3_small_050", None),  # a layer after pooling
    ],
)
def test_a_map_pools_to_the_features(name: str, pool: str | None) -> None:
    backbone = TimmBackbone(name=name, global_pool=pool).eval()
    x = torch.rand(2, 3, backbone.image_size, backbone.image_size)
    with torch.no_grad():
        maps = backbone.forward_map(x)
        assert maps.ndim == 4
        assert maps.shape[2] == maps.shape[3] > 1
        assert torch.allclose(backbone.pool(maps), backbone(x), atol=1e-5)


def test_maps_in_channels_last_order_are_turned() -> None:
    with torch.device("meta"):
        backbone = TimmBackbone(name="swin_tiny_patch4_window7_224")
        maps = backbone.forward_map(torch.zeros(1, 3, 224, 224))
        assert maps.shape == (1, 768, 7, 7)
        assert backbone.pool(maps).shape == (1, 768)


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit4", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("size", [64, 96, 256])
def test_positions_are_interpolated_for_another_size(name: str, size: int) -> None:
    """As by a network built for that size, with positions that Pillow has resized."""
    torch.manual_seed(0)
    backbone = TimmBackbone(name=name, image_size=128).eval()
    nn.init.normal_(backbone.net.pos_embed)
    assert (backbone.image_size, backbone.interpolates) == (128, True)
    theirs = timm.create_model(name, pretrained=False, num_classes=0, img_size=size).eval()
    weights = backbone.state_dict()
    positions = weights["pos_embed"][0]
    before, after = 128 // 16, size // 16
    others = len(positions) - before**2
    resized = [
        np.asarray(
            Image.fromarray(channel.reshape(before, before).numpy()).resize(
                (after, after), Image.Resampling.BICUBIC
            )
        )
        for channel in positions[others:].T
    ]
    grid = torch.from_numpy(np.stack(resized, axis=-1)).reshape(after**2, -1)
    weights["pos_embed"] = torch.cat([positions[:others], grid])[None]
    theirs.load_state_dict(weights)
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(backbone(x), theirs(x), atol=1e-4, rtol=1e-4)
        own = timm.create_model(name, pretrained=False, num_classes=0, img_size=128).eval()
        own.load_state_dict(backbone.state_dict())
        y = torch.rand(1, 3, 128, 128)
        assert torch.equal(backbone(y), own(y))
    averaged = TimmBackbone(name=name, image_size=128, global_pool="avg").eval()
    with torch.no_grad():
        maps = averaged.forward_map(x)
        assert maps.shape[2:] == (after, after)
        torch.testing.assert_close(averaged.pool(maps), averaged(x))


def test_a_size_that_a_transformer_cannot_take_is_one_sentence() -> None:
    backbone = TimmBackbone(name="test_vit", image_size=64).eval()
    with pytest.raises(UserError, match=r"whole patches of 16 .* image_size .* multiple of 16"):
        backbone(torch.zeros(1, 3, 72, 72))
    with pytest.raises(UserError, match="multiple of 16"):
        TimmBackbone(name="test_vit", image_size=64, global_pool="avg").forward_map(
            torch.zeros(1, 3, 72, 72)
        )
    relative = TimmBackbone(name="test_vit_relpos", image_size=64).eval()
    assert not relative.interpolates
    with pytest.raises(UserError, match="built for pictures of 64 pixels, and these have 96 x 96"):
        relative(torch.zeros(1, 3, 96, 96))
    # Trained at a size that leaves a rest, it goes on without the option that forbids one.
    odd = TimmBackbone(name="vit_tiny_patch16_224", image_size=72).eval()
    assert not odd.interpolates
    assert odd(torch.zeros(1, 3, 72, 72)).shape == (1, 192)
    with pytest.raises(UserError, match="multiple of 16"):
        TimmBackbone(name="test_vit", image_size=72)(torch.zeros(1, 3, 72, 72))


def test_a_transformer_is_built_for_the_size_of_the_pictures() -> None:
    backbone = TimmBackbone(name="test_vit", image_size=64).eval()
    assert backbone(torch.zeros(1, 3, 64, 64)).shape == (1, 64)
    convolutional = TimmBackbone(name="test_resnet", image_size=64)
    assert convolutional(torch.zeros(2, 3, 96, 96)).shape == (2, 96)


def test_names_are_timms_and_the_file_tells_the_network(tmp_path: Path) -> None:
    backbone = TimmBackbone(name="test_vit", image_size=32)
    theirs = timm.create_model("test_vit", pretrained=False, num_classes=0, img_size=32)
    assert backbone.state_dict().keys() == theirs.state_dict().keys()
    file = export_backbone(backbone, tmp_path / "vit.safetensors")
    again = load_backbone(file)
    assert isinstance(again, TimmBackbone)
    assert (again.spec, again.pixel_mean) == (backbone.spec, (0.5, 0.5, 0.5))
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(x), backbone.eval()(x))


def test_a_checkpoint_tells_the_network(tmp_path: Path) -> None:
    """By shapes alone this would be torchvision's, with another normalisation."""
    backbone = TimmBackbone(name="resnet18")
    state = {f"query_encoder.{name}": t for name, t in backbone.state_dict().items()}
    content = {"state_dict": state, "metadata": {"backbone": backbone.spec}}
    torch.save(content, tmp_path / "last.ckpt")
    found = load_backbone(tmp_path / "last.ckpt")
    assert isinstance(found, TimmBackbone)
    file = export_backbone(tmp_path / "last.ckpt", tmp_path / "b.safetensors")
    assert "TimmBackbone" in read_checkpoint(file).metadata["backbone"]


def test_timm_s_own_weights_are_initial_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet", pretrained=False, num_classes=10)
    backbone = TimmBackbone(name="test_resnet")
    nn.init.zeros_(theirs.bn1.weight)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    report = load_initial_weights(backbone, tmp_path / "timm.pth")
    assert not report.missing
    assert set(report.left) == {"fc.weight", "fc.bias"}
    assert torch.equal(backbone.net.bn1.weight, theirs.bn1.weight)


def test_weights_of_another_size_say_how_they_are_taken(tmp_path: Path) -> None:
    theirs = timm.create_model("test_vit", pretrained=False, num_classes=0, img_size=64)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    with pytest.raises(UserError, match=r"pos_embed .*give backbone\.image_size as in"):
        load_initial_weights(TimmBackbone(name="test_vit", image_size=96), tmp_path / "timm.pth")
    backbone = TimmBackbone(name="test_vit", image_size=64)
    load_initial_weights(backbone, tmp_path / "timm.pth")
    assert backbone(torch.zeros(1, 3, 96, 96)).shape == (1, 64)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "resnet51"}, "timm has no network 'resnet51'; near it are .*resnet5"),
        (
            {"name": "resnet50.a1_in2k"},
            "no network 'resnet50.a1_in2k'; near it are resnet50.a1_in1k",
        ),
        ({"name": "test_resnet", "global_pool": "token"}, r"cannot build test_resnet\(global_pool"),
    ],
)
def test_what_cannot_be_built_is_told(options: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        TimmBackbone(**options)  # type: ignore[arg-type]


def test_a_token_s_features_have_no_map() -> None:
    backbone = TimmBackbone(name="test_vit")
    with pytest.raises(UserError, match=r"those of a token.*backbone\.global_pool=avg"):
        backbone.forward_map(torch.zeros(1, 3, 160, 160))


def test_without_timm_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vclr_lightning.models.timm.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'vclr_lightning\[timm\]'"):
        TimmBackbone(name="resnet50")
    register_resolvers()
    with pytest.raises(InterpolationResolutionError, match=r"pip install 'vclr_lightning\[timm\]'"):
        OmegaConf.to_container(OmegaConf.create({"a": "${timm_size:resnet50}"}), resolve=True)


def test_tsm_shifts_resnets_and_refuses_others() -> None:
    backbone = TimmBackbone(name="resnet10t")
    shift = TemporalShift(backbone)
    assert shift.layers == tuple(f"layer{i}.0.conv1" for i in (1, 2, 3, 4))
    shift.num_frames = 4
    assert backbone(torch.rand(4, 3, 64, 64)).shape == (4, 512)
    with pytest.raises(UserError, match="VisionTransformer has no blocks with conv1 and conv2"):
        TemporalShift(TimmBackbone(name="test_vit"))


def test_batchnorm_of_timm_is_not_made_another() -> None:
    backbone = TimmBackbone(name="test_efficientnet")
    assert any(isinstance(m, nn.BatchNorm2d) for m in key_copy(backbone, "split").modules())
    with pytest.raises(UserError, match="has BatchNormAct2d; take 'shuffle' or 'split'"):
        key_copy(backbone, "sync")


def test_evaluation_of_an_untrained_network_takes_its_size() -> None:
    config = {"image_size": None, "frames_per_clip": 1, "frame_stride": 1}
    spec = TimmBackbone(name="test_vit").spec
    assert inherited_settings({**config, "backbone": spec}, "none")["image_size"] == 160
