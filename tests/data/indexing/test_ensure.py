from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from vclr_lightning.cli import main
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing import ensure_manifest
from vclr_lightning.data.manifest import Manifest

WriteVideo = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path, write_video: WriteVideo) -> Path:
    for name in ("run/a_1.mp4", "run/a_2.mp4", "walk/b_1.mp4"):
        write_video(tmp_path / "videos" / name)
    return tmp_path / "videos"


def ensure(root: Path | None, **options: object) -> Manifest:
    return ensure_manifest(root, show=False, **options)  # type: ignore[arg-type]


def files(cache: Path) -> list[str]:
    return sorted(file.name for file in cache.glob("*.arrow"))


def test_a_damaged_index_of_the_cache_is_made_anew(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = ensure(root, cache_dir=tmp_path / "cache")
    content = bytearray(first.file.read_bytes())
    content[content.index(b"run/a_1.mp4") + 6] ^= 1
    first.file.unlink()  # whose pages are mapped
    first.file.write_bytes(content)
    again = ensure(root, cache_dir=tmp_path / "cache")
    assert "its content is not what was written" in caplog.text
    assert [again.relative_path(i) for i in range(3)] == [
        "run/a_1.mp4",
        "run/a_2.mp4",
        "walk/b_1.mp4",
    ]
    given = tmp_path / "given.arrow"
    given.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        ensure(None, manifest=given)


def test_indexes_once_and_then_what_changed(
    root: Path, tmp_path: Path, write_video: WriteVideo
) -> None:
    cache = tmp_path / "cache"
    manifest = ensure(root, cache_dir=cache)
    assert len(manifest) == 3
    assert manifest.root == root
    (name,) = files(cache)
    inode = (cache / name).stat().st_ino
    assert ensure(root, cache_dir=cache).fingerprint == manifest.fingerprint
    assert (cache / name).stat().st_ino == inode
    write_video(root / "run/a_3.mp4", frames=5)
    again = ensure(root, cache_dir=cache)
    assert len(again) == 4
    assert files(cache) == [name]
    assert not (root / name).exists()


def test_each_way_of_listing_has_its_own(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (tmp_path / "train.txt").write_text("run/a_1.mp4 0\nwalk/b_1.mp4 1\n")
    (tmp_path / "val.txt").write_text("run/a_2.mp4 0\n")
    listed = ensure(
        root,
        train_list=tmp_path / "train.txt",
        val_list=str(tmp_path / "val.txt"),
        cache_dir=cache,
    )
    assert listed.splits == ("train", "val")
    assert [len(listed.split(name)) for name in listed.splits] == [2, 1]
    grouped = ensure(root, group_regex=r"[ab]_", cache_dir=cache)
    assert len(set(grouped.group_ids)) == 2
    assert ensure(root, classes="none", cache_dir=cache).num_classes == 0
    assert len(files(cache)) == 3


def test_kinetics(root: Path, tmp_path: Path, write_video: WriteVideo) -> None:
    write_video(root / "zumba" / "yGdQwxP5koA_000083_000093.mp4")
    csv = tmp_path / "k.csv"
    head = "label,youtube_id,time_start,time_end,split,is_cc\n"
    csv.write_text(head + "zumba,yGdQwxP5koA,83,93,val,0\n")
    for kinetics in (csv, [str(csv)]):
        manifest = ensure(root, kinetics=kinetics, cache_dir=tmp_path / "cache")
        assert (len(manifest), manifest.classes, manifest.splits) == (1, ("zumba",), ("val",))
    assert len(files(tmp_path / "cache")) == 1


def test_a_given_manifest_is_taken_as_it_is(
    root: Path, tmp_path: Path, write_video: WriteVideo
) -> None:
    file = ensure(root, cache_dir=tmp_path / "cache").file
    write_video(root / "run/a_3.mp4")
    assert len(ensure(None, manifest=file)) == 3
    root.rename(tmp_path / "moved")
    assert ensure(tmp_path / "moved", manifest=file).path(0).exists()


def test_the_cache_is_found_by_the_environment(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert ensure(root).file.parent == tmp_path / "xdg" / "vclr_lightning"


def test_what_was_left_out_is_shown(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "run" / "bad.mp4").write_text("no video")
    ensure_manifest(root, cache_dir=tmp_path / "cache")
    assert "1 rejected, listed in" in capsys.readouterr().err
    ensure_manifest(root, cache_dir=tmp_path / "cache")
    assert "1 rejected, listed in" in capsys.readouterr().err


def test_contradictions(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give root"):
        ensure(None)
    with pytest.raises(UserError, match="either a manifest or files"):
        ensure(root, manifest="m.arrow", train_list="t.txt")
    with pytest.raises(UserError, match="must be 'folder' or 'none'"):
        ensure(root, classes="x")
    with pytest.raises(UserError, match="either list files, Kinetics CSV files or a data set"):
        ensure(root, train_list="t.txt", kinetics="k.csv")
    with pytest.raises(UserError, match="does not exist; give the folder"):
        ensure(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no folder"):
        ensure(root / "run/a_1.mp4")
    with pytest.raises(UserError, match="cannot write into"):
        ensure(root, cache_dir=root / "run/a_1.mp4" / "cache")


def test_the_folder_is_only_read(root: Path, tmp_path: Path) -> None:
    def tree() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]}

    before = tree()
    ensure(root, cache_dir=tmp_path / "cache")
    assert tree() == before


def test_home_folders(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(ensure(Path("~/videos"), cache_dir="~/cache")) == 3
    assert len(files(tmp_path / "cache")) == 1


_RANK = """
import sys
from vclr_lightning.data.indexing import ListingSource, ensure_manifest
listing = ListingSource.listing
def counted(source, **options):
    print("looked")
    return listing(source, **options)
ListingSource.listing = counted
print(ensure_manifest(sys.argv[1], cache_dir=sys.argv[2], workers=1, show=False).fingerprint)
"""


def ranks(root: Path, cache: Path, *environments: dict[str, str]) -> list[list[str]]:
    """Start a process for each environment, and return what each printed, or why it failed."""
    command = [sys.executable, "-c", _RANK, str(root), str(cache)]
    started = [
        subprocess.Popen(
            command,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in environments
    ]
    said = [process.communicate(timeout=60) for process in started]
    return [out.split() or err.splitlines()[-1:] for out, err in said]


def test_one_rank_of_a_launch_looks(root: Path, tmp_path: Path, write_video: WriteVideo) -> None:
    torchrun = [{"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": str(rank)} for rank in range(3)]
    for again in ("0", "1"):
        restarted = [env | {"TORCHELASTIC_RESTART_COUNT": again} for env in torchrun]
        said = ranks(root, tmp_path / "cache", *restarted)
        fingerprint = ensure(root, cache_dir=tmp_path / "other").fingerprint
        assert sorted(said, key=len) == [[fingerprint], [fingerprint], ["looked", fingerprint]]
        write_video(root / "run/a_3.mp4")  # which a later launch sees


def test_ranks_that_the_first_one_starts_do_not_look(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.delenv("VCLR_LAUNCH", raising=False)
    fingerprint = ensure(root, cache_dir=cache).fingerprint
    child, own = {"LOCAL_RANK": "1"}, {"LOCAL_RANK": "0"}
    assert ranks(root, cache, child, own) == [[fingerprint], ["looked", fingerprint]]


def test_a_first_rank_that_fails_holds_up_nobody(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    torchrun = [{"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": str(rank)} for rank in range(2)]
    for said in ranks(tmp_path / "empty", tmp_path / "cache", *torchrun):
        assert said[0] == "looked"


def test_damage_is_taken_as_far_as_chosen(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / "run/a_1.mp4"
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for at, size in packets[6:]:
        content[at : at + size] = bytes(size)
    path.write_bytes(content)
    cache = tmp_path / "cache"
    assert len(ensure(root, cache_dir=cache)) == 3  # its first frame is whole
    assert len(ensure(root, cache_dir=cache, decode=True)) == 2
    taken = ensure(root, cache_dir=cache, decode=True, max_damaged=0.5)
    assert taken.column("damaged").tolist() == [0.25, 0, 0]
    given = {"manifest": taken.file, "max_damaged": 0.2}
    assert [ensure(None, **given).relative_path(i) for i in range(2)] == [
        "run/a_2.mp4",
        "walk/b_1.mp4",
    ]
    assert len(ensure(None, manifest=taken.file, max_damaged=0.3)) == 3
    ensure_manifest(**given, show=True)  # type: ignore[arg-type]
    words = " ".join(capsys.readouterr().err.split())
    assert "more than 20.0% of their frames are damaged" in words
    # The same file, indexed with another limit, is looked at again.
    for limit, videos in ((0.3, 3), (0.2, 2), (0.3, 3)):
        options = [f"--max-damaged={limit}", "--decode", f"--out={tmp_path / 'a.arrow'}"]
        main(["index", str(root), *options])
        assert len(Manifest.load(tmp_path / "a.arrow")) == videos
