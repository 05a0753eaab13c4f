"""The command: help at once, and one sentence for every mistake."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from vclr_lightning import train
from vclr_lightning.app.explain import explain
from vclr_lightning.app.run import run
from vclr_lightning.core.locks import in_use

Main = Callable[..., SimpleNamespace]

TINY = [
    "backbone=tiny",
    "backbone.width=4",
    "backbone.stages=1",
    "trainer=cpu",
    "image_size=32",
    "batch_size=4",
    "queue_size=16",
    "epochs=1",
    "data.num_workers=0",
    "data.holdout=0.34",
]


@pytest.fixture
def main(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    indexed: Callable[[Path], str],
) -> Main:
    """Run the command in this process, in an empty folder."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    def run(*arguments: object) -> SimpleNamespace:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        code = 0
        try:
            train.main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        finally:
            HydraConfig.instance().cfg = None
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", indexed(tmp_path / "cache"))
    return run


def test_help_imports_nothing_heavy_and_lists_every_option() -> None:
    code = (
        "import sys; from vclr_lightning import train; sys.argv = ['train', '--help'];"
        "train.main(); assert not {'torch', 'pytorch_lightning', 'hydra'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for option in ("k400", "ucf101", "released", "inter_intra", "resnet50", "wandb", "fast"):
        assert option in done.stdout


def _pitfalls(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "a_file").write_text("text")
    torch.save({"state_dict": {"w": torch.zeros(1)}}, folder / "weights.pth")
    (folder / "own" / "objective").mkdir(parents=True)
    for name, text in {
        "list": "- a\n- b\n",
        "broken": "samplers: {a: 1\nweights: 2\n",
        "words": "defaults: part/tuples\n",
        "empty": "",
    }.items():
        (folder / "own" / "objective" / f"{name}.yaml").write_text(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["data.root=FOLDER"]),
        (["data.root=nowhere"], ["nowhere", "does not exist"]),
        (["data.root=empty"], ["no videos", "empty"]),
        (["num_segment=3"], ["num_segment", "did you mean num_segments?"]),
        (["trainer.device=2"], ["did you mean trainer.devices?"]),
        (["objectives=inter"], ["did you mean objective?"]),
        (["backbone=resnet49"], ["backbone=resnet49", "resnet18", "resnet50"]),
        (["optim.base_lr=-1"], ["optim.base_lr=-1 must be"]),
        (["switch.final_lr=low"], ["switch.final_lr='low' must be"]),
        (["data.transform={kind: x}"], ["no data.transform.kind", "'~data.transform'"]),
        (["recipe=k400"], ["give one of: common", "pretrain/k400"]),
        (["+experiment=k40"], ["experiment=k40", "k400"]),
        (["experiment=k400"], ["+experiment="]),
        (["preset=released"], ["+preset="]),
        (["a=[1"], ["a=[1"]),
        (["+experiment=k400", "data.root=nowhere"], ["init=none"]),
        (["trainer=gpu", "data.root={videos}"], ["gpu"]),
        (["data.root={videos}", "num_segments=x"], ["num_segments='x'", "whole number"]),
        (["objective=list", "--config-dir", "own"], ["objective must be a mapping"]),
        (["objective=broken", "--config-dir", "own"], ["no YAML", "line 2 of", "broken.yaml"]),
        (["objective=words", "--config-dir", "own"], ["objective/words", "must be a list"]),
        (["objective=empty", "--config-dir", "own"], ["objective.objectives=None", "a value"]),
        (["data.root={videos}", "objective.samplers.tuples=null"], ["samplers.tuples is null"]),
        (["-m", "run_dir=mine", "num_segments=2,3"], ["run_dir=mine", "every job", "name=..."]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_sentence_and_status_2(
    arguments: list[str], words: list[str], main: Main, video_folder: Path, tmp_path: Path
) -> None:
    _pitfalls(tmp_path)
    given = [argument.replace("{videos}", str(video_folder)) for argument in arguments]
    named = {argument.split("=")[0].lstrip("+") for argument in given}
    defaults = [argument for argument in TINY if argument.split("=")[0] not in named]
    if "experiment" in named or "backbone" in named:
        defaults = [argument for argument in defaults if not argument.startswith("backbone")]
    done = main(*defaults, *given)
    assert done.code == 2
    assert "Traceback" not in done.err
    (sentence,) = [line for line in done.err.splitlines() if line.startswith("error:")]
    for word in words:
        assert word in sentence


def test_a_run_s_folder_is_its_own(main: Main, video_folder: Path, tmp_path: Path) -> None:
    holder, there = os.fork(), tmp_path / "there"
    if holder == 0:
        with in_use(tmp_path / "mine"):
            there.touch()
            time.sleep(1000)
    try:
        while not there.exists():
            time.sleep(0.005)
        for stage in ("pretrain", "features"):
            words = ("run_dir=mine", f"stage={stage}", "ckpt=none", f"data.root={video_folder}")
            done = main(
                *(word for word in TINY if stage == "pretrain" or "queue" not in word), *words
            )
            assert done.code == 2
            assert f"mine is in use by process {holder} on " in done.err
            assert not (tmp_path / "mine" / "config.yaml").exists()
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)


@pytest.mark.parametrize(
    ("environment", "devices", "words"),
    [
        ({"LOCAL_RANK": "1"}, 1, ["LOCAL_RANK=1", "unset"]),
        ({"RANK": "1", "WORLD_SIZE": "2"}, 1, ["RANK=1 WORLD_SIZE=2", "torchrun"]),
        ({"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}, 2, ["without srun"]),
        ({"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2"}, 1, ["torchrun started 2"]),
    ],
    ids=["local rank", "rank", "slurm", "torchrun"],
)
def test_another_launcher_s_environment_is_recognised(
    environment: dict[str, str],
    devices: int,
    words: list[str],
    main: Main,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = main(*TINY, f"trainer.devices={devices}", "run_dir=mine", "data.root=.")
    assert done.code == 2
    (sentence,) = [line for line in done.err.splitlines() if line.startswith("error:")]
    for word in words:
        assert word in sentence
    assert not (tmp_path / "mine" / "config.yaml").exists()


def test_a_slurm_session_runs_on_one_device(
    main: Main, monkeypatch: pytest.MonkeyPatch, video_folder: Path, tmp_path: Path
) -> None:
    for name, value in {"JOB_ID": "7", "NTASKS": "4", "PROCID": "0", "JOB_NAME": "x"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    where = (f"data.root={video_folder}", "callbacks.online=null", "monitor=null", "run_dir=mine")
    done = main(*TINY, *where)
    assert done.code == 0, done.err
    assert (tmp_path / "mine" / "result.json").exists()


def test_a_full_disk_at_the_start_is_one_sentence(main: Main, video_folder: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        whole = main(*TINY, f"data.root={video_folder}")
        unlogged = main(*TINY, f"data.root={video_folder}", "hydra.output_subdir=null")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for done in (whole, unlogged):
        assert done.code == 2
        assert "Traceback" not in done.err
        (sentence,) = [line for line in done.err.splitlines() if line.startswith("error:")]
        assert "File too large" in sentence


@pytest.fixture(scope="module")
def tiny() -> DictConfig:
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        return compose("config", overrides=TINY)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"data.root": "a_file"}, ["a_file", "no folder"]),
        ({"data.manifest": "a_file"}, ["a_file", "no manifest"]),
        ({"data.train_list": "nowhere.txt"}, ["nowhere.txt"]),
        ({"data.kinetics": ["nowhere.csv"]}, ["nowhere.csv"]),
        ({"data.group_regex": "("}, ["regular expression"]),
        ({"data.holdout": 2}, ["holdout=2"]),
        ({"data.holdout": 0}, ["hold videos out", "callbacks.online=null"]),
        ({"data.colour": 1}, ["colour"]),
        ({"data.transform.size": 0}, ["size"]),
        ({"data.reader._target_": "my.Reader"}, ["my.Reader"]),
        ({"init": "nowhere.pth"}, ["nowhere.pth"]),
        ({"init": "a_file"}, ["a_file"]),
        ({"init": "weights.pth"}, ["weights.pth", "no weights for"]),
        ({"ckpt": "nowhere.ckpt"}, ["nowhere.ckpt"]),
        ({"ckpt": "a_file"}, ["a_file", "does not begin as a file of PyTorch"]),
        ({"ckpt": "weights.pth"}, ["weights.pth", "init="]),
        ({"resume": "maybe"}, ["resume=maybe", "auto or never"]),
        ({"seed": -1}, ["seed=-1"]),
        ({"num_segments": 0}, ["num_segments=0"]),
        ({"batch_size": 0}, ["batch_size=0"]),
        ({"batch_size": 1000}, ["batch_size=1000", "12 training videos"]),
        ({"batch_size": 4.5}, ["batch_size=4.5", "whole number"]),
        ({"batch_size": "abc"}, ["batch_size='abc'", "whole number"]),
        ({"optim.base_lr": "foo"}, ["optim.base_lr='foo' must be a number"]),
        ({"trainer.gradient_clip_val": -1}, ["trainer.gradient_clip_val=-1 must be above 0"]),
        ({"trainer.limit_train_batches": 0}, ["trainer.limit_train_batches=0", "1 or more"]),
        ({"trainer.overfit_batches": -1}, ["trainer.overfit_batches=-1", "1 or more"]),
        ({"epochs": 0}, ["epochs=0"]),
        ({"queue_size": 0}, ["size"]),
        ({"trainer.precision": 17}, ["17"]),
        ({"trainer.matmul_precision": "low"}, ["matmul_precision=low"]),
        ({"trainer.accumulate_grad_batches": 3}, ["batch_size=4"]),
        ({"trainer.foo": 3}, ["foo"]),
        ({"switch.intra_form": "both"}, ["both"]),
        ({"switch.own_mask": "some"}, ["some"]),
        ({"objective.encoders.key.batchnorm": "some"}, ["some"]),
        ({"momentum": 2}, ["momentum=2"]),
        ({"objective.weights.speed": 1}, ["speed"]),
        ({"optim.optimizer.nesterofs": True}, ["nesterofs", "did you mean nesterov?"]),
        ({"callbacks.mine": {"_target_": "my.Callback"}}, ["my.Callback"]),
        ({"callbacks.checkpoint.mode": "most"}, ["mode=most"]),
        ({"callbacks.online.instance": False}, ["monitor=val/instance_r1"]),
        ({"data.classes": "none", "monitor": "val/knn_r1"}, ["needs labels"]),
        (
            {"data.classes": "none", "callbacks.online.knn": True},
            ["none of the 12 videos of train has a label", "callbacks.online.knn=false"],
        ),
    ],
    ids=str,
)
def test_a_wrong_value_is_one_sentence(
    wrong: dict[str, Any],
    words: list[str],
    tiny: DictConfig,
    video_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    indexed: Callable[[Path], str],
) -> None:
    monkeypatch.chdir(tmp_path)
    _pitfalls(tmp_path)
    cfg = tiny.copy()
    cache = indexed(tmp_path / "index") + "/vclr_lightning"
    values = {"data.root": str(video_folder), "data.cache_dir": cache} | wrong
    if "data.manifest" in wrong:
        del values["data.root"]
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, force_add=True)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run(cfg)
    sentence = explain(caught.value)
    assert sentence is not None
    assert "\n" not in sentence
    for word in words:
        assert word in sentence


@pytest.fixture(scope="module")
def trained_once(
    tiny: DictConfig, video_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    cfg = tiny.copy()
    cfg.data.root, cfg.data.cache_dir = str(video_folder), str(folder / "index")
    with contextlib.chdir(folder):
        assert run(cfg)
    return folder


@pytest.fixture
def trained(trained_once: Path, video_folder: Path, tmp_path: Path) -> list[str]:
    """The command of a run that stands complete in the present folder."""
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    return [*TINY, f"data.root={video_folder}", f"data.cache_dir={tmp_path}/index"]


def test_a_run_leaves_its_documented_files(main: Main, trained: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "outputs/pretrain/default"
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "best.backbone.safetensors",
        "best.ckpt",
        "config.yaml",
        "last.backbone.safetensors",
        "last.ckpt",
        "metrics.csv",
        "result.json",
    }
    measured = json.loads((folder / "result.json").read_text())
    assert {"start/val/instance_r1", "val/instance_r1"} <= measured.keys()
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    assert saved["metadata"]["config"]["num_segments"] == 3
    assert saved["metadata"]["version"]
    assert saved["VideoDataModule"]["train"]  # the manifest's fingerprint

    from vclr_lightning.models import load_backbone

    assert load_backbone(folder / "last.backbone.safetensors").num_features == 8
    before = {name: (folder / name).read_bytes() for name in ("metrics.csv", "result.json")}
    again = main(*trained)  # complete: nothing is done
    assert again.code == 0
    assert before == {name: (folder / name).read_bytes() for name in before}
    (folder / "result.json").write_bytes(bytes(40))  # as a power cut leaves files
    assert main(*trained).code == 0
    assert json.loads((folder / "result.json").read_text())["best"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("queue_size=24", ["queue_size=16 (now 24)"]),
        ("num_segments=2", ["num_segments=3 (now 2)"]),
        ("batch_size=2", ["batch_size=4 (now 2)"]),
        ("objective=inter", ["objective.weights"]),
        ("seed=1", ["seed=0 (now 1)"]),
        ("trainer.precision=bf16-mixed", ["precision"]),
        ("data.holdout=0.5", ["data.holdout"]),
    ],
)
def test_another_run_is_not_continued(
    change: str, words: list[str], main: Main, trained: list[str], tmp_path: Path
) -> None:
    before = (tmp_path / "outputs/pretrain/default/metrics.csv").read_bytes()
    key = change.split("=")[0]
    done = main(*(a for a in trained if not a.startswith(key + "=")), change)
    assert done.code == 2
    for word in [*words, "resume=never", "name="]:
        assert word in done.err
    assert (tmp_path / "outputs/pretrain/default/metrics.csv").read_bytes() == before


def test_never_resuming_moves_the_old_run_aside(
    main: Main, trained: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "outputs/pretrain/default"
    old = {path.name: path.read_bytes() for path in folder.glob("*.*") if path.is_file()}
    assert main(*trained, "resume=never", "seed=5").code == 0
    aside = tmp_path / "outputs/pretrain/default.1"
    for name in ("last.ckpt", "best.ckpt", "metrics.csv", "config.yaml"):
        assert (aside / name).read_bytes() == old[name]
    new = torch.load(folder / "last.ckpt", weights_only=True)
    assert new["metadata"]["config"]["seed"] == 5


def test_debug_runs_keep_nothing(main: Main, video_folder: Path, tmp_path: Path) -> None:
    for debug in ("fast", "overfit"):
        rest = [a for a in TINY if not a.startswith("epochs")]
        done = main(*rest, f"data.root={video_folder}", f"debug={debug}", "trainer.max_epochs=2")
        assert done.code == 0, done.err
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    "experiment", [["+experiment=k400", "init=none"], ["+experiment=demo", "data.holdout=0.34"]]
)
def test_debug_wins_over_experiments(
    main: Main, video_folder: Path, tmp_path: Path, experiment: list[str]
) -> None:
    where = f"data.root={video_folder}"
    tiny = ["backbone=tiny", "image_size=32", "batch_size=4", "queue_size=16", "trainer=cpu"]
    done = main(*experiment, where, *tiny, "data.num_workers=0", "debug=fast")
    assert done.code == 0, done.err
    (run,) = (tmp_path / "outputs").glob("*/*")
    assert run.name == "debug"
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["epochs"] == 1
    assert saved["callbacks"]["online"] is None
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_sweep_gives_each_job_a_folder(main: Main, video_folder: Path, tmp_path: Path) -> None:
    done = main(
        "-m",
        *(a for a in TINY if not a.startswith("epochs")),
        f"data.root={video_folder}",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=1",
        "callbacks.online=null",
        "num_segments=1,2",
        "objective=inter,vclr",
        "name=sweep",
    )
    assert done.code == 0, done.err
    # The first word, before the jobs are composed.
    assert done.err.splitlines()[0] == f"sweep of 4 jobs in {tmp_path / 'outputs/pretrain/sweep'}"
    found = list((tmp_path / "outputs/pretrain/sweep").rglob("metrics.csv"))
    assert len(found) == 4
    assert len({path.parent for path in found}) == 4
    for path in found:
        assert ("num_segments=1" in str(path)) != ("num_segments=2" in str(path))


def test_initial_weights_are_reported(
    main: Main, trained: list[str], tmp_path: Path, video_folder: Path
) -> None:
    backbone = tmp_path / "outputs/pretrain/default/last.backbone.safetensors"
    done = main(*trained, "name=next", f"init={backbone}")
    assert done.code == 0
    assert "initial weights" in done.err


def test_the_released_recipe_trains(main: Main, video_folder: Path) -> None:
    done = main(*TINY, f"data.root={video_folder}", "+preset=released")
    assert done.code == 0, done.err


def test_wandb_works_offline_without_an_account(
    main: Main,
    video_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import wandb

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", secret := "f" * 40)
    arguments = [*TINY, f"data.root={video_folder}", "logger=wandb", "logger.wandb.offline=true"]
    done = main(*arguments, "trainer.log_every_n_steps=1")
    wandb.teardown()  # older versions keep the key in this process
    assert done.code == 0, done.err
    folder = tmp_path / "outputs/pretrain/default"
    assert list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert (folder / "metrics.csv").exists()
    text = done.out + done.err + "".join(p.read_text() for p in folder.glob("*.log"))
    assert secret not in text
    config: Any = (folder / "config.yaml").read_text()
    assert secret not in config


@pytest.mark.parametrize("bad", [1, 9])
def test_bad_videos_are_replaced_listed_and_at_some_point_too_many(
    bad: int, main: Main, video_folder: Path, tmp_path: Path
) -> None:
    from vclr_lightning.data.indexing import ensure_manifest

    root = tmp_path / "videos"
    shutil.copytree(video_folder, root)
    table = ensure_manifest(root, cache_dir=tmp_path / "index", show=False)
    for path in sorted(root.rglob("*.mp4"))[:bad]:
        path.write_bytes(b"damaged")
    arguments = [a for a in TINY if not a.startswith("data.holdout")]
    done = main(
        *arguments,
        f"data.manifest={table.file}",
        "data.holdout=0.1",
        "data.max_rejected_share=0.2",
        "callbacks.online=null",
        "epochs=2",
        "batch_size=2",
    )
    with (tmp_path / "outputs/pretrain/default/rejected.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert all("grow" in row["path"] or "left" in row["path"] for row in listed)
    if bad == 1:
        assert done.code == 0, done.err
        assert len(listed) <= 1
    else:
        assert done.code == 2
        assert "videos could not be read" in done.err
        assert "rejected.csv" in done.err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("optim.optimizer.lr=-1", "optim.optimizer cannot be set up: Invalid learning rate"),
        ("logger=null", "a group cannot be null"),
        ("seed=4294967296", "must be below 4294967296"),
        ("data.reader=abc", "data.reader='abc' must have a _target_"),
        ("monitor=val/foo", "monitor=val/foo is nothing that callbacks.online measures"),
        ("data.frames_per_clip=4", "the evaluation during training: the 2D backbone takes single"),
        ("+callbacks.foo.bar=1", "callbacks.foo is no callback of Lightning"),
        ("run_dir=afile/x", "afile/x cannot be used: Not a directory"),
    ],
)
def test_impossible_values_are_one_sentence(
    main: Main, video_folder: Path, tmp_path: Path, wrong: str, said: str
) -> None:
    (tmp_path / "afile").touch()
    done = main(*TINY, f"data.root={video_folder}", wrong)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
