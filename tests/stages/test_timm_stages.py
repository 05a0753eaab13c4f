"""A network of timm, and one of someone else's making, through the stages."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from vclr_lightning import train
from vclr_lightning.evaluation.store import FeatureStore
from vclr_lightning.models import TimmBackbone, WrappedBackbone, load_backbone
from vclr_lightning.models.backbone import unwrap

COMMON = ["trainer=cpu", "trainer.threads=1", "data.num_workers=0", "data.holdout=0.34"]
SHORT = ["batch_size=4", "epochs=1", "callbacks.online=null"]
RESNET = ["backbone=timm", "backbone.name=test_resnet", "image_size=32"]
FILES = ("last.ckpt", "last.backbone.safetensors")
VIT = ["backbone=timm", "backbone.name=test_vit"]
OTHERS = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x):
        return self.norm(self.conv(x))
"""


def command(arguments: Sequence[str]) -> int:
    """Run the command in this process; returns its status."""
    GlobalHydra.instance().clear()
    before, sys.argv = sys.argv, ["train", *arguments]
    try:
        train.main()
    except SystemExit as exit:
        return int(exit.code or 0)
    finally:
        HydraConfig.instance().cfg = None
        sys.argv = before
    return 0


@pytest.fixture(autouse=True)
def _elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indexed: Callable[[Path], str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", indexed(tmp_path / "cache"))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")


def test_a_resnet_of_timm_goes_through_all_stages(video_folder: Path) -> None:
    where = f"data.root={video_folder}"
    assert command([*RESNET, *SHORT, *COMMON, "queue_size=16", "name=a", where]) == 0
    run = Path("outputs/pretrain/a")
    backbone = load_backbone(run / "last.ckpt")
    assert isinstance(backbone, TimmBackbone)
    assert backbone.pixel_mean == (0.5, 0.5, 0.5)
    exported = load_backbone(run / "last.backbone.safetensors")
    assert isinstance(exported, TimmBackbone)
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, exported.state_dict()[name]), name

    features = ["stage=features", f"ckpt={run}/last.ckpt", "features.folder=f", *COMMON, where]
    assert command(features) == 0
    store = FeatureStore.open("f/val")
    assert store.mean.shape[1] == 96
    assert store.provenance["pixels"] == {"mean": [0.5] * 3, "std": [0.5] * 3}

    tuned = ["stage=finetune", "module.head=tsm", "num_segments=2", f"init={run}/last.ckpt"]
    assert command([*tuned, *RESNET, *SHORT, *COMMON, "name=b", where]) == 0
    assert isinstance(load_backbone("outputs/finetune/b/last.ckpt"), TimmBackbone)

    video = next(video_folder.rglob("*.mp4"))
    shown = ["stage=gradcam", "ckpt=outputs/finetune/b/last.ckpt", f"videos=[{video}]", "name=c"]
    assert command([*shown, "trainer=cpu", "trainer.threads=1", "stage.run.passes=2"]) == 0
    assert any(Path("outputs/gradcam/c").rglob("*.html"))


def test_a_transformer_is_trained_at_its_own_size(
    video_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    where = f"data.root={video_folder}"
    few = ["trainer.limit_train_batches=1", "queue_size=16", "batch_size=2"]
    assert command([*VIT, *SHORT, *COMMON, *few, "name=v", where]) == 0
    backbone = load_backbone("outputs/pretrain/v/last.ckpt")
    assert isinstance(backbone, TimmBackbone)
    assert backbone.image_size == 160
    with Path("outputs/pretrain/v/metrics.csv").open() as file:
        assert next(csv.DictReader(file))["train/loss"]
    capfd.readouterr()
    refused = [*VIT, *SHORT, *COMMON, "stage=finetune", "module.head=tsm", "name=w", where]
    assert command(refused) == 2
    assert "VisionTransformer has no blocks with conv1 and conv2" in capfd.readouterr().err


def test_a_network_of_one_s_own_comes_back_from_its_checkpoint(
    video_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "others.py").write_text(OTHERS)
    (tmp_path / "conf/backbone").mkdir(parents=True)
    (tmp_path / "conf/backbone/mine.yaml").write_text(
        "_target_: vclr_lightning.models.WrappedBackbone\nnum_features: 6\n"
        "net:\n  _target_: others.Net\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = ["--config-dir", str(tmp_path / "conf"), "backbone=mine", "image_size=32"]
    where = f"data.root={video_folder}"
    assert command([*mine, *SHORT, *COMMON, "queue_size=16", "name=m", where]) == 0
    from others import Net

    net = Net()
    loaded = load_backbone("outputs/pretrain/m/last.ckpt", WrappedBackbone(net, num_features=6))
    exported = load_backbone("outputs/pretrain/m/last.backbone.safetensors", Net())
    for name, tensor in unwrap(loaded).state_dict().items():
        assert torch.equal(tensor, exported.state_dict()[name]), name
    features = ["stage=features", "ckpt=outputs/pretrain/m/last.ckpt", "features.folder=f"]
    assert command([*mine, *features, *COMMON, where]) == 0
    # The run can be continued; it is complete.
    assert command([*mine, *SHORT, *COMMON, "queue_size=16", "name=m", where]) == 0


def test_a_network_that_bears_the_names_of_another_is_never_taken_for_it(
    video_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "alike.py").write_text(
        "from vclr_lightning.models import TinyBackbone\n\n"
        "class Rooted(TinyBackbone):\n"
        "    def forward_map(self, x):\n"
        "        return super().forward_map(x).sqrt()\n"
    )
    (tmp_path / "conf/backbone").mkdir(parents=True)
    (tmp_path / "conf/backbone/mine.yaml").write_text("_target_: alike.Rooted\nwidth: 8\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine = ["--config-dir", str(tmp_path / "conf"), "backbone=mine"]
    where = [f"data.root={video_folder}", "image_size=32"]
    assert command([*mine, *SHORT, *COMMON, "queue_size=16", "name=m", *where]) == 0
    capfd.readouterr()
    for file in FILES:
        features = ["stage=features", f"ckpt=outputs/pretrain/m/{file}", *COMMON, *where]
        assert command(features) == 2
        said = capfd.readouterr().err
        assert "weights of alike.Rooted(width=8" in said
        assert "give --config-dir FOLDER of the project whose backbone/NAME.yaml names it" in said
        assert command([*mine, *features, f"features.folder=of-{file}"]) == 0
    one, other = (FeatureStore.open(f"of-{file}/val").mean for file in FILES)
    assert torch.equal(one, other)
    tuned = [
        "stage=finetune",
        "init=outputs/pretrain/m/last.ckpt",
        "backbone=tiny",
        "num_segments=2",
    ]
    capfd.readouterr()
    assert command([*tuned, "backbone.width=8", *SHORT, *COMMON, "name=t", *where]) == 0
    assert "was trained as alike.Rooted(width=8)" in capfd.readouterr().out


def test_a_transformer_goes_on_at_another_size_and_is_explained(
    video_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    where = [*COMMON, f"data.root={video_folder}"]
    small = [*VIT, "image_size=64", *SHORT, "trainer.limit_train_batches=1", "queue_size=16"]
    assert command([*small, "batch_size=2", "name=v", *where]) == 0
    run = "outputs/pretrain/v/last.ckpt"
    capfd.readouterr()
    features = ["stage=features", f"ckpt={run}", "image_size=96", "features.folder=f"]
    assert command([*features, *where]) == 0
    assert "positions of VisionTransformer are those of 64 pixels" in capfd.readouterr().out
    backbone = load_backbone(run)
    assert (type(backbone), backbone.image_size) == (TimmBackbone, 64)
    tuned = ["stage=finetune", f"init={run}", "image_size=96", "num_segments=2", "name=t"]
    assert command([*tuned, *SHORT, "test=null", *where]) == 0
    for stage, key in (("features", "ckpt"), ("finetune", "init"), ("gradcam", "ckpt")):
        words = [f"stage={stage}", f"{key}={run}", "image_size=72", f"name=no-{stage}", *where]
        words += SHORT if stage == "finetune" else []
        capfd.readouterr()
        assert command(words) == 2
        said = capfd.readouterr().err
        assert "give an image_size that is a multiple of 16" in said
        assert said.count("\n") == 1
    assert not Path("outputs/finetune/no-finetune/last.ckpt").exists()
    video = next(video_folder.rglob("*.mp4"))
    shown = ["stage=gradcam", f"ckpt={run}", f"videos=[{video}]", "name=c", "stage.run.passes=2"]
    assert command([*shown, "trainer=cpu", "trainer.threads=1"]) == 0
    content = json.loads(Path("outputs/gradcam/c/gradcam.json").read_text())
    assert content["networks"][0]["layer"] == "blocks.5.norm1"
