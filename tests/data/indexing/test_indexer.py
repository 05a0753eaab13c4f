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

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing import Indexed, ListingSource, index_videos
from vclr_lightning.data.manifest import Manifest, changed_files, summarise
from vclr_lightning.data.manifest.summary import leaks

WriteVideo = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path, write_video: WriteVideo) -> Path:
    """Two classes of two videos, one damaged file and one that is no video."""
    folder = tmp_path / "videos"
    for number, name in enumerate(("run/a.mp4", "run/b.mp4", "walk/c.avi", "walk/d.mkv")):
        write_video(folder / name, frames=6 + number)
    (folder / "walk" / "bad.mp4").write_text("no video")
    (folder / "notes.txt").touch()
    return folder


def index(root: Path, out: Path, **options: object) -> Indexed:
    source = ListingSource(root=root, frames=options.get("frames"))  # type: ignore[arg-type]
    listing = source.listing(show=False)
    return index_videos(listing, root=root, out=out, show=False, **options)  # type: ignore[arg-type]


def rejected(file: Path) -> dict[str, str]:
    with file.open(newline="") as source:
        return {line["path"]: line["reason"] for line in csv.DictReader(source)}


def table(manifest: Manifest) -> list[tuple[object, ...]]:
    names = ("num_frames", "width", "height", "fps", "size", "mtime_ns", "label")
    columns = [manifest.column(name).tolist() for name in names]
    return list(zip(map(manifest.relative_path, range(len(manifest))), *columns, strict=True))


def test_a_folder(root: Path, tmp_path: Path) -> None:
    done = index(root, tmp_path / "m.arrow")
    manifest = Manifest.load(tmp_path / "m.arrow")
    assert [manifest.path(i) for i in range(4)] == [
        root / "run/a.mp4",
        root / "run/b.mp4",
        root / "walk/c.avi",
        root / "walk/d.mkv",
    ]
    assert manifest.classes == ("run", "walk")
    assert manifest.labels.tolist() == [0, 0, 1, 1]
    assert manifest.column("num_frames").tolist() == [6, 7, 8, 9]
    assert set(manifest.column("width")) == {64}
    assert manifest.column("size").tolist() == [manifest.path(i).stat().st_size for i in range(4)]
    assert manifest.column("keyframe_interval").max() <= 4
    assert changed_files(manifest) == {}
    assert list(rejected(done.rejected_file)) == ["walk/bad.mp4"]
    assert [reject.path for reject in done.rejected] == ["walk/bad.mp4"]
    assert done.notices()[0].startswith("1 rejected, listed in")
    assert done.probed == 5
    assert done.others == {".txt": 1}
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "m.arrow",
        "m.rejected.csv",
        "videos",
    ]


def test_nothing_is_opened_twice(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.arrow"
    first = index(root, out)
    inode = out.stat().st_ino
    again = index(root, out)
    assert again.probed == 0
    assert out.stat().st_ino == inode
    assert again.rejected == first.rejected
    assert rejected(again.rejected_file) == rejected(first.rejected_file)
    assert index(root, out, fresh=True).probed == 5
    assert index(root, out, decode=True).probed == 5


def test_changed_new_and_deleted_files(root: Path, tmp_path: Path, write_video: WriteVideo) -> None:
    out = tmp_path / "m.arrow"
    before = index(root, out).manifest.fingerprint
    write_video(root / "run/a.mp4", frames=12)
    write_video(root / "run/e.mp4", frames=3)
    (root / "run/b.mp4").unlink()
    shutil.copy(root / "walk/c.avi", root / "walk/bad.mp4")
    done = index(root, out)
    assert done.probed == 3
    assert not done.rejected
    assert not done.rejected_file.exists()
    assert done.manifest.fingerprint != before
    shutil.rmtree(tmp_path / "fresh", ignore_errors=True)
    assert table(done.manifest) == table(index(root, tmp_path / "fresh.arrow").manifest)


def test_the_number_of_processes_changes_nothing(root: Path, tmp_path: Path) -> None:
    one = index(root, tmp_path / "1.arrow", workers=1)
    three = index(root, tmp_path / "3.arrow", workers=3)
    assert one.manifest.file.read_bytes() == three.manifest.file.read_bytes()


def test_no_usable_video(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"none of 1 videos in .* can be used, for example a\.mp4"):
        index(folder, tmp_path / "m.arrow")
    assert list(rejected(tmp_path / "m.rejected.csv")) == ["a.mp4"]
    assert not (tmp_path / "m.arrow").exists()


def test_things_that_are_no_files(root: Path, tmp_path: Path) -> None:
    (root / "walk" / "folder.mp4").mkdir()
    (root / "walk" / "gone.mp4").symlink_to(root / "nowhere")
    os.mkfifo(root / "walk" / "pipe.mp4")
    unlisted = rejected(index(root, tmp_path / "m.arrow").rejected_file)
    assert unlisted.pop("walk/bad.mp4")
    assert unlisted == {
        "walk/gone.mp4": "no such file",
        "walk/pipe.mp4": "is no file; folders of frames need their template",
    }


def test_a_name_that_is_no_text(root: Path, tmp_path: Path) -> None:
    strange = root / os.fsdecode(b"run/\xff.mp4")
    try:
        shutil.copy(root / "run/a.mp4", strange)
    except OSError:
        pytest.skip("this file system refuses such names")
    done = index(root, tmp_path / "m.arrow")
    assert "its name is not valid UTF-8; rename it" in {r.reason for r in done.rejected}
    assert os.fsencode(strange.name) in done.rejected_file.read_bytes()


def test_a_repaired_file_is_taken_though_size_and_time_are_the_same(
    root: Path, tmp_path: Path
) -> None:
    good, file = root / "run/b.mp4", root / "run/a.mp4"
    content, stat = file.read_bytes(), file.stat()
    file.write_bytes(bytes(len(content)))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert len(index(root, tmp_path / "m.arrow").rejected) == 2
    assert index(root, tmp_path / "m.arrow").probed == 0  # nothing has changed
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = index(root, tmp_path / "m.arrow")
    assert again.probed == 1
    assert [reject.path for reject in again.rejected] == ["walk/bad.mp4"]
    good.chmod(0o600)  # of a file that is taken, size and time tell enough
    assert index(root, tmp_path / "m.arrow").probed == 0


def test_what_the_system_could_not_read_is_tried_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system whose reads fail, by a library that stands before the real one."""
    source, library = tmp_path / "eio.c", tmp_path / "eio.so"
    source.write_text(_FAILING_READ)
    built = subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=False)
    if built.returncode:
        pytest.skip("no C compiler")
    monkeypatch.setenv("LD_PRELOAD", str(library))
    refused = {one.path: one.size for one in index(root, tmp_path / "m.arrow").rejected}
    assert refused["run/a.mp4"] == -1
    monkeypatch.delenv("LD_PRELOAD")
    again = index(root, tmp_path / "m.arrow")
    assert again.probed == 1
    assert [reject.path for reject in again.rejected] == ["walk/bad.mp4"]


_FAILING_READ = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
ssize_t read(int fd, void *to, size_t count) {
    char link[64], name[4096] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    readlink(link, name, sizeof name - 1);
    if (strstr(name, "run/a.mp4")) { errno = EIO; return -1; }
    return ((ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read"))(fd, to, count);
}
"""


def test_a_file_of_two_names_is_one_source(root: Path, tmp_path: Path) -> None:
    """A folder linked as two splits, a link to a file, a hard link; a copy is another source."""
    linked = tmp_path / "linked"
    for split in ("train", "val"):
        (linked / split).mkdir(parents=True)
        (linked / split / "run").symlink_to(root / "run")
    (linked / "val" / "c.avi").symlink_to(root / "walk" / "c.avi")
    os.link(root / "walk" / "c.avi", linked / "train" / "c.avi")
    shutil.copy2(root / "walk" / "d.mkv", linked / "train" / "d.mkv")
    shutil.copy2(root / "walk" / "d.mkv", linked / "val" / "d.mkv")
    manifest = index(linked, tmp_path / "m.arrow").manifest
    assert len(manifest) == 8
    assert len(set(manifest.group_ids)) == 5
    (line,) = leaks(manifest)
    assert line.startswith("3 of 4 videos of val are of 3 groups (sources) that train has")
    assert "such as train/c.avi, train/run/a.mp4, train/run/b.mp4" in line
    assert index(linked, tmp_path / "m.arrow").probed == 0


def test_folders_of_frames(root: Path, tmp_path: Path) -> None:
    import av

    frames = tmp_path / "frames"
    for name in ("run/a", "walk/c"):
        (frames / name).mkdir(parents=True)
        with av.open(str(next(root.glob(f"{name}.*")))) as container:
            for number, frame in enumerate(container.decode(video=0), 1):
                frame.to_image().save(frames / name / f"img_{number:05d}.jpg")
    (frames / "walk/gap").mkdir()
    for number in (1, 3):
        shutil.copy(frames / "run/a/img_00001.jpg", frames / f"walk/gap/img_{number:05d}.jpg")
    (frames / "walk/text").mkdir()
    (frames / "walk/text/img_00001.jpg").write_text("no picture")
    done = index(frames, tmp_path / "m.arrow", frames="img_{:05d}.jpg")
    manifest = done.manifest
    assert [manifest.relative_path(i) for i in range(len(manifest))] == ["run/a", "walk/c"]
    assert [manifest.num_frames(i) for i in range(2)] == [6, 8]
    assert summarise(manifest).sizes == {"64x48": 2}
    assert summarise(manifest).bytes is None
    assert manifest.info.frames == "img_{:05d}.jpg"
    reasons = {reject.path: reject.reason for reject in done.rejected}
    assert reasons.keys() == {"walk/gap", "walk/text"}
    assert reasons["walk/gap"] == "img_00002.jpg is missing"
    assert reasons["walk/text"].startswith("img_00001.jpg cannot be decoded")
    shutil.copy(frames / "run/a/img_00001.jpg", frames / "walk/text/img_00001.jpg")
    again = index(frames, tmp_path / "m.arrow", frames="img_{:05d}.jpg")
    assert (again.probed, len(again.manifest)) == (2, 3)  # the folder's own time stays


_RUN = """
import sys
from pathlib import Path
from vclr_lightning.data.indexing import ListingSource, index_videos
root, out = map(Path, sys.argv[1:])
listing = ListingSource(root=root).listing(show=False)
index_videos(listing, root=root, out=out, workers=1, show=False)
"""


def test_a_killed_run_is_continued(root: Path, tmp_path: Path) -> None:
    for number in range(120):
        os.link(root / "run/a.mp4", root / f"run/{number:03d}.mp4")
    out, journal = tmp_path / "m.arrow", tmp_path / "m.journal"
    process = subprocess.Popen([sys.executable, "-c", _RUN, str(root), str(out)])
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 1000):
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = journal.read_bytes().count(b"\n") - 1
    done = index(root, out)
    assert done.probed == 125 - kept
    assert table(done.manifest) == table(index(root, tmp_path / "whole.arrow").manifest)
    assert not journal.exists()


def test_two_runs_at_once_take_turns(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.arrow"
    arguments = [sys.executable, "-c", _RUN, str(root), str(out)]
    runs = [subprocess.Popen(arguments, stderr=subprocess.PIPE) for _ in range(2)]
    assert [run.communicate()[1] for run in runs] == [b""] * 2
    assert len(Manifest.load(out)) == 4
    assert sorted(f.name for f in tmp_path.glob("m.*")) == ["m.arrow", "m.rejected.csv"]
