"""``vclr prepare``: what is kept, what is done again, and what a kill leaves."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vclr_lightning.cli import main
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing import ensure_manifest
from vclr_lightning.data.manifest import Info, Manifest, Row, Span, changed_files, write_manifest
from vclr_lightning.data.prepare import Recipe, prepare
from vclr_lightning.data.readers import PyAVReader

Write = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def root(write: Write, tmp_path: Path) -> Path:
    folder = tmp_path / "the vidéos"
    for number, name in enumerate(["run/ä b.avi", "run/c%d.avi", "walk/c.avi", "walk/c.mp4"]):
        write(folder / name, 20 + number, codec="mpeg4", seed=number)
    return folder


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file and folder, hidden ones too."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        stat = path.stat()
        found[str(path.relative_to(folder))] = (stat.st_size, stat.st_mtime_ns)
    return found


def _videos(out: Path) -> dict[str, tuple[int, int]]:
    return {name: state for name, state in _state(out).items() if name.endswith(".mp4")}


def _vclr(*arguments: object) -> list[str]:
    return ["prepare", *map(str, arguments), "--workers", "1"]


def test_a_folder_of_classes_becomes_one_that_trains(
    root: Path, tmp_path: Path, capsys: Capture
) -> None:
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before, out = _state(root), tmp_path / "öut"
    assert main(_vclr(root, "--out", out)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert _state(root) == before
    assert "4 are smaller than 256 pixels and keep their size" in shown
    for row in ("bytes", "3 + 3 frames read, median of 4"):
        assert row in shown
    manifest = Manifest.load(out / "manifest.arrow")
    assert manifest.root == out
    assert not changed_files(manifest)
    found = {
        manifest.relative_path(i): (
            manifest.name(i),
            manifest.classes[manifest.label(i)],
            manifest.num_frames(i),
        )
        for i in range(len(manifest))
    }
    assert found == {
        "run/ä b.mp4": ("ä b", "run", 20),
        "run/c%d.mp4": ("c%d", "run", 21),
        "walk/c.avi.mp4": ("c", "walk", 22),
        "walk/c.mp4.mp4": ("c", "walk", 23),
    }
    for i in range(len(manifest)):
        with PyAVReader().open(manifest.path(i)) as video:
            assert len(video.read([0, video.num_frames - 1])) == 2
            assert video.by_plan
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755)


def test_only_what_is_new_or_changed_is_done_again(
    root: Path, write: Write, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    assert main(_vclr(root, "--out", out)) == 0
    first = _videos(out)
    assert main(_vclr(root, "--out", out)) == 0
    assert _videos(out) == first
    assert "4 were done by an earlier run" in capsys.readouterr().out
    write(root / "walk/c.avi", 31, codec="mpeg4", seed=9)  # changed
    write(root / "walk/new.avi", 5, codec="mpeg4")
    (out / "run/ä b.mp4").write_bytes(b"cut short")
    assert main(_vclr(root, "--out", out)) == 0
    assert "2 were done by an earlier run" in capsys.readouterr().out
    now = _videos(out)
    assert {name for name in now if now[name] == first.get(name)} == {
        "run/c%d.mp4",
        "walk/c.mp4.mp4",
    }
    manifest = Manifest.load(out / "manifest.arrow")
    assert not changed_files(manifest)
    assert sorted(manifest.column("num_frames")) == [5, 20, 21, 23, 31]


def test_a_manifest_keeps_all_it_says(root: Path, tmp_path: Path) -> None:
    rows = [
        Row(path="run/ä b.avi", name="one", group="g", split="val", label=1, start=0.1, end=0.4),
        Row(path="run/ä b.avi", name="two", group="g", split="val", label=0, start=0.4, end=0.7),
        Row(path="walk/c.avi", group="h", split="train", label=2, spans=(Span(0.1, 0.5, 0),)),
    ]
    file = write_manifest(tmp_path / "m.arrow", rows, Info(root=root, classes=("a", "b", "c")))
    prepared = prepare(file, tmp_path / "out", Recipe(keyframe_every=1), workers=1, show=False)
    old, new = Manifest.load(file), prepared.manifest
    assert (new.classes, new.splits, len(new)) == (old.classes, old.splits, len(old))
    for i in range(len(old)):
        for ask in ("name", "label", "window", "spans"):
            assert getattr(new, ask)(i) == getattr(old, ask)(i)
        assert new.words("group")[new.group_id(i)] == old.words("group")[old.group_id(i)]
    assert len(prepared.made) == 2  # the two clips share a file
    assert prepared.bytes_after == sum(size for size, _ in _videos(tmp_path / "out").values())
    assert prepared.cost is not None
    assert prepared.cost.videos == 2


def test_the_folder_stands_for_its_manifest(root: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    lists = {"train": tmp_path / "train.txt", "val": tmp_path / "val.txt"}
    lists["train"].write_text("run/ä b.avi 0\nwalk/c.avi 1\n")
    lists["val"].write_text("run/c%d.avi 0\n")
    source = ensure_manifest(
        root,
        train_list=lists["train"],
        val_list=lists["val"],
        cache_dir=cache,
        workers=1,
        show=False,
    )
    prepared = prepare(source, out, Recipe(), workers=1, show=False).manifest
    (out / "run" / "gone.mp4").write_bytes((out / "walk" / "c.mp4").read_bytes())
    found = ensure_manifest(out, cache_dir=cache, workers=1, show=False)
    assert found.fingerprint == prepared.fingerprint
    assert found.splits == ("train", "val")
    anew = ensure_manifest(out, group_regex=".", cache_dir=cache, workers=1, show=False)
    assert len(anew) == 4


def test_failures_are_listed_and_only_many_are_an_error(
    root: Path, write: Write, tmp_path: Path, capsys: Capture
) -> None:
    whole = write(tmp_path / "whole.mp4", 60).read_bytes()
    (root / "walk/cut.mp4").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    assert main(_vclr(root, "--out", out, "--max-failed", 0.2)) == 0
    shown = capsys.readouterr().out
    assert "1 failed, listed in" in shown
    with (out / "manifest.rejected.csv").open(newline="") as file:
        (listed,) = csv.DictReader(file)
    assert listed["path"] == "walk/cut.mp4"
    assert listed["reason"] in shown
    assert len(Manifest.load(out / "manifest.arrow")) == 4
    assert main(_vclr(root, "--out", out, "--max-failed", 0.1)) == 2
    assert "1 of 5 files failed, more than --max-failed 0.1" in capsys.readouterr().err
    (root / "walk/cut.mp4").write_bytes(whole)  # mended
    assert main(_vclr(root, "--out", out, "--max-failed", 0)) == 0
    assert not (out / "manifest.rejected.csv").exists()


def test_a_file_that_cannot_be_re_encoded_comes_of_a_manifest(root: Path, tmp_path: Path) -> None:
    (root / "walk/none.avi").touch()
    rows = [Row(path=path) for path in ("walk/none.avi", "walk/gone.avi")]
    file = write_manifest(tmp_path / "m.arrow", rows, Info(root=root))
    with pytest.raises(UserError, match=r"none of 2 videos .* all reasons are in"):
        prepare(file, tmp_path / "out", show=False)
    rows.append(Row(path="walk/c.avi"))
    write_manifest(file, rows, Info(root=root))
    prepared = prepare(file, tmp_path / "out", measure=False, show=False)
    assert {r.path: r.reason for r in prepared.failed} == {
        "walk/gone.avi": "no such file",
        "walk/none.avi": "empty file",
    }


def test_nothing_is_written_over_a_source_or_outside(root: Path, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    prepare(root, out, Recipe(short_edge=32), workers=1, measure=False, show=False)
    before = {file: file.read_bytes() for file in out.rglob("*.mp4")}
    manifest = Manifest.load(out / "manifest.arrow")
    (root / "back").symlink_to(out)
    done = prepare(root, out, Recipe(short_edge=32), workers=1, measure=False, show=False)
    assert {file: file.read_bytes() for file in before} == before
    assert len(done.manifest) == len(manifest)
    linked = [one for one in done.failed if one.path.startswith("back/")]
    assert len(linked) == len(before)
    assert {one.reason for one in linked} == {f"it is a link to a file in {out}"}
    (root / "back").unlink()
    elsewhere.mkdir()
    (out / "more").symlink_to(elsewhere)
    (root / "more").mkdir()
    shutil.copy(next(root.rglob("*.mp4")), root / "more" / "a.mp4")
    with pytest.raises(UserError, match="more is a link that leads out of"):
        prepare(root, out, Recipe(short_edge=32), workers=1, measure=False, show=False)
    assert list(elsewhere.iterdir()) == []


def test_killed_and_continued(write: Write, tmp_path: Path, capsys: Capture) -> None:
    root, out = tmp_path / "many", tmp_path / "out"
    first = write(root / "00.avi", 150, size=(160, 120), codec="mpeg4")
    for number in range(1, 12):
        shutil.copy(first, root / f"{number:02}.avi")
    command = [sys.executable, "-m", "vclr_lightning.cli", *_vclr(root, "--out", out)]
    journal = out / ".prepare/journal"
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 600):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -9
    assert not (out / "manifest.arrow").exists()
    whole = _videos(out)
    assert 1 <= len(whole) < 12
    for name in whole:  # none is half written
        with PyAVReader().open(out / name) as video:
            assert len(video.read(range(video.num_frames))) == 150
    (out / ".07.mp4.1.part").write_bytes(b"left behind")
    assert main(_vclr(root, "--out", out)) == 0
    assert "were done by an earlier run" in capsys.readouterr().out
    manifest = Manifest.load(out / "manifest.arrow")
    assert manifest.column("num_frames").tolist() == [150] * 12
    assert not changed_files(manifest)
    assert not [path for path in out.rglob("*") if path.suffix == ".part"]
    noted = len(journal.read_text().splitlines())
    kept = sum(state == whole[name] for name, state in _videos(out).items() if name in whole)
    assert kept >= 1
    assert noted >= 12


def test_mistakes_are_one_sentence(root: Path, tmp_path: Path, capsys: Capture) -> None:
    def fails(*arguments: object, words: str) -> None:
        capsys.readouterr()
        assert main(_vclr(*arguments)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert words in line

    out = tmp_path / "out"
    fails(tmp_path / "nowhere", "--out", out, words="does not exist")
    fails(root, "--out", root / "below", words="must not lie in one another")
    fails(root, "--out", tmp_path, words="must not lie in one another")
    fails(root, "--out", out, "--short-edge", 2, words="2 pixels")
    fails(root, "--out", out, "--max-failed", 3, words="--max-failed 3")
    fails(root, "--out", out, "--root", root, words="--root belongs to a manifest")
    fails(root, words="--out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.txt").touch()
    fails(root, "--out", tmp_path / "other", words="holds something else")
    (tmp_path / "text.arrow").write_text("text")
    fails(tmp_path / "text.arrow", "--out", out, words="is no manifest")
    assert not out.exists()
    frames = Info(root=root, frames="img_{:05d}.jpg")
    file = write_manifest(tmp_path / "frames.arrow", [Row(path="run")], frames)
    fails(file, "--out", out, words="folders of extracted frames")
    assert main(_vclr(root, "--out", out, "--crf", 30)) == 0
    fails(root, "--out", out, words="holds videos prepared otherwise (crf 30)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to(root: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    assert main(_vclr(root, "--out", tmp_path / "closed/out")) == 2
    assert "cannot write" in capsys.readouterr().err
