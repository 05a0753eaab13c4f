"""Indexing by official files: rows, clips of one file, what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vclr_lightning.cli import main
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing import ListingSource, ensure_manifest, index_videos
from vclr_lightning.data.jobs.rejects import read_rejects
from vclr_lightning.data.manifest import Manifest, Span
from vclr_lightning.stages.shared.data import video_data

WriteVideo = Callable[..., Path]


@pytest.fixture
def ucf(tmp_path: Path, write_video: WriteVideo) -> tuple[Path, Path]:
    """Three videos of four that the lists name, and the lists."""
    root, lists = tmp_path / "videos", tmp_path / "lists"
    lists.mkdir()
    for name in ("Run/v_Run_g08_c01", "Walk/v_Walk_g01_c01", "Walk/v_Walk_g01_c02"):
        write_video(root / f"{name}.avi")
    (lists / "classInd.txt").write_text("1 Run\r\n2 Walk\r\n")
    train = "Run/v_Run_g08_c01.avi 1\r\nRun/v_Run_g08_c02.avi 1\r\n"
    (lists / "trainlist01.txt").write_text(train)
    test = "Walk/v_Walk_g01_c01.avi\r\nWalk/v_Walk_g01_c02.avi"
    (lists / "testlist01.txt").write_text(test)
    return root, lists


@pytest.fixture
def anet(tmp_path: Path, write_video: WriteVideo) -> tuple[Path, Path]:
    """Two videos of 0.8 s with five segments, one of which begins later."""
    root, lists = tmp_path / "videos", tmp_path / "lists"
    lists.mkdir()
    write_video(root / "v_aaaaaaaaaaa.mp4")
    (root / "v_bbbbbbbbbbb.mp4").write_text("no video")
    segments = [
        {"segment": [start, start + 0.3], "label": label}
        for start, label in ((0.0, "run"), (0.2, "walk"), (0.5, "run"), (7.0, "run"))
    ]
    database = {
        "aaaaaaaaaaa": {"subset": "training", "annotations": segments},
        "bbbbbbbbbbb": {"subset": "validation", "annotations": segments[:2]},
        "ccccccccccc": {"subset": "validation", "annotations": segments[:1]},
    }
    (lists / "activity_net.v1-3.min.json").write_text(json.dumps({"database": database}))
    return root, lists


def test_a_manifest_by_official_lists(ucf: tuple[Path, Path], tmp_path: Path) -> None:
    root, lists = ucf
    options = {"dataset": "ucf101", "annotations": lists, "cache_dir": tmp_path / "c"}
    manifest = ensure_manifest(root, **options, show=False)  # type: ignore[arg-type]
    rows = [
        (manifest.split(split).relative_path(i), manifest.split(split).label(i))
        for split in ("train", "test")
        for i in range(len(manifest.split(split)))
    ]
    assert rows == [
        ("Run/v_Run_g08_c01.avi", 0),
        ("Walk/v_Walk_g01_c01.avi", 1),
        ("Walk/v_Walk_g01_c02.avi", 1),
    ]
    assert manifest.words("group") == ["v_Run_g08", "v_Walk_g01"]
    (file,) = (tmp_path / "c").glob("*.rejected.csv")
    assert [reject.path for reject in read_rejects(file)] == ["v_Run_g08_c02"]
    assert manifest.info.source == f"ucf101, split 1, by {lists}"
    assert len(list((tmp_path / "c").glob("*.arrow"))) == 1
    with pytest.raises(UserError, match=r"no trainlist02\.txt"):
        ensure_manifest(root, **options, split_number=2, show=False)  # type: ignore[arg-type]


def test_what_is_left_out_is_said(
    ucf: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, lists = ucf
    command = ["index", str(root), "--dataset", "ucf101", "--annotations", str(lists)]
    assert main([*command, "--out", str(tmp_path / "m.arrow")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 x no such video; indexed: test 2, train 1" in shown
    assert "1 classes have no video in train, but 2 in other splits: Walk 2" in shown
    assert main(["show", str(tmp_path / "m.arrow")]) == 0
    assert "not in train" in capsys.readouterr().out
    assert main([*command, "--split-number", "4"]) != 0
    assert "UCF101 has splits 1 to 3, no split 4" in capsys.readouterr().err


def test_clips_of_one_file_open_it_once(anet: tuple[Path, Path], tmp_path: Path) -> None:
    root, lists = anet
    source = ListingSource(root=root, dataset="activitynet", annotations=lists)
    out = tmp_path / "m.arrow"
    done = index_videos(source.listing(show=False), root=root, out=out, show=False, workers=1)
    assert done.probed == 2
    manifest = done.manifest
    assert [manifest.window(i) for i in range(len(manifest))] == [(0, 0.3), (0.2, 0.5), (0.5, 0.8)]
    assert manifest.labels.tolist() == [0, 1, 0]
    assert [manifest.name(i) for i in range(2)] == [
        "aaaaaaaaaaa_0.00_0.30",
        "aaaaaaaaaaa_0.20_0.50",
    ]
    assert len(set(manifest.group_ids)) == 1
    reasons = {reject.path: reject.reason for reject in done.rejected}
    assert sorted(reasons) == ["ccccccccccc_0.00_0.30", "v_aaaaaaaaaaa.mp4", "v_bbbbbbbbbbb.mp4"]
    assert reasons["v_aaaaaaaaaaa.mp4"] == "its clip begins at 7, and it ends at 0.8"
    again = index_videos(source.listing(show=False), root=root, out=out, show=False, workers=1)
    assert (again.probed, again.manifest.fingerprint) == (0, manifest.fingerprint)


def test_localization_keeps_the_segments(anet: tuple[Path, Path], tmp_path: Path) -> None:
    root, lists = anet
    manifest = ensure_manifest(
        root,
        dataset="activitynet",
        annotations=lists,
        view="localization",
        cache_dir=tmp_path / "c",
        show=False,
    )
    assert (len(manifest), manifest.window(0), manifest.label(0)) == (1, None, 0)
    assert manifest.spans(0)[:2] == (Span(0.0, 0.3, 0), Span(0.2, 0.5, 1))
    assert isinstance(Manifest.load(manifest.file).spans(0)[0], Span)


def test_clips_in_a_run(anet: tuple[Path, Path], tmp_path: Path) -> None:
    from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
    from vclr_lightning.data.transforms import EvalTransform, PretrainTransform

    root, lists = anet
    data = video_data(
        root=root,
        dataset="activitynet",
        annotations=lists,
        cache_dir=tmp_path / "c",
        holdout=0,
        samplers={"tuples": TupleSampler()},
        transform=PretrainTransform(size=32),
        eval_transform=EvalTransform(size=32, resize=36),
        batch_size=2,
        num_workers=0,
        eval_frames=4,
    )
    (batch,) = data.frames_loader("train")
    assert batch["count"].tolist() == [3, 3, 3]
    assert batch["label"].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dataset": "ucf101"}, "official files of UCF101 are missing"),
        ({"annotations": "lists"}, "give its name, too"),
        ({"dataset": "ucf101", "annotations": "lists", "kinetics": "k.csv"}, "not several"),
        ({"dataset": "hmdb51", "annotations": "lists"}, r"no \*_test_split1\.txt"),
    ],
)
def test_arguments(
    ucf: tuple[Path, Path], options: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, lists = ucf
    monkeypatch.chdir(lists.parent)
    with pytest.raises(UserError, match=said):
        ensure_manifest(root, **options, show=False)  # type: ignore[arg-type]


def test_none_of_the_videos_is_there(ucf: tuple[Path, Path], write_video: WriteVideo) -> None:
    root, lists = ucf
    other = write_video(root.parent / "other" / "x.mp4").parent
    with pytest.raises(UserError, match=r"none of the 4 listed videos is in .*: no such video"):
        ListingSource(root=other, dataset="ucf101", annotations=lists).listing(show=False)
