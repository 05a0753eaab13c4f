"""Every network of the package is explained, on a small real video."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from vclr_lightning.data.transforms import EvalTransform
from vclr_lightning.models import TimmBackbone
from vclr_lightning.stages.gradcam.stage import gradcam

SIZE = 64
OPTIONS = sorted(
    file.name.removesuffix(".yaml")
    for file in resources.files("vclr_lightning.conf.backbone").iterdir()
    if file.name.endswith(".yaml")
    and "_target_: vclr_lightning.models." in file.read_text()  # not as_init, nor another's variant
    and file.name != "timm.yaml"
)


def explained(backbone: nn.Module, video: Path, folder: Path) -> None:
    result = gradcam(
        ckpt="none",
        backbone=backbone,
        videos=[video],
        directory=folder,
        frames_per_clip=8 if backbone.clip_dims == 3 else 1,  # type: ignore[attr-defined]
        transform=EvalTransform(size=SIZE, resize=SIZE),
        num_frames=2,
        passes=2,
        size=40,
        show=False,
    )
    assert result["videos"] == 1
    assert not [note for note in result.notes if "no heat" in note]
    assert len(list(folder.glob("*.mp4"))) == 1


@pytest.mark.parametrize("option", OPTIONS)
def test_every_network(option: str, video_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = resources.files("vclr_lightning.conf.backbone") / f"{option}.yaml"
    node = OmegaConf.create(source.read_text())
    backbone = instantiate(node.get("backbone", node))
    explained(backbone, min(video_folder.rglob("*.mp4")), tmp_path)


@pytest.mark.parametrize(
    "name", ["test_vit", "test_vit2", "test_vit4", "test_convnext", "swin_tiny_patch4_window7_224"]
)
def test_networks_of_timm(name: str, video_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone(name=name, image_size=SIZE)
    explained(backbone, min(video_folder.rglob("*.mp4")), tmp_path)
