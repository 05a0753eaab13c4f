"""A folder with a video of each fault, and what is found in it."""

from __future__ import annotations

import json
import os
import re
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.conftest import WriteVideo, draw_frames

from vclr_lightning.cli import main
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.doctor import Diagnosis, diagnose
from vclr_lightning.data.doctor.doctor_page import result_of_diagnosis
from vclr_lightning.data.doctor.examination import examine, measure, thumbnail
from vclr_lightning.data.jobs import FileResult, SerialExecutor
from vclr_lightning.data.manifest import Info, Manifest, Row, write_manifest
from vclr_lightning.results import Table, render

Frames = list[NDArray[np.uint8]]


def write_uneven(path: Path, frames: Frames) -> None:
    """Every third frame is shown three times as long as the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, pix_fmt="yuv420p", height=48, width=64)
        stream.codec_context.time_base = Fraction(1, 300)
        time = 0
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts, frame.time_base = time, Fraction(1, 300)
            time += 30 if number % 3 == 0 else 10
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory, write_video: WriteVideo) -> Path:
    root = tmp_path_factory.mktemp("faulty")
    moving = draw_frames("left", 3)
    smaller = [frame[::2, ::2] for frame in moving]
    for number in range(6):
        write_video(root / f"train/run/{number}.mp4", draw_frames("grow", number))
    write_video(root / "train/walk/moving.mp4", moving)
    write_video(root / "val/walk/smaller.mp4", smaller, gop=2)
    shutil.copy(root / "train/run/1.mp4", root / "train/run/equal.mp4")
    shutil.copy(root / "train/run/2.mp4", root / "train/walk/contradicting.mp4")
    write_video(root / "train/run/black.mp4", [np.zeros((48, 64, 3), np.uint8)] * 9)
    write_video(root / "train/run/plain.mp4", [np.full((48, 64, 3), (9, 200, 90), np.uint8)] * 9)
    write_video(root / "train/run/static.mp4", [draw_frames("right", 8)[0]] * 9)
    grey = [
        np.repeat(f.mean(2, keepdims=True).astype(np.uint8), 3, 2) for f in draw_frames("right", 9)
    ]
    write_video(root / "train/run/grey.mp4", grey)
    write_video(root / "train/run/fast.mp4", draw_frames("right", 10), fps=60)
    write_video(root / "train/run/short.mp4", draw_frames("right", 11)[:2])
    write_uneven(root / "train/run/uneven.mp4", draw_frames("left", 12))
    whole = (root / "train/run/3.mp4").read_bytes()
    (root / "train/run/torn.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "val/run").mkdir()
    (root / "val/run/page.mp4").write_text("<html>not found</html>")
    return root


@pytest.fixture(scope="module")
def diagnosis(faulty: Path, tmp_path_factory: pytest.TempPathFactory) -> Diagnosis:
    out = tmp_path_factory.mktemp("doctor")
    return diagnose(faulty, out, workers=1, executor=SerialExecutor(), show=False)


def test_each_fault_is_found_in_its_video_alone(diagnosis: Diagnosis) -> None:
    found = {
        one.name: sorted(sorted(paths.split("\n")) for paths, _ in one.videos)
        for one in diagnosis.findings
    }
    assert found == {
        "broken": [["train/run/torn.mp4"], ["val/run/page.mp4"]],
        "leaking_copies": [["train/walk/moving.mp4", "val/walk/smaller.mp4"]],
        "contradicting_labels": [["train/run/2.mp4", "train/walk/contradicting.mp4"]],
        "copies": [
            ["train/run/1.mp4", "train/run/equal.mp4"],
            ["train/run/2.mp4", "train/walk/contradicting.mp4"],
        ],
        "black": [["train/run/black.mp4"]],
        "plain": [["train/run/plain.mp4"]],
        "static": [["train/run/static.mp4"]],
        "grey": [["train/run/grey.mp4"]],
        "variable_rate": [["train/run/uneven.mp4"]],
        "odd_rate": [["train/run/fast.mp4"]],
        "short": [["train/run/short.mp4"]],
    }
    assert [one.name for one in diagnosis.findings if one.hurts] == [
        *("broken", "leaking_copies", "contradicting_labels")
    ]
    details = {path: text for one in diagnosis.findings for path, text in one.videos}
    assert "index (moov) of the MP4 is missing" in details["train/run/torn.mp4"]
    assert details["train/run/1.mp4\ntrain/run/equal.mp4"] == "equal files"


def test_segments_that_videos_are_too_short_for(diagnosis: Diagnosis, faulty: Path) -> None:
    counts = []
    for path in sorted(faulty.rglob("*.mp4")):
        if path.name not in ("torn.mp4", "page.mp4"):
            with av.open(str(path)) as file:
                counts.append(sum(1 for _ in file.decode(video=0)))
    for s, overlap, same in diagnosis.segments(8):
        assert overlap == sum(count < s for count in counts)
        assert same == sum(count < 2 * s for count in counts)
    assert diagnosis.segments(8)[-1][1:] == (1, 4)
    assert diagnosis.segments(8, clip=5)[-1][1] == sum(count < 40 for count in counts)


def test_gain_of_preparing_is_measured(diagnosis: Diagnosis) -> None:
    assert diagnosis.cost is not None
    cost, ratio = diagnosis.cost
    assert cost.videos == 3
    assert cost.before > 0 < cost.after
    assert 0.1 < ratio < 10


def test_page_shows_everything_and_needs_no_network(diagnosis: Diagnosis, faulty: Path) -> None:
    result = result_of_diagnosis(diagnosis, segments=4)
    page = render(result)
    for one in diagnosis.findings:
        assert one.title in page
    assert page.count("data:image/jpeg") >= 3 * 9
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == []
    assert result.record["hurts"] is True
    assert result.record["videos"] == len(list(faulty.rglob("*.mp4")))
    assert json.loads(json.dumps(dict(result.record)))["segments"][3]["overlap"] == 1


def test_a_second_call_opens_only_what_changed_or_failed(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "videos"
    for name in ("run/0.mp4", "run/3.mp4", "walk/moving.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(faulty / "train" / name, root / name)
    rows = [Row(path=str(p.relative_to(root))) for p in sorted(root.rglob("*.mp4"))]
    stats = [(root / row.path).stat() for row in rows]
    rows = [
        Row(path=row.path, size=s.st_size, mtime_ns=s.st_mtime_ns, split=split)
        for row, s, split in zip(rows, stats, ("train", "train", "val"), strict=True)
    ]
    rows += [Row(path="gone.mp4")]
    manifest = Manifest.load(write_manifest(tmp_path / "m.arrow", rows, Info(root=root)))
    out = tmp_path / "out"
    options = {"workers": 1, "executor": SerialExecutor(), "measure": False, "show": False}
    first = diagnose(manifest, out, **options)  # type: ignore[arg-type]
    assert first.examined == 3
    assert [(one.name, one.videos) for one in first.findings if one.name != "odd_rate"] == [
        ("broken", [("gone.mp4", "no such file")])
    ]
    assert diagnose(manifest, out, **options).examined == 0  # type: ignore[arg-type]
    whole = (root / "run/3.mp4").read_bytes()
    (root / "run/3.mp4").write_bytes(whole[: len(whole) // 2])
    os.utime(root / "run/0.mp4", ns=(0, 0))
    again = diagnose(manifest, out, **options)  # type: ignore[arg-type]
    assert again.examined == 2
    names = {one.name: one.videos for one in again.findings}
    assert [path for path, _ in names["broken"]] == ["gone.mp4", "run/3.mp4"]
    assert names["changed"] == [("run/0.mp4", "another time"), ("run/3.mp4", "another size")]
    assert diagnose(manifest, out, **options).examined == 1  # type: ignore[arg-type]


def test_groups_and_classes_over_splits(faulty: Path, tmp_path: Path) -> None:
    rows = [
        Row(path=f"train/run/{k}.mp4", group=g, split=split, label=label)
        for k, (g, split, label) in enumerate(
            [("a", "train", 0), ("a", "val", 0), ("a", "val", 0), ("b", "train", 1)]
        )
    ]
    info = Info(root=faulty, classes=("run", "walk"))
    manifest = Manifest.load(write_manifest(tmp_path / "m.arrow", rows, info))
    found = diagnose(
        manifest, tmp_path, workers=1, executor=SerialExecutor(), measure=False, show=False
    )
    groups = next(one for one in found.findings if one.name == "leaking_groups")
    assert (groups.videos, groups.hurts) == ([("a", "train 1, val 2")], True)
    page = result_of_diagnosis(found)
    table = next(one for one in page.content if getattr(one, "file", "") == "classes")
    assert [list(row) for row in table.rows] == [["walk", 1, 0, 1], ["run", 1, 2, 3]]  # type: ignore[union-attr]


def test_command_says_by_its_status_whether_something_hurts(
    faulty: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [Row(path=f"train/run/{k}.mp4") for k in range(3)]
    write_manifest(tmp_path / "fine.arrow", rows, Info(root=faulty))
    assert main(["doctor", "fine.arrow", "--no-gain", "--workers", "1", "--segments", "2"]) == 0
    write_manifest(tmp_path / "bad.arrow", [*rows, Row(path="gone.mp4")], Info(root=faulty))
    assert main(["doctor", "bad.arrow", "--no-gain", "--workers", "1"]) == 1
    shown = capsys.readouterr().out
    assert "Of 4 videos, 1 cannot be read." in shown
    assert max(map(len, shown.splitlines())) <= 80
    for name in ("doctor.html", "doctor.json", "videos.csv", "journal"):
        assert (tmp_path / "bad.doctor" / name).is_file()
    assert main(["doctor", "bad.arrow", "--workers", "0"]) == 2
    with pytest.raises(UserError, match="does not exist"):
        diagnose(tmp_path / "nowhere", tmp_path)


def test_one_video_of_one_frame(write_video: WriteVideo, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    write_video(tmp_path / "one" / "a.mp4", draw_frames("right", 9)[:1])
    found = diagnose(tmp_path / "one", tmp_path, workers=1, executor=SerialExecutor(), show=False)
    (short,) = (one for one in found.findings if one.name == "short")
    assert short.videos == [("a.mp4", "1 frame")]
    result = result_of_diagnosis(found)
    assert result.summary == "Of one video none would hurt; some deserve a look."
    titles = [one.title for one in result.content if isinstance(one, Table)]
    reason = f"1 has{short.title[4:]}"
    assert titles.index(reason) < titles.index("Frame rates")  # reasons come early


def test_measures_are_those_of_the_picture() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (100, 70, 3)).astype(np.uint8)
    found = measure([picture, picture])
    grey = picture @ np.array([0.299, 0.587, 0.114])
    assert found["light"][0] == pytest.approx(grey.mean(), abs=0.01)
    assert found["spread"][0] == pytest.approx(grey.std(), abs=0.01)
    assert found["motion"] == 0
    small = thumbnail(grey.astype(np.float32))
    for i in range(8):
        for j in range(8):
            rows = slice(int(np.floor(i * 12.5)), int(np.ceil((i + 1) * 12.5)))
            columns = slice(int(np.floor(j * 8.75)), int(np.ceil((j + 1) * 8.75)))
            assert small[i, j] == pytest.approx(grey[rows, columns].mean(), abs=1e-3)


def test_real_videos_that_fail(real_data: Path) -> None:
    root = real_data / "clips_derived"
    reasons = {}
    for path in sorted(root.glob("bad_*")):
        item = FileResult(path.name, path.stat().st_size, 0), False, True
        try:
            examine(item, root=root)
        except Exception as error:
            reasons[path.stem] = str(error)
    assert sorted(reasons) == [
        *("bad_audio_only", "bad_bitflips_mdat", "bad_text", "bad_truncated_faststart_60pct"),
        *("bad_truncated_no_moov", "bad_truncated_xvid", "bad_zero_bytes"),
    ]
    assert "audio" in reasons["bad_audio_only"] or "no video" in reasons["bad_audio_only"]
