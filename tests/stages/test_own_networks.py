"""A network of the user's own goes through every stage as itself, and never as another."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from vclr_lightning import cli, train
from vclr_lightning.core.saved import load_dict
from vclr_lightning.evaluation.store import FeatureStore
from vclr_lightning.models import load_backbone

COMMON = ["trainer=cpu", "trainer.threads=1", "data.num_workers=0", "data.holdout=0.34"]
SHORT = ["batch_size=6", "epochs=1", "callbacks.online=null", "monitor=null"]
RUN = "outputs/pretrain/m"
# All names and shapes are those of torchvision's ResNet-18; its features are not.
SOURCE = """
import torchvision
from torch import nn

class Mirrored(nn.Module):
    def __init__(self, depths, scale=1.0):
        super().__init__()
        assert type(depths) is list
        block = torchvision.models.resnet.BasicBlock
        net = torchvision.models.ResNet(block, depths)
        for name, child in net.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, child)
        self.num_features, self.clip_dims, self.scale = 512, 2, scale

    def forward_map(self, x):
        x = x.flip(1)
        for child in self.children():
            x = child(x)
        return self.scale * x

    def forward(self, x):
        return self.forward_map(x).mean(dim=(2, 3))
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


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, video_folder: Path, indexed: Callable[[Path], str]
) -> Iterator[tuple[Path, list[str]]]:
    """A project with a network, pretrained; and the options of every command in it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mirrored.py").write_text(SOURCE)
    (folder / "conf/backbone").mkdir(parents=True)
    own = "_target_: mirrored.Mirrored\ndepths: [1, 1, 1, 1]\nscale: 1.0\n"
    (folder / "conf/backbone/mirrored.yaml").write_text(own)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", indexed(folder / "cache"))
        where = [*COMMON, "image_size=32", f"data.root={video_folder}"]
        words = ["backbone=mirrored", "backbone.depths=[2,2,2,2]", "backbone.scale=2.0"]
        chosen = ["--config-dir", "conf", *words, *SHORT, "queue_size=16", "name=m", *where]
        assert command(chosen) == 0
        yield folder, where
    sys.modules.pop("mirrored", None)


def features(folder: str) -> torch.Tensor:
    return FeatureStore.open(f"{folder}/val").mean


def test_checkpoint_and_export_say_what_it_is(folder: tuple[Path, list[str]]) -> None:
    recorded = load_dict(Path(RUN) / "last.ckpt")["metadata"]["backbone"]
    assert recorded == {
        "_target_": "mirrored.Mirrored",
        "depths": [2, 2, 2, 2],
        "scale": 2.0,
    }
    from vclr_lightning.models.checkpoints import read_checkpoint

    assert read_checkpoint(f"{RUN}/last.backbone.safetensors").spec == recorded


def test_every_stage_takes_the_class_of_the_project(
    folder: tuple[Path, list[str]], video_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, where = folder
    project = ["--config-dir", "conf"]
    for form in ("ckpt", "backbone.safetensors"):
        chosen = [*project, "stage=features", f"ckpt={RUN}/last.{form}", f"features.folder={form}"]
        assert command([*chosen, *where]) == 0
    explicit = [*project, "backbone=mirrored", "backbone.depths=[2,2,2,2]", "backbone.scale=2.0"]
    explicit += ["stage=features", f"ckpt={RUN}/last.ckpt", "features.folder=by_hand", *where]
    assert command(explicit) == 0
    assert torch.equal(features("ckpt"), features("by_hand"))
    assert torch.equal(features("ckpt"), features("backbone.safetensors"))

    for stage in ("linear_probe", "retrieval"):
        assert command([*project, f"stage={stage}", f"ckpt={RUN}/last.ckpt", *where]) == 0
    # An experiment that names ResNet-50 does not matter: the weights say what they are of.
    words = ["+experiment=k400", "stage=retrieval", f"ckpt={RUN}/last.ckpt", "name=e", *where]
    assert command([*project, *words]) == 0
    tuned = ["stage=finetune", f"init={RUN}/last.ckpt", "num_segments=2", "name=t", "test=null"]
    capfd.readouterr()
    assert command([*project, *tuned, *SHORT, *where]) == 0
    assert "need not compute the same" not in capfd.readouterr().out
    recorded = load_dict(Path("outputs/finetune/t/last.ckpt"))["metadata"]
    assert recorded["backbone"]["_target_"] == "mirrored.Mirrored"
    assert recorded["config"]["backbone"]["scale"] == 2.0

    video = next(video_folder.rglob("*.mp4"))
    shown = ["stage=gradcam", "ckpt=outputs/finetune/t/last.ckpt", f"others=[{RUN}/last.ckpt,none]"]
    shown += [f"videos=[{video}]", "stage.run.passes=2", "target=similarity", *where[:2]]
    assert command([*project, *shown]) == 0
    GlobalHydra.instance().clear()
    bench = ["stage=finetune", f"init={RUN}/last.ckpt", *SHORT, "num_segments=2", "num_classes=3"]
    bench = ["bench", "--config-dir", "conf", "--seconds", "2", "--no-variants", *bench, *where]
    level = logging.getLogger("vclr_lightning").level
    try:
        assert cli.main(bench) == 0
    finally:
        logging.getLogger("vclr_lightning").setLevel(level)


def test_outside_the_project_one_sentence(
    folder: tuple[Path, list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    _, where = folder
    sys.modules.pop("mirrored", None)
    for words in (
        ["stage=features", f"ckpt={RUN}/last.ckpt"],
        ["stage=linear_probe", f"ckpt={RUN}/last.backbone.safetensors"],
        ["stage=finetune", f"init={RUN}/last.ckpt", *SHORT, "name=u"],
        ["stage=retrieval", f"ckpt={RUN}/last.ckpt", "backbone=resnet18"],
        ["+experiment=k400", "stage=retrieval", f"ckpt={RUN}/last.ckpt", "backbone=resnet18"],
        ["stage=gradcam", f"ckpt={RUN}/last.ckpt"],
    ):
        capfd.readouterr()
        assert command([*words, *where]) == 2, words
        said = capfd.readouterr().err
        assert "mirrored.Mirrored(depths=[2, 2, 2, 2], scale=2.0)" in said
        assert "give --config-dir FOLDER of the project" in said
        assert said.count("\n") == 1
    assert "mirrored" not in sys.modules


def test_a_state_dict_alone_is_taken_for_what_it_looks_like_and_says_so(
    folder: tuple[Path, list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    _, where = folder
    from mirrored import Mirrored  # type: ignore[import-not-found]

    own = Mirrored([2, 2, 2, 2], scale=2.0)
    weights = load_backbone(f"{RUN}/last.ckpt", own).state_dict()
    torch.save(weights, "foreign.pth")
    capfd.readouterr()
    words = ["stage=features", "ckpt=foreign.pth", "features.folder=foreign", *where]
    assert command(words) == 0
    out = capfd.readouterr().out
    lines = [line for line in out.splitlines() if "does not say which network" in line]
    assert len(lines) == 1
    assert "WARNING" in lines[0]
    assert "TorchvisionResNet(name='resnet18'" in lines[0]
    assert not torch.allclose(features("foreign"), features("ckpt"))
