"""What may differ between a checkpoint and the run that continues it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.stages.shared.resume import check_same_run, set_aside
from vclr_lightning.stages.shared.run_config import differences

SAVED: dict[str, Any] = {
    "stage": {"name": "pretrain"},
    "epochs": 4,
    "trainer": {"threads": 1, "accelerator": "cpu"},
    "backbone": {"_target_": "a.Net", "width": 8},
    "objective": {"weights": {"inter": 1.0}},
}


def test_a_key_added_later_is_no_difference_at_its_packaged_value() -> None:
    now = SAVED | {"backbone": {"_target_": "a.Net", "width": 8, "new": 1}, "other": 2}
    assert list(differences(SAVED, now, [])) == []
    assert list(differences(SAVED, now, ["backbone.width", "back", "epochs"])) == []
    assert list(differences(SAVED, now, ["backbone.new"])) == [("backbone.new", None, 1)]
    assert [key for key, *_ in differences(SAVED, now)] == ["backbone.new", "other"]


def test_a_run_of_the_first_s3d_goes_on_as_it_was_begun() -> None:
    """Its BatchNorm was torchvision's, which its configuration did not say."""
    old = {"_target_": "vclr_lightning.models.TorchvisionVideo", "name": "s3d"}
    now = {**old, "bn_momentum": 0.1, "bn_eps": 1e-5}
    saved, new = SAVED | {"backbone": old}, SAVED | {"backbone": now}
    assert sorted(differences(saved, new, [])) == [
        ("backbone.bn_eps", 0.001, 1e-5),
        ("backbone.bn_momentum", 0.001, 0.1),
    ]
    given = SAVED | {"backbone": {**now, "bn_momentum": 0.001, "bn_eps": 0.001}}
    assert list(differences(saved, given, ["backbone.bn_eps", "backbone.bn_momentum"])) == []


def test_other_parts_and_losses_are_differences_all_the_same() -> None:
    part = SAVED | {"backbone": {"_target_": "b.Net", "width": 8, "new": 1}}
    assert {k for k, *_ in differences(SAVED, part, [])} == {"backbone._target_", "backbone.new"}
    losses = SAVED | {"objective": {"weights": {"inter": 1.0, "intra": 1.0}}}
    assert list(differences(SAVED, losses, [])) == [("objective.weights.intra", None, 1.0)]


def test_threads_and_accelerator_may_differ_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "last.ckpt"
    torch.save({"metadata": {"config": SAVED}}, file)
    caplog.set_level(logging.INFO)
    check_same_run(file, config=SAVED)
    assert not caplog.text
    other = SAVED | {"trainer": {"threads": 2, "accelerator": "auto"}}
    other |= {"module": {"channels_last": None, "compile": {"mode": "default"}}}
    check_same_run(file, config=other)
    assert "trainer.threads=2 (was 1)" in caplog.text
    assert "trainer.accelerator=auto (was cpu)" in caplog.text
    assert "module.compile.mode=default (was None)" in caplog.text
    assert "bit-equal" in caplog.text
    with pytest.raises(UserError, match=r"epochs=4 \(now 5\): give"):
        check_same_run(file, config=other | {"epochs": 5})


def test_the_log_and_wandb_go_with_the_run_set_aside(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for folder in ("wandb", ".hydra", "job"):
        (run / folder).mkdir(parents=True)
    (run / "last.ckpt").touch()
    with (run / "train.log").open("a") as log:
        log.write("old\n")
        log.flush()
        aside = set_aside(run)
        log.write("new\n")
    assert aside == tmp_path / "run.1"
    assert sorted(p.name for p in aside.iterdir()) == ["last.ckpt", "train.log", "wandb"]
    assert (aside / "train.log").read_text() == "old\n"
    assert (run / "train.log").read_text() == "new\n"


def test_what_differs_within_lists_is_told_by_its_key(tmp_path: Path) -> None:
    """Not the list, twice and whole; nor what follows from another value."""
    saved = SAVED | {
        "num_segments": 3,
        "data": {"crops": [{"_target_": "a.Crop", "num_segments": 3, "draws": "with"}]},
        "optim": {"scheduler": {"milestones": [20, 40]}},
    }
    now = SAVED | {
        "num_segments": 2,
        "data": {"crops": [{"_target_": "a.Crop", "num_segments": 2, "draws": "with"}]},
        "optim": {"scheduler": {"milestones": [30]}},
    }
    assert list(differences(saved, now)) == [
        ("data.crops.0.num_segments", 3, 2),
        ("num_segments", 3, 2),
        ("optim.scheduler.milestones", [20, 40], [30]),
    ]
    file = tmp_path / "last.ckpt"
    torch.save({"metadata": {"config": saved}}, file)
    derived = {"data.crops.0.num_segments"}
    with pytest.raises(UserError) as raised:
        check_same_run(file, config=now, derived=derived)
    assert "made with num_segments=3 (now 2), optim.scheduler.milestones=[20, 40]" in str(
        raised.value
    )
    assert "data.crops" not in str(raised.value)
    # Where nothing else differs, it was given by hand, then or now.
    same = now | {"num_segments": 3, "optim": saved["optim"]}
    with pytest.raises(UserError, match=r"data\.crops\.0\.num_segments=3 \(now 2\): give"):
        check_same_run(file, config=same, derived=derived)
