"""``stage=evaluate`` by the command: own videos, the paper's suite, and what is not at hand."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from vclr_lightning import train
from vclr_lightning.models import TinyBackbone, export_backbone

Main = Callable[..., SimpleNamespace]

SMALL = ["trainer=cpu", "trainer.threads=1", "image_size=32", "features.num_frames=2"]


@pytest.fixture
def main(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    indexed: Callable[[Path], str],
) -> Main:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", indexed(tmp_path / "cache"))

    def run(*arguments: object) -> SimpleNamespace:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments), *SMALL])
        code = 0
        try:
            train.main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        finally:
            HydraConfig.instance().cfg = None
        captured = capfd.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return export_backbone(TinyBackbone(width=4), tmp_path / "tiny.backbone.safetensors")


@pytest.fixture
def ucf101(video_folder: Path, tmp_path: Path) -> dict[str, Path]:
    """A few videos under names of UCF101, with its lists."""
    lists, videos = tmp_path / "lists", tmp_path / "ucf"
    lists.mkdir()
    found = sorted(video_folder.rglob("*.mp4"))
    names: dict[str, list[str]] = {"train": [], "test": []}
    for number, source in enumerate(found[:8]):
        action = ("Archery", "Biking")[number % 2]
        split = "train" if number < 4 else "test"
        name = f"{action}/v_{action}_g{number + 1:02d}_c01"
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, videos / f"{name}.mp4")
        label = f" {number % 2 + 1}" if split == "train" else ""
        names[split].append(f"{name}.avi{label}")
    (lists / "classInd.txt").write_text("1 Archery\r\n2 Biking\r\n")
    for split, lines in names.items():
        (lists / f"{split}list01.txt").write_text("\r\n".join(lines) + "\r\n")
    return {"videos": videos, "lists": lists}


def _folder(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "outputs/evaluate").iterdir()
    return folder


def _evaluations(folder: Path) -> dict[str, dict]:
    content = json.loads((folder / "evaluation.json").read_text())
    return {row["name"]: row for row in content["evaluations"]}


def test_own_videos(main: Main, weights: Path, video_folder: Path, tmp_path: Path) -> None:
    done = main(
        "stage=evaluate",
        f"ckpt={weights}",
        f"data.root={video_folder}",
        "data.holdout=0.34",
        "stage.run.untrained=true",
    )
    assert done.code == 0, done.err
    folder = _folder(tmp_path)
    rows = _evaluations(folder)
    assert list(rows) == ["linear_probe", "knn", "retrieval", "instance", "trivial"]
    for name, row in rows.items():
        assert row["status"] == "done"
        assert all(0 <= value <= 1 for value in row["values"].values())
        compared = {} if name == "trivial" else row["values"]
        assert row["values"].keys() == row["interval"].keys()
        assert compared.keys() == row["untrained"].keys() == row["difference"].keys()
        for measure, (difference, low, high) in row["difference"].items():
            rest = row["values"][measure] - row["untrained"][measure]
            assert low <= difference <= high
            assert difference == pytest.approx(rest)
    result = json.loads((folder / "result.json").read_text())
    assert result["retrieval/r1"] == rows["retrieval"]["values"]["r1"]
    page = (folder / "evaluation.html").read_text()
    assert page.count("<iframe") == 5
    features = list((tmp_path / "cache/vclr_lightning/features").iterdir())
    assert len(features) == 4  # two networks, two splits, whatever the number of evaluations


def test_the_frozen_suite_on_what_is_at_hand(
    main: Main, weights: Path, ucf101: dict[str, Path], tmp_path: Path
) -> None:
    done = main(
        "+suite=frozen",
        f"ckpt={weights}",
        f"data.roots.ucf101={ucf101['videos']}",
        f"data.annotations.ucf101={ucf101['lists']}",
    )
    assert done.code == 0, done.err
    rows = _evaluations(_folder(tmp_path))
    assert rows["ucf101_retrieval"]["status"] == "done"
    assert rows["ucf101_retrieval"]["paper"]["r1"] == 70.6
    assert set(rows["ucf101_retrieval"]["values"]) == {"r1"}  # of four training videos
    for name, key in {"k400_linear_probe": "k400", "hmdb51_retrieval": "hmdb51"}.items():
        assert rows[name]["status"] == "not run"
        assert rows[name]["reason"] == f"give data.roots.{key}=... data.annotations.{key}=..."
    assert "not run" in done.out


@pytest.mark.slow
def test_the_paper_s_suite_finetunes_and_shows_attention(
    main: Main, weights: Path, ucf101: dict[str, Path], tmp_path: Path
) -> None:
    changes = {"batch_size": 4, "epochs": 1, "image_size": 32, "num_classes": 2}
    (gone,) = ucf101["videos"].rglob("*_g08_*.mp4")
    gone.unlink()
    done = main(
        "+suite=paper",
        f"ckpt={weights}",
        f"data.roots.ucf101={ucf101['videos']}",
        f"data.annotations.ucf101={ucf101['lists']}",
        *(f"++suite.ucf101_finetune.run.set.{key}={value}" for key, value in changes.items()),
        *("+suite.ucf101_finetune.run.set.data.num_workers=0", "name=all"),
    )
    assert done.code == 0, done.err
    rows = _evaluations(_folder(tmp_path))
    finetuned = rows["ucf101_finetune"]
    assert finetuned["paper"] == {"top1": 85.6}
    assert finetuned["videos"] == {"train": 4, "test": 3}
    said = "1 of 4 test videos could not be indexed (1 x no such video); left out, and listed in"
    assert any(f"{said} test_rejected.csv" in note for note in finetuned["notes"])
    assert finetuned["chance"]["top1"] == 0.5
    assert (tmp_path / "outputs/evaluate/all/ucf101_finetune/last.ckpt").is_file()
    assert rows["ucf101_attention"]["status"] == "done"
    assert rows["activitynet_localize"]["status"] == rows["sthv2_tsm"]["status"] == "not run"
    page = (tmp_path / "outputs/evaluate/all/evaluation.html").read_text()
    assert page.count("<iframe") == 3


def test_a_folder_for_features_holds_those_of_every_data_set_and_of_the_untrained_network(
    main: Main, weights: Path, ucf101: dict[str, Path], tmp_path: Path
) -> None:
    given = ["+suite=frozen", f"ckpt={weights}", "stage.run.untrained=true"]
    given += [f"data.roots.ucf101={ucf101['videos']}", f"data.annotations.ucf101={ucf101['lists']}"]
    (tmp_path / "hmdb").mkdir()
    lists = tmp_path / "hmdb_lists"
    lists.mkdir()
    for source in sorted(ucf101["videos"].rglob("*.mp4")):
        shutil.copy(source, tmp_path / "hmdb" / f"of_{source.name}")
    for action in ("Archery", "Biking"):
        names = sorted(file.stem for file in (tmp_path / "hmdb").glob(f"*_{action}_*"))
        lines = [f"{name}.avi {1 + number % 2} " for number, name in enumerate(names)]
        (lists / f"{action}_test_split1.txt").write_text("\n".join(lines))
    given += [f"data.roots.hmdb51={tmp_path / 'hmdb'}", f"data.annotations.hmdb51={lists}"]
    done = main(*given, f"features.folder={tmp_path / 'features'}")
    assert done.code == 0, done.err
    found = {str(f.parent.relative_to(tmp_path)) for f in tmp_path.rglob("features/**/store.json")}
    splits = [f"{name}{of}" for name in ("ucf101", "hmdb51") for of in ("", "/untrained")]
    assert found == {f"features/{one}/{split}" for one in splits for split in ("train", "test")}


def test_videos_that_are_not_there_are_counted_listed_and_shown_once(
    main: Main, weights: Path, ucf101: dict[str, Path], tmp_path: Path
) -> None:
    gone = sorted(ucf101["videos"].rglob("*_g0[67]_*.mp4"))
    for file in gone:
        file.unlink()
    done = main(
        *("stage=evaluate", f"ckpt={weights}", "data=ucf101", f"data.root={ucf101['videos']}"),
        f"data.annotations={ucf101['lists']}",
    )
    assert done.code == 0, done.err
    folder = _folder(tmp_path)
    said = "2 of 4 test videos could not be indexed (2 x no such video); left out, and listed"
    rows = _evaluations(folder)
    for name in ("linear_probe", "knn", "retrieval"):
        row = rows[name]
        assert (row["videos"]["test"], row["published"]["test"]) == (2, 4)
        assert any(said in note for note in row["notes"])
        with (folder / name / "rejected.csv").open(newline="") as file:
            listed = list(csv.DictReader(file))
        assert [(one["split"], one["path"], one["reason"]) for one in listed] == [
            ("test", gone_file.stem, "no such video") for gone_file in sorted(gone)
        ]
    assert "linear_probe, knn, retrieval: " + said in done.out
    assert "test 2 of 4" in done.out
    assert "There is no R@5, R@10, R@20, R@50: there are only 4 training videos" in done.out
    page = (folder / "evaluation.html").read_text()
    assert said in page
    assert done.err.count("2 rejected, listed in") == 1  # by three evaluations of one data set


def test_one_data_set_s_mistake_does_not_lose_the_others(
    main: Main, weights: Path, ucf101: dict[str, Path], tmp_path: Path
) -> None:
    done = main(
        "+suite=frozen",
        f"ckpt={weights}",
        f"data.roots.ucf101={ucf101['videos']}",
        f"data.annotations.ucf101={ucf101['lists']}",
        f"data.roots.hmdb51={tmp_path / 'nowhere'}",
        f"data.annotations.hmdb51={ucf101['lists']}",
    )
    assert done.code == 2
    assert "1 of 3 evaluations failed; the first, hmdb51_retrieval" in done.err
    assert "Traceback" not in done.err
    rows = _evaluations(_folder(tmp_path))
    assert "does not exist" in rows["hmdb51_retrieval"]["reason"]
    assert rows["ucf101_retrieval"]["status"] == "done"


def test_nothing_at_hand_says_what_to_give(main: Main, weights: Path) -> None:
    done = main("+suite=frozen", f"ckpt={weights}")
    assert done.code == 2
    assert "give data.roots.k400=... data.annotations.k400=..." in done.err


@pytest.mark.slow
def test_the_demo_ends_in_it(main: Main, tmp_path: Path) -> None:
    done = main(
        "+experiment=demo",
        "epochs=1",
        "batch_size=8",
        "queue_size=16",
        "data.synthetic.train=2",
        "data.synthetic.val=1",
        "data.synthetic.untrimmed=12",
        "data.num_workers=0",
        "suite.finetune.run.set.epochs=1",
        "++suite.localize.run.set.epochs=1",
    )
    assert done.code == 0, done.err
    folder = tmp_path / "outputs/demo/demo"
    rows = _evaluations(folder)
    assert list(rows) == ["linear_probe", "knn", "retrieval", "finetune", "localize", "gradcam"]
    assert not rows.pop("gradcam")["values"]
    for row in rows.values():
        assert row["status"] == "done"
        assert row["untrained"].keys() == row["chance"].keys() == row["values"].keys()
    assert (folder / "report.html").is_file()
    assert (folder / "evaluation.html").is_file()
    assert "retrieval/r1" in json.loads((folder / "result.json").read_text())


def test_coclr_s_suite_on_what_is_at_hand(
    main: Main, weights: Path, ucf101: dict[str, Path], tmp_path: Path
) -> None:
    done = main(
        "+suite=coclr",
        f"ckpt={weights}",
        f"data.roots.ucf101={ucf101['videos']}",
        f"data.annotations.ucf101={ucf101['lists']}",
        *("suite.ucf101_finetune=null", "suite.ucf101_probe.run.node.probe.epochs=3"),
    )
    assert done.code == 0, done.err
    rows = _evaluations(_folder(tmp_path))
    assert list(rows) == ["ucf101_retrieval", "ucf101_probe"]
    assert all(row["videos"] == {"train": 4, "test": 4} for row in rows.values())
    assert rows["ucf101_retrieval"]["paper"] == {"r1": 51.7}
    page = (_folder(tmp_path) / "evaluation.html").read_text()
    assert "published for a network pretrained on UCF101." in page
    assert any("each set by its own mean" in note for note in rows["ucf101_retrieval"]["notes"])
    features = list((tmp_path / "cache/vclr_lightning/features").iterdir())
    assert len(features) == 2  # the probe's are those of the retrieval


@pytest.mark.slow
def test_dpc_s_suite_finetunes_and_says_what_is_missing(
    main: Main, weights: Path, ucf101: dict[str, Path], tmp_path: Path
) -> None:
    changes = {"batch_size": 4, "epochs": 1, "frames_per_clip": 1, "num_segments": 2}
    changes |= {"frame_stride": 1, "test.transform.crop": 40, "stage.run.sampler.min_frames": 22}
    done = main(
        "+suite=dpc",
        f"ckpt={weights}",
        f"data.roots.ucf101={ucf101['videos']}",
        f"data.annotations.ucf101={ucf101['lists']}",
        "+suite.ucf101_finetune.run.choose.backbone=tiny",
        "+suite.ucf101_finetune.run.set.backbone.width=4",
        *(f"++suite.ucf101_finetune.run.set.{key}={value}" for key, value in changes.items()),
        "+suite.ucf101_finetune.run.set.data.num_workers=0",
    )
    assert done.code == 0, done.err
    rows = _evaluations(_folder(tmp_path))
    assert rows["ucf101_finetune"]["status"] == "done"
    assert rows["ucf101_finetune"]["paper"] == {"top1": 62.7}
    assert rows["hmdb51_finetune"]["reason"].startswith("give data.roots.hmdb51=...")
