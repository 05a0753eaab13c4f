"""The five published recipes: every value, and that they build."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vclr_lightning.app.configuration import resolved
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.transforms import AreaCrop, MultiScaleCrop
from vclr_lightning.modules import FinetuneModule

# Section 6 of the method: classes, segments, test frames, crops and size, crop, flip, rate, global
# batch, weight decay, epochs, milestones, clip of the gradient, dropout, head, standard deviation
# of the classifier's first weights.
AREA, FIVE, THIRTEEN = AreaCrop(), MultiScaleCrop(), MultiScaleCrop(positions=13)
RECIPES: dict[str, tuple[Any, ...]] = {
    "ucf101_finetune": (
        *(101, 3, 25, "center", 256, AREA, 0.5),
        *(0.01, 256, 5e-4, 300, [120, 240], 40, 0.4, "tsn", 0.001),
    ),
    "hmdb51_finetune": (
        *(51, 8, 8, "center", 256, AREA, 0.5),
        *(0.025, 256, 1e-4, 50, [20, 40], 40, 0.4, "tsn", 0.01),
    ),
    "sthv2_tsn": (
        *(174, 8, 8, "ten", 224, FIVE, 0.0),
        *(0.02, 128, 1e-4, 50, [20, 40], 40, 0.5, "tsn", 0.01),
    ),
    "sthv2_tsm": (
        *(174, 8, 8, "center", 224, THIRTEEN, 0.0),
        *(0.0075, 48, 5e-4, 50, [20, 40], 20, 0.5, "tsm", 0.001),
    ),
    "activitynet_finetune": (
        *(200, 8, 25, "three", 256, AREA, 0.5),
        *(0.01, 64, 1e-4, 50, [20, 40], 40, 0.8, "tsn", 0.01),
    ),
}


@cache
def composed(*overrides: str) -> DictConfig:
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.mark.parametrize("experiment", RECIPES)
def test_recipes_build_with_every_value(
    experiment: str, video_folder: Path, tmp_path: Path
) -> None:
    where = (f"data.root={video_folder}", f"data.cache_dir={tmp_path}", f"run_dir={tmp_path}/run")
    cfg = composed(f"+experiment={experiment}", "data=videos", "trainer=cpu", "init=none", *where)
    assert resolved(cfg)
    built = instantiate(cfg.stage.run).keywords
    values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    assert isinstance(built["data"], VideoDataModule)
    module = built["module"](num_classes=built["num_classes"])
    assert isinstance(module, FinetuneModule)
    optimizer = built["module"].keywords["optimizer"]([torch.zeros(1, requires_grad=True)])
    group = optimizer.param_groups[0]
    scheduler = built["module"].keywords["scheduler"](optimizer, steps_per_epoch=1, epochs=300)
    trainer = built["trainer"]()
    test, transform = built["test"], built["transform"]
    found = (
        *(built["num_classes"], built["sampler"].num_segments, test.num_segments),
        *(test.transform.crops, test.transform.size, transform.crop, transform.flip_p),
        *(group["lr"], built["data"].batch_size, group["weight_decay"], trainer.max_epochs),
        *(scheduler.milestones, trainer.gradient_clip_val, module.dropout.p, module.head),
    )
    assert found == RECIPES[experiment][:-1]
    std = float(module.classifier.weight.detach().std())  # of at least 100,000 values
    assert std == pytest.approx(RECIPES[experiment][-1], rel=0.02)
    assert (transform.size, transform.resize, test.transform.resize) == (224, 256, 256)
    assert (group["momentum"], scheduler.gamma) == (0.9, 0.1)
    assert values["backbone"]["name"] == "resnet50"
    assert not module.frozen


@pytest.mark.parametrize("experiment", RECIPES)
def test_the_learning_rate_follows_the_batch(experiment: str) -> None:
    lr, batch = RECIPES[experiment][7:9]
    cfg = composed(f"+experiment={experiment}", f"batch_size={batch // 2}")
    assert cfg.optim.optimizer.lr == pytest.approx(lr / 2)


@pytest.mark.parametrize("experiment", ["ucf101_finetune", "hmdb51_finetune"])
def test_recipes_without_a_split_val_train_on_every_training_video(experiment: str) -> None:
    cfg = composed(f"+experiment={experiment}", "init=none")
    assert (cfg.data.holdout, cfg.monitor, cfg.callbacks.online) == (0, None, None)
