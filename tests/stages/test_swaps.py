"""Stages are swapped beneath an experiment, and networks come from the weights: real runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from vclr_lightning import train
from vclr_lightning.core.saved import load_dict

SHORT = ("epochs=1", "batch_size=6", "trainer.log_every_n_steps=1", "monitor=null")
TINY = "vclr_lightning.models.TinyBackbone"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, video_folder: Path) -> Path:
    """A folder with what ``+experiment=demo stage=pretrain`` leaves."""
    folder = tmp_path_factory.mktemp("swaps")
    words = (*SHORT, "queue_size=16", "callbacks.online=null", *where(folder, video_folder))
    assert run(folder, "+experiment=demo", "stage=pretrain", *words) == (0, "")
    return folder


def where(folder: Path, videos: Path) -> tuple[str, ...]:
    places = (f"data.root={videos}", f"data.cache_dir={folder}/cache")
    return (*places, "data.num_workers=0", "data.holdout=0.34")


def run(folder: Path, *words: object) -> tuple[int, str]:
    """Run the command in ``folder``; returns its status and the sentence that it ends with."""
    GlobalHydra.instance().clear()
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(sys, "argv", ["train", *map(str, words)])
        patch.setattr("builtins.print", lambda *text, **_: said.append(str(text[0])))
        code = 0
        try:
            train.main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        finally:
            HydraConfig.instance().cfg = None
    return code, "".join(line for line in said if line.startswith("error:"))


def recorded(folder: Path, run: str) -> dict:
    return yaml.safe_load((folder / "outputs" / run / "config.yaml").read_text())


WEIGHTS = "outputs/pretrain/demo/last.ckpt"


@pytest.mark.parametrize(
    ("experiment", "stage", "words"),
    [
        ("demo", "finetune", (f"init={WEIGHTS}", *SHORT)),
        (
            "demo",
            "evaluate",
            (f"ckpt={WEIGHTS}", *(f"suite.{n}=null" for n in ("finetune", "localize", "gradcam"))),
        ),
        ("k400", "linear_probe", (f"ckpt={WEIGHTS}", "trainer=cpu")),
        ("ucf101_finetune", "retrieval", (f"ckpt={WEIGHTS}", "trainer=cpu", "data=videos")),
        ("hmdb51_finetune", "features", (f"ckpt={WEIGHTS}", "trainer=cpu", "data=videos")),
        ("sthv2_tsm", "gradcam", (f"ckpt={WEIGHTS}", "trainer=cpu", "stage.run.passes=2")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pairs_run(
    experiment: str, stage: str, words: tuple[str, ...], folder: Path, video_folder: Path
) -> None:
    places = where(folder, video_folder)
    if stage == "gradcam":  # of single files, without the data set's own lists
        video = next(video_folder.rglob("*.mp4"))
        places = (f"videos=[{video}]",)
    words = (f"+experiment={experiment}", f"stage={stage}", *words, *places)
    assert run(folder, *words) == (0, "")
    config = recorded(folder, f"{stage}/{experiment}")
    assert config["image_size"] == 32
    if stage == "finetune":
        assert config["backbone"]["_target_"] == TINY
        assert (config["module"]["head"], config["num_segments"]) == ("tsm", 6)
    elif experiment != "demo":
        assert config["backbone"] is None  # the checkpoint's, whatever the experiment says


def test_localisation_by_the_demo_s_experiment(folder: Path) -> None:
    small = ("data.synthetic.train=1", "data.synthetic.val=1", "data.synthetic.untrimmed=8")
    words = ("+experiment=demo", "stage=localize", f"init={WEIGHTS}", *small)
    assert run(folder, *words, "epochs=1", "batch_size=4", "data.num_workers=0") == (0, "")
    values = json.loads((folder / "outputs/localize/demo/result.json").read_text())
    assert values["train/videos"] + values["test/videos"] == 8


def test_weights_bring_their_network(folder: Path, video_folder: Path) -> None:
    words = ("stage=finetune", f"init={WEIGHTS}", "image_size=32", "num_segments=2", *SHORT)
    words += ("callbacks.online=null", "test=null", "trainer=cpu", "name=own")
    words += where(folder, video_folder)
    assert run(folder, *words) == (0, "")
    config = recorded(folder, "finetune/own")
    assert config["backbone"] == config["module"]["backbone"]
    assert (config["backbone"]["_target_"], config["backbone"]["width"]) == (TINY, 16)
    assert load_dict(folder / "outputs/finetune/own/last.ckpt")["metadata"]["config"] == config

    # Continued, its own checkpoint says what it is.
    moved = (folder / WEIGHTS).rename(folder / "moved.ckpt")
    try:
        assert run(folder, *words, "epochs=2")[0] == 2  # another recipe
        assert run(folder, *words) == (0, "")
    finally:
        moved.rename(folder / WEIGHTS)

    # Pretraining goes on from weights with their network, too.
    more = ("stage=pretrain", "queue_size=16", f"init={WEIGHTS}", "image_size=32", *SHORT)
    more += ("callbacks.online=null", "trainer=cpu", "name=on", *where(folder, video_folder))
    assert run(folder, *more) == (0, "")
    assert recorded(folder, "pretrain/on")["backbone"]["width"] == 16


def test_a_network_that_is_chosen_wins(folder: Path, video_folder: Path) -> None:
    words = (f"init={WEIGHTS}", "image_size=32", "trainer=cpu", *where(folder, video_folder))
    for chosen in ("backbone=resnet18", "+experiment=k400"):  # which names ResNet-50
        code, said = run(folder, chosen, "stage=finetune", "name=chosen", *words)
        assert code == 2
        assert "the file fits TinyBackbone(width=16" in said
        assert "backbone=as_init" in said
    code, said = run(folder, "stage=features", f"ckpt={WEIGHTS}", "backbone=resnet18", *words)
    assert code == 2
    assert "backbone=as_init" in said
