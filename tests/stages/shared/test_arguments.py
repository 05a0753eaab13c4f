"""Numbers that make no sense are refused by their key, before anything begins."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from vclr_lightning.app.configuration import resolved
from vclr_lightning.app.run import run
from vclr_lightning.core.errors import UserError
from vclr_lightning.objectives.heads import check_temperature
from vclr_lightning.stages.shared.arguments import check_arguments

TINY = (
    *("backbone=tiny", "backbone.width=4", "backbone.stages=1", "image_size=32", "batch_size=4"),
    *("queue_size=16", "trainer=cpu", "data.num_workers=0", "data.holdout=0.34", "init=none"),
)


def composed(*words: str) -> DictConfig:
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        return compose("config", overrides=list(words))


def numbers(node: Any, prefix: str = "") -> list[str]:
    """Keys of all numbers that are not computed from others."""
    found = []
    for key in range(len(node)) if OmegaConf.is_list(node) else node:
        if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
            continue
        child, name = node[key], f"{prefix}.{key}".lstrip(".")
        if OmegaConf.is_config(child):
            found += numbers(child, name)
        elif isinstance(child, int | float) and not isinstance(child, bool):
            found.append(name)
    return found


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "localize", "gradcam", "evaluate"])
def test_every_number_has_to_be_finite(stage: str) -> None:
    cfg = composed(f"stage={stage}", *TINY[:-2])
    keys = numbers(cfg)
    assert len(keys) > 20
    for key, value in zip(keys, 3 * len(keys) * ["inf", "nan", "-inf"], strict=False):
        other = cfg.copy()
        OmegaConf.update(other, key, float(value))
        with pytest.raises(UserError) as caught:
            resolved(other)
        assert str(caught.value) == f"{key}={value} must be a finite number"


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("data.timeout=20m", "data.timeout='20m' must be a number"),
        ("data.num_workers=two", "data.num_workers='two' must be a whole number"),
        ("+trainer.max_steps=1k", "trainer.max_steps='1k' must be a whole number"),
        ("+trainer.max_step=1", "trainer has no max_step; did you mean max_steps?"),
        ("data=synthetic data.eval_frames=x", "data.eval_frames='x' must be a whole number"),
        (
            "objective.objectives.intra._partial_=false",
            "objective.objectives.intra lacks num_features; give it, or, where the program does, "
            "set objective.objectives.intra._partial_=true",
        ),
        (
            "+objective.samplers.tuples.frames_in_clip=2",
            "objective.samplers.tuples has no frames_in_clip; did you mean frames_per_clip?",
        ),
    ],
)
def test_what_a_part_hands_on_is_checked_as_well(word: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        check_arguments(resolved(composed(*TINY, *word.split())))
    assert str(caught.value) == sentence


def test_what_is_infinite_by_itself_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_project")
    exec("def span(start=0.0, end=float('inf')): ...", vars(module))
    monkeypatch.setitem(sys.modules, "my_project", module)
    cfg = OmegaConf.create({"mine": {"_target_": "my_project.span", "end": float("inf")}})
    assert resolved(cfg)
    cfg.mine.start = float("-inf")
    with pytest.raises(UserError, match=r"mine\.start=-inf must be a finite number"):
        resolved(cfg)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optim.optimizer.momentum=2"], "optim.optimizer.momentum=2 must be at least 0 and below"),
        (
            ["optim.optimizer.weight_decay=-1"],
            "optim.optimizer cannot be set up: Invalid weight_decay",
        ),
        (["optim.optimizer.lr=-1"], "optim.optimizer cannot be set up: Invalid learning rate"),
        (
            ["optim=adamw", "+optim.optimizer.betas=[2,0.9]"],
            "optim.optimizer cannot be set up: Invalid",
        ),
        (["optim.scheduler.multiplier=0"], "multiplier=0 of the schedule must be at least 1"),
        (
            ["optim.scheduler.eta_min=-1"],
            "optim.scheduler cannot be set up: multiplier=100 of the schedule",
        ),
        (["stage=finetune", "optim.scheduler.gamma=-1"], "optim.scheduler.gamma=-1 must be above"),
        (["stage=localize", "module.scheduler.gamma=-1"], "module.scheduler.gamma=-1 must be abov"),
        (
            ["stage=localize", "module.optimizer.lr=-1"],
            "module.optimizer cannot be set up: Invalid learn",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_optimizers_and_schedules_are_tried_first(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        check_arguments(resolved(composed(*TINY, *words)))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("objective.objectives.inter.temperature=-1", "objective.objectives.inter.temperature=-1"),
        ("data.transform.blur_sigma=[2,1]", "data.transform.blur_sigma=[2, 1] is not possible"),
        ("objective.encoders.key.chunk=0", "objective.encoders.key.chunk=0 must be at least 1"),
        ("callbacks.checkpoint.every_n_steps=0", "callbacks.checkpoint.every_n_steps=0 of the"),
    ],
)
def test_values_that_a_part_refuses_are_told_by_key(
    word: str, said: str, video_folder: Path, tmp_path: Path
) -> None:
    where = (f"data.root={video_folder}", f"data.cache_dir={tmp_path}", f"run_dir={tmp_path}/run")
    with pytest.raises(UserError) as caught:
        run(composed(*TINY, *where, word))
    assert said in str(caught.value)


def test_classes_refuse_what_is_endless_themselves() -> None:
    for value in (0, float("inf"), float("nan")):
        with pytest.raises(UserError):
            check_temperature(value)


@pytest.mark.parametrize("part", ["encoders.teacher", "samplers.mine", "weights.mine"])
def test_a_part_of_the_method_outside_objective_is_named(part: str) -> None:
    cfg = composed(*TINY, f"+{part}=1")
    name = part.partition(".")[0]
    with pytest.raises(
        UserError, match=rf"{name} stands beside objective.*objective\.{name}\.NAME"
    ):
        check_arguments(resolved(cfg))
