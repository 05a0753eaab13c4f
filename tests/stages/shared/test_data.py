"""Videos of a test set are not trained on unawares."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.manifest import Info, Manifest, Row, write_manifest
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.transforms import EvalTransform, PretrainTransform
from vclr_lightning.stages.shared.data import check_official, video_data

UCF101 = [f"Run/v_Run_g{group:02}_c01.avi" for group in range(1, 26)]
HMDB51 = [f"sit/Film{k}_sit_u_nm_np{k % 3}_ba_med_{k}.avi" for k in range(6)]


def table(folder: Path, rows: Sequence[Row], source: str = "folder") -> Manifest:
    return Manifest.load(write_manifest(folder / "m.arrow", rows, Info(root=folder, source=source)))


@pytest.mark.parametrize("paths", [UCF101, HMDB51])
@pytest.mark.parametrize("source", ["folder", "folder; prepared from /ucf101"])
def test_a_published_set_without_its_lists_is_refused(
    tmp_path: Path, paths: list[str], source: str
) -> None:
    name = "ucf101" if paths is UCF101 else "hmdb51"
    with pytest.raises(UserError, match=rf"data={name} with data\.annotations.*dataset=whole"):
        check_official(table(tmp_path, [Row(path=path) for path in paths], source))


def test_what_an_official_split_allows_is_taken(tmp_path: Path) -> None:
    """The training videos of split 2, as a folder of their own or beside the others."""
    tested = {f"g{group:02}" for group in range(8, 15)}
    rows = [Row(path=p, split="test" if p[10:13] in tested else "train") for p in UCF101]
    check_official(table(tmp_path, rows))
    check_official(table(tmp_path, [row for row in rows if row.split == "train"]))
    check_official(table(tmp_path, [Row(path=p) for p in UCF101], "lists train=mine.txt"))
    check_official(table(tmp_path, [Row(path=p) for p in UCF101[::12]]))
    check_official(table(tmp_path, [Row(path=f"{k}.mp4") for k in range(30)]))
    halves = [Row(path=p, split="train" if k % 2 else "test") for k, p in enumerate(HMDB51)]
    check_official(table(tmp_path, halves))


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("kinetics400", [f"run/abc-efgh_{k:02}_{k:06}_{k + 10:06}.mp4" for k in range(9)]),
        ("activitynet", [f"v_abc-efgh_{k:02}.mkv" for k in range(9)]),
        ("sthv2", [f"{k}.webm" for k in range(9)]),
    ],
)
def test_names_of_a_published_set_in_one_folder_are_mentioned(
    tmp_path: Path, name: str, paths: list[str]
) -> None:
    rows = [Row(path=path) for path in paths]
    assert f"data={name} takes its official lists" in str(check_official(table(tmp_path, rows)))
    assert check_official(table(tmp_path, rows, f"{name}, split 1, by /lists")) is None
    parted = [Row(path=f"val/{path}", split="val") for path in paths]
    assert check_official(table(tmp_path, rows + parted)) is None


def test_lists_of_one_s_own_with_test_videos_are_mentioned(tmp_path: Path) -> None:
    rows = [Row(path=path) for path in UCF101]
    said = str(check_official(table(tmp_path, rows, "lists train=mine.txt")))
    assert "some are test videos whichever official split is meant" in said
    tested = {f"g{group:02}" for group in range(8, 15)}
    official = [row for row in rows if row.path[10:13] not in tested]
    assert check_official(table(tmp_path, official, "lists train=trainlist02.txt")) is None


def test_a_group_on_two_sides_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        *(Row(path=f"{k}.mp4", group=g) for k, g in enumerate("abab")),
        *(Row(path=f"{k}.mp4", group=g, split="test") for k, g in enumerate("acc", 4)),
        Row(path="9.mp4", group="d", split="val"),
    ]
    data = {
        "samplers": {"tuples": TupleSampler()},
        "transform": PretrainTransform(size=32),
        "eval_transform": EvalTransform(size=32, resize=36),
        "batch_size": 2,
        "num_workers": 0,
    }
    file = table(tmp_path, rows, "").file
    video_data(manifest=file, **data)
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert "1 of 3 videos of test are of 1 groups (sources) that train has" in said
    assert "such as a:" in said
    assert "of val" not in said
    video_data(manifest=table(tmp_path, [r for r in rows if r.split != "test"]).file, **data)
    assert capsys.readouterr().err == ""


def test_the_experiment_asks_for_the_lists(tmp_path: Path) -> None:
    with initialize_config_module("vclr_lightning.conf", version_base="1.3"):
        data = compose("config", overrides=["+experiment=ucf101", f"data.root={tmp_path}"]).data
    with pytest.raises(UserError, match="official files of UCF101 are missing"):
        video_data(root=data.root, dataset=data.dataset, annotations=data.annotations)


def test_videos_are_prepared_once(
    video_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = {"short_edge": 32, "keyframe_every": 1}
    options: dict[str, Any] = {"cache_dir": tmp_path, "holdout": 0.34}
    options |= {"samplers": {"tuples": TupleSampler(num_segments=3)}, "batch_size": 4}
    options |= {"transform": PretrainTransform(size=32), "eval_transform": EvalTransform(size=32)}
    plain = video_data(root=video_folder, **options)
    first = video_data(root=video_folder, prepare=how, **options)
    folder = tmp_path / "prepared"
    said = "18 videos were re-encoded once, to be read faster (short edge 32, keyframes alone"
    assert said in re.sub(r"\s+", " ", capsys.readouterr().err)
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}
    assert len(files) == 18
    again = video_data(root=video_folder, prepare=how, **options)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")} == files
    assert "re-encoded" not in capsys.readouterr().err
    for split in ("train", "val"):
        tables = [data.manifest(split) for data in (plain, first, again)]
        known = [[(t.label(i), t.path(i).stem) for i in range(len(t))] for t in tables]
        assert known[0] == known[1] == known[2]  # the same videos are held out
    assert set(files) == {t.path(i) for t in (first.train, first.val) for i in range(len(t))}
    # What is prepared already is read as it is.
    made = next(folder.rglob("manifest.arrow"))
    video_data(manifest=made, prepare={"short_edge": 16}, **options)
    assert len(list(folder.iterdir())) == 1
    other = video_data(root=video_folder, prepare={"short_edge": 16}, **options)
    assert other.train.column("height").max() == 16
