"""Networks of the configuration are pretrained, continued, exported, evaluated, finetuned."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models.video as tv
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from torchvision.models.video.mvit import MSBlockConfig, MViT
from torchvision.models.video.swin_transformer import SwinTransformer3d

from vclr_lightning import train
from vclr_lightning.evaluation.store import FeatureStore
from vclr_lightning.models import load_backbone

CONF = Path(__file__).parents[2] / "conf/backbone"
CLIP = ["frames_per_clip=4", "image_size=32"]
THIN = [*CLIP, "backbone.width=8"]
ALL_STAGES = {  # what the layers of the others have, too
    "mvit": CLIP,
    "resnet18_2d3d_dpc": CLIP,
    "s3d": ["frames_per_clip=8", "image_size=32"],
    "slow_r50": THIN,
    "swin3d": CLIP,
    "timm": ["backbone.name=test_vit", "image_size=32"],
    "tiny": ["backbone.width=8", "image_size=32"],
    "tsm18": CLIP,
}
ONE_STEP = {
    "c3d": ["frames_per_clip=8", "image_size=32"],
    "cvrl_r50": THIN,
    "fast_r50": THIN,
    "r2plus1d10": CLIP,
    "r3d10": CLIP,
    "r3d18": [*CLIP, "backbone.name=mc3_18"],
    "resnet18": ["backbone.small_stem=true", "image_size=32"],
    "resnet18_2d3d": CLIP,
    "s3dg": CLIP,
}
# Of a class that is above; larger.
OTHERS = {"as_init", "r2plus1d18", "resnet34_2d3d", "resnet50", "tsm50"}
STOPPER = """
import os, signal
from pytorch_lightning import Callback

class Stopper(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if os.environ.get("STOP_AFTER") == str(trainer.global_step):
            os.kill(os.getpid(), signal.SIGTERM)
"""


def test_no_network_is_left_out() -> None:
    assert {*ALL_STAGES, *ONE_STEP, *OTHERS} == {path.stem for path in CONF.glob("*.yaml")}


@pytest.fixture
def command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    video_folder: Path,
    indexed: Callable[[Path], str],
) -> Callable[[Sequence[str]], int]:
    """``command(arguments)`` runs a stage on the videos in this process; returns its status."""
    (tmp_path / "stopper.py").write_text(STOPPER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", indexed(tmp_path / "cache"))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    common = ["trainer=cpu", "trainer.threads=1", "data.num_workers=0", "data.holdout=0.34"]
    common += [f"data.root={video_folder}"]

    def run(arguments: Sequence[str]) -> int:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["train", *arguments, *common])
        try:
            train.main()
        except SystemExit as exit:
            return int(exit.code or 0)
        finally:
            HydraConfig.instance().cfg = None
        return 0

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["backbone=resnet18", "frames_per_clip=4", "image_size=32"],
            "the 2D backbone takes single frames, but the data gives clips of 4 frames; set "
            "frames_per_clip=1 or use a 3D backbone",
        ),
        (
            ["backbone=slow_r50", "backbone.width=8", "image_size=32"],
            "the 3D backbone takes clips, but the data gives single frames; set frames_per_clip",
        ),
        (
            ["backbone=s3d", "frames_per_clip=4", "image_size=32"],
            "S3D takes clips of at least 8 frames of 17 x 17 pixels, and these have 4 of 32 x 32; "
            "raise frames_per_clip or image_size",
        ),
    ],
    ids=["clips", "frames", "small"],
)
def test_other_clips_are_refused_before_a_step(
    arguments: list[str],
    said: str,
    command: Callable[[Sequence[str]], int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    short = ["batch_size=2", "epochs=1", "num_segments=2", "objective=video", "queue_size=16"]
    assert command([*arguments, *short, "name=refused"]) == 2
    errors = capfd.readouterr().err
    assert said in " ".join(errors.split())
    assert "Traceback" not in errors
    assert not Path("outputs/pretrain/refused/last.ckpt").exists()


@pytest.fixture(autouse=True)
def _small_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    swin = partial(
        SwinTransformer3d,
        patch_size=[2, 4, 4],
        embed_dim=12,
        depths=[1, 1, 2],
        num_heads=[1, 2, 4],
        window_size=[8, 7, 7],
    )
    stages = [
        MSBlockConfig(1, 8, 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 4, 4]),
        MSBlockConfig(2, 16, 16, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 2, 2]),
    ]
    mvit = partial(
        MViT,
        spatial_size=(224, 224),
        temporal_size=16,
        block_setting=stages,
        residual_pool=True,
        residual_with_cls_embed=False,
        rel_pos_embed=True,
        proj_after_attn=True,
    )
    for name, build in (("swin3d_t", swin), ("mvit_v2_s", mvit)):
        monkeypatch.setattr(tv, name, lambda weights=None, build=build: build(num_classes=5))


def weights(path: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


SHORT = ["batch_size=2", "epochs=1", "num_segments=2", "callbacks.online=null"]
STRAIGHT = "outputs/pretrain/straight/last.ckpt"


def pretraining(name: str, sizes: list[str], steps: int) -> list[str]:
    short = [*SHORT, f"trainer.limit_train_batches={steps}", "objective=video", "queue_size=16"]
    return [f"backbone={name}", *sizes, *short]


def exported() -> Any:
    """The network of the export, which is that of the checkpoint."""
    saved: Any = load_backbone(STRAIGHT)
    network: Any = load_backbone(STRAIGHT.replace(".ckpt", ".backbone.safetensors"))
    assert network.spec == saved.spec
    side = network.spec.get("image_size", 32)
    clip = (9, side, side) if saved.clip_dims == 3 else (side, side)
    x = torch.rand(2, 3, *clip)
    with torch.no_grad():
        features = network(x)
        assert features.shape == (2, saved.num_features)
        assert torch.equal(features, saved(x))
    return network


@pytest.mark.parametrize("name", ONE_STEP)
def test_a_network_is_pretrained_and_exported(
    name: str, command: Callable[[Sequence[str]], int]
) -> None:
    assert command([*pretraining(name, ONE_STEP[name], 1), "name=straight"]) == 0
    exported()


@pytest.mark.parametrize("name", ALL_STAGES)
def test_a_network_goes_through_all_stages(
    name: str,
    command: Callable[[Sequence[str]], int],
    monkeypatch: pytest.MonkeyPatch,
    video_folder: Path,
) -> None:
    pretrain = pretraining(name, ALL_STAGES[name], 2)
    pretrain += ["+callbacks.stop_early._target_=stopper.Stopper"]
    assert command([*pretrain, "name=straight"]) == 0
    # Stopped after a step, it continues to the same weights.
    monkeypatch.setenv("STOP_AFTER", "1")
    assert command([*pretrain, "name=stopped"]) == 143
    monkeypatch.delenv("STOP_AFTER")
    first = weights("outputs/pretrain/stopped/last.ckpt")
    assert command([*pretrain, "name=stopped"]) == 0
    straight, stopped = weights(STRAIGHT), weights("outputs/pretrain/stopped/last.ckpt")
    assert straight.keys() == stopped.keys()
    assert all(torch.equal(tensor, stopped[key]) for key, tensor in straight.items())
    assert any(not torch.equal(tensor, first[key]) for key, tensor in straight.items())

    network = exported()
    sizes = [word for word in ALL_STAGES[name] if "backbone" not in word]
    few = ["features.num_frames=2", "features.folder=f"]
    assert command(["stage=features", f"ckpt={STRAIGHT}", *few, *sizes]) == 0
    store = FeatureStore.open("f/val")
    assert store.mean.shape[1] == network.num_features
    assert torch.as_tensor(store.mean).isfinite().all()
    short = [*SHORT, "trainer.limit_train_batches=1", "name=tuned"]
    assert command(["stage=finetune", f"init={STRAIGHT}", *short, *sizes]) == 0
    assert load_backbone("outputs/finetune/tuned/last.ckpt").spec == network.spec
    shown = f"videos=[{next(video_folder.rglob('*.mp4'))}]"
    few = ["stage.run.passes=2", "name=shown", *sizes]
    assert command(["stage=gradcam", "ckpt=outputs/finetune/tuned/last.ckpt", shown, *few]) == 0
    assert any(Path("outputs/gradcam/shown").rglob("*.html"))
