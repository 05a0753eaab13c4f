"""W&B's own sweeps: the file's command composes, and each run of an agent has its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module

from vclr_lightning.app.resolvers import group_shared, run_name, sweep_group, sweep_tags

FILE = Path(__file__).parents[2] / "examples" / "wandb_sweep.yaml"


def test_the_command_of_the_file_composes_with_every_value(monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load(FILE.read_text())
    first, *words = [word for word in sweep["command"] if word != "${env}"]
    assert [first, *words[:2]] == ["${interpreter}", "-m", "${program}"]
    assert sweep["program"] == "vclr_lightning.train"
    assert sweep["metric"] == {"name": "best", "goal": "maximize"}
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    ends: list[dict[str, Any]] = [
        {key: {"value": (one.get("values") or [one["min"], one["max"]])[at]} for key, one in
         sweep["parameters"].items()}
        for at in (0, -1)
    ]  # fmt: skip
    for args in ends:
        given = create_sweep_command_args({"args": args})["args_no_hyphens"]
        at = words.index("${args_no_hyphens}")
        with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
            cfg = compose("config", overrides=[*words[2:at], *given])
        assert cfg.num_segments == args["num_segments"]["value"]
        assert cfg.objective.weights.order == args["objective.weights.order"]["value"]
        assert cfg.optim.base_lr == args["optim.base_lr"]["value"]
        assert cfg.run_dir == "outputs/pretrain/search/r1"
        assert cfg.logger.wandb.name == "search/r1"


def test_only_an_agents_run_is_named_by_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    assert run_name("mine") == "mine"
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    assert run_name("mine") == "mine/r1"


def test_commands_that_a_run_starts_are_in_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VCLR_GROUP", raising=False)
    assert (sweep_group("mine"), sweep_tags()) == (None, "")
    with group_shared("mine"):
        assert (sweep_group("finetune"), sweep_tags()) == ("mine", "")  # as its command sees it
        with group_shared("finetune"):
            assert sweep_group("attention") == "mine"
        assert sweep_group("finetune") == "mine"
    assert sweep_group("mine") is None
    monkeypatch.setenv("VCLR_GROUP", '{"group": "s", "tags": "seed=1"}')  # of a sweep's job
    assert (sweep_group("s/seed=1"), sweep_tags()) == ("s", "seed=1")
