"""Stages as commands of their own: what is passed on, what comes back, and why one failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.models import TinyBackbone, export_backbone
from vclr_lightning.stages.shared.command import Command


def test_groups_of_the_command_line_win_and_values_of_the_evaluation() -> None:
    command = Command(
        choose={"stage": "finetune", "trainer": "cpu", "suite": "frozen"},
        set={"epochs": 3, "data": {"root": "a b"}},
        changes={"epochs": 4},
        given="trainer=ddp 'data.root=\"/my videos\"'",
    )
    assert command.arguments("out") == [
        *("stage=finetune", "+suite=frozen", "trainer=ddp", 'data.root="/my videos"'),
        *("epochs=4", "data.root='a b'", "run_dir=out"),
    ]


@pytest.fixture
def features(
    video_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    indexed: Callable[[Path], str],
) -> Command:
    monkeypatch.setenv("XDG_CACHE_HOME", indexed(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    weights = export_backbone(TinyBackbone(width=4), tmp_path / "a.backbone.safetensors")
    return Command(
        choose={"stage": "features", "trainer": "cpu"},
        set={
            "ckpt": str(weights),
            "resume": "auto",  # as of a stage that trains
            "image_size": 32,
            "features": {"num_frames": 2},
            "data": {"root": str(video_folder), "num_workers": 0},
            "stage": {"run": {"splits": ["train"]}},
        },
    )


def test_a_command_measures_and_notices_other_weights(features: Command, tmp_path: Path) -> None:
    folder = tmp_path / "of it's own"
    values = features(directory=folder)
    assert values["train/videos"] + values["train/rejected"] > 0
    assert (folder / "features.json").is_file()
    torch.manual_seed(1)
    export_backbone(TinyBackbone(width=4), tmp_path / "a.backbone.safetensors")
    with pytest.raises(UserError, match=r"other content of .*a\.backbone\.safetensors; give"):
        features(directory=folder)


def test_a_failure_is_told_in_its_own_words(
    features: Command,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a.backbone.safetensors").unlink()
    monkeypatch.delenv("VCLR_TRACEBACKS", raising=False)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # which the command sets
    with pytest.raises(UserError, match=r"no weights file at .*a\.backbone\.safetensors"):
        features(directory=tmp_path / "out")
    said = capfd.readouterr().err
    assert "error: there is no weights file" in said
    assert "UserError" not in said
