"""`vclr bench` from end to end on small real videos: its structure, never its times."""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytorch_lightning import LightningDataModule

from vclr_lightning.bench import step as step_module
from vclr_lightning.bench.parts import parts_of
from vclr_lightning.bench.samples import PHASES
from vclr_lightning.bench.step import batch_of
from vclr_lightning.cli import main
from vclr_lightning.core.errors import UserError

Capture = pytest.CaptureFixture[str]

TINY = [
    "backbone=tiny",
    "backbone.width=4",
    "backbone.stages=1",
    "trainer=cpu",
    "image_size=32",
    "batch_size=4",
    "data.holdout=0.34",
]


@pytest.fixture(autouse=True)
def _elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indexed: Callable[[Path], str]
) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", indexed(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    level = logging.getLogger("vclr_lightning").level
    yield
    logging.getLogger("vclr_lightning").setLevel(level)


def test_a_run_is_measured(video_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    arguments = ["--seconds", "2", "--out", "bench.json", *TINY, "queue_size=16"]
    assert main(["bench", *arguments, f"data.root={video_folder}"]) == 0
    shown = capsys.readouterr().out
    for text in ("decode", "crop and augment", "the device takes", "measured with", "data.augment"):
        assert text in shown
    found = json.loads(Path("bench.json").read_text())
    assert found["overrides"] == [*TINY, "queue_size=16", f"data.root={video_folder}"]
    sample = found["sample"]
    assert list(sample["phases"]) == list(PHASES)
    assert sum(sample["phases"].values()) == pytest.approx(sample["cpu"])
    assert sum(sample["shares"].values()) == pytest.approx(1)
    assert sample["wait"] == pytest.approx(max(0, sample["wall"] - sample["cpu"]))
    step = found["step"]
    assert (step["batch"], step["videos"]) == (4, 4)
    assert step["steps"] >= 3
    assert step["videos_per_s"] == pytest.approx(step["videos"] / step["seconds"])
    assert step["memory"] > 0
    workers, run = found["workers"], found["run"]
    assert run["workers"] == min(workers["needed"], workers["available"])
    assert run["steps"] >= 3
    assert 0 <= run["wait"] <= 1
    variants = {variant["name"]: variant for variant in found["variants"]}
    assert {
        "data.augment=opencv",
        "data.augment=device",
        "vclr prepare",
        "vclr prepare, data.augment=opencv",
        "vclr prepare, data.augment=device",
        "vclr prepare --intra",
        "no B-frames, keyframes kept",
    } == variants.keys()
    for name, variant in variants.items():
        assert variant["cheaper"] > 0
        assert variant["videos_per_s"] > 0
        assert (variant["bytes_ratio"] == 1) is name.startswith("data.")
        assert ("vclr prepare" in variant["lines"][0]) is not name.startswith("data.")
    assert variants["vclr prepare, data.augment=opencv"]["lines"][1] == (
        "data.manifest=FOLDER/manifest.arrow data.augment=opencv"
    )
    assert found["advice"]["text"]
    assert not Path("outputs").exists()  # nothing was trained
    assert {path.name for path in tmp_path.iterdir()} == {"bench.json", "cache"}


def test_json_alone_and_no_variants(video_folder: Path, capsys: Capture) -> None:
    arguments = ["--seconds", "1", "--json", "--no-variants", *TINY, "stage=finetune"]
    more = ["backbone.width=4", "data.num_workers=0", f"data.root={video_folder}"]
    assert main(["bench", *arguments, *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["variants"] == []
    assert found["run"]["workers"] == 0


def test_several_processes_are_measured_by_one(video_folder: Path, capsys: Capture) -> None:
    arguments = ["--seconds", "1", "--json", "--no-variants", *TINY, "queue_size=16"]
    more = ["trainer.devices=2", "debug=fast", "data.num_workers=0", f"data.root={video_folder}"]
    # Options may stand among the values.
    assert main(["bench", *more, *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["step"]["batch"] == 2


def test_weights_that_a_run_needs_are_not_needed(video_folder: Path, capsys: Capture) -> None:
    arguments = ["--seconds", "1", "--json", "--no-variants", "+experiment=k400", *TINY]
    more = ["queue_size=16", "data.num_workers=0", f"data.root={video_folder}"]
    assert main(["bench", *arguments, *more]) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seconds", "0"], "--seconds 0 must be 1 or more"),
        (["--out", "none/bench.json"], "there is no folder"),
        (["--out", "."], "is a folder; give a file"),
        ([], "no videos are named"),
        (["data.root=nowhere"], "nowhere does not exist"),
        (["backbon=tiny"], "no backbon in the configuration; did you mean backbone"),
        (["backbone=tinny"], "there is no backbone=tinny"),
        (["batch_size"], "batch_size cannot be read as KEY=VALUE"),
        (["stage=features", "ckpt=none"], "stage=features does not train on videos"),
        (["trainer.devices=3", "trainer=cpu", "batch_size=4"], "shared evenly by 3 process"),
        (["--config-dir", "none"], "--config-dir none is no folder"),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], says: str, capsys: Capture) -> None:
    assert main(["bench", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.search(says, lines[0]), lines[0]


def test_too_few_videos_are_an_error_before_anything_is_measured(
    video_folder: Path, capsys: Capture
) -> None:
    assert (
        main(["bench", *TINY, "queue_size=16", "batch_size=64", f"data.root={video_folder}"]) == 2
    )
    assert "12 training videos" in capsys.readouterr().err


def test_own_options_and_the_network_of_the_present_folder(
    video_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])  # as of an installed command
    (tmp_path / "narrow.py").write_text(
        "from vclr_lightning.models import TinyBackbone\nclass Narrow(TinyBackbone): ...\n"
    )
    (tmp_path / "conf/backbone").mkdir(parents=True)
    own = "_target_: narrow.Narrow\nwidth: 8\nstages: 1\n"
    (tmp_path / "conf/backbone/mine.yaml").write_text(own)
    arguments = ["--seconds", "1", "--json", "--no-variants", "--config-dir", "conf", "trainer=cpu"]
    run = ["backbone=mine", *TINY[4:], "queue_size=16", "data.num_workers=0"]
    assert main(["bench", *arguments, *run, f"data.root={video_folder}"]) == 0


def test_a_stage_with_other_data_is_refused(tmp_path: Path) -> None:
    from functools import partial
    from types import SimpleNamespace

    def trainer(**_: object) -> SimpleNamespace:
        return SimpleNamespace()

    def stage(*, trainer: object, directory: Path, metadata: object) -> None:
        trainer().fit(None, datamodule=LightningDataModule())  # type: ignore[operator]

    with pytest.raises(UserError, match="does not train on videos"):
        parts_of(partial(stage, trainer=trainer), tmp_path)


def test_a_batch_repeats_its_samples() -> None:
    import torch

    samples = [{"x": torch.tensor(i), "rejected": [], "valid": True} for i in range(3)]
    assert batch_of(samples, 7)["x"].tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_what_cannot_be_loaded_is_not_measured_and_the_rest_is(
    video_folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "vclr_lightning.data.transforms.opencv", raising=False)
    monkeypatch.setitem(sys.modules, "cv2", None)  # importing it fails
    arguments = ["--seconds", "1", *TINY, "queue_size=16", "data.num_workers=0"]
    assert main(["bench", *arguments, f"data.root={video_folder}"]) == 0
    shown = capsys.readouterr().out
    assert "data.augment=opencv: not measured: OpenCV cannot be loaded" in shown
    assert "vclr prepare --intra" in shown


def test_an_interruption_of_training_stays_one(
    video_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_unused: object) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(step_module._StepTimer, "on_train_batch_end", interrupted)
    arguments = ["--seconds", "1", *TINY, "queue_size=16", f"data.root={video_folder}"]
    try:
        assert main(["bench", *arguments]) == 130
    finally:
        signal.signal(signal.SIGINT, handler)  # which Lightning turns off
