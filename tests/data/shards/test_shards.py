"""``vclr shard``: the same rows and frames from shards, and what a kill or a change leaves."""

from __future__ import annotations

import csv
import gc
import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.cli import main
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing import ensure_manifest
from vclr_lightning.data.jobs.journal import FileResult
from vclr_lightning.data.loading.clip_reading import read_drawn
from vclr_lightning.data.manifest import Info, Manifest, Row, Span, changed_files, write_manifest
from vclr_lightning.data.manifest.shard_paths import shard_place, stored_path
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.readers import PyAVReader, ShardReader
from vclr_lightning.data.shards import pack
from vclr_lightning.data.shards.shard_writer import ShardWriter, fill_shards
from vclr_lightning.stages.shared.data import video_data

Capture = pytest.CaptureFixture[str]
SIZE = 12_000  # bytes in a shard: three or so of the small videos


@pytest.fixture
def root(video_folder: Path, tmp_path: Path) -> Path:
    """Copies of the small videos, some with unusual names, in a folder that is read-only."""
    root = tmp_path / "the vidéos, of mine"
    for file in sorted(video_folder.rglob("*.mp4")):
        name = file.name.replace("grow_g00", "é à.b ö_g00").replace("left_g01", "%d left_g01")
        (root / file.parent.name).mkdir(parents=True, exist_ok=True)
        (root / file.parent.name / name).write_bytes(file.read_bytes())
    return root


def _vclr(*arguments: object) -> list[str]:
    return ["shard", *map(str, arguments), "--workers", "1"]


def _shards(out: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in sorted(out.glob("*.tar"))}


def _pack(source: Path | Manifest, out: Path, size: int = SIZE) -> Manifest:
    return pack(source, out, shard_size=size, workers=1, show=False).manifest


def test_a_row_keeps_all_but_its_path(root: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(_vclr(root, "--out", tmp_path / "öut put", "--shard-size", SIZE / 2**20)) == 0
    manifest = tmp_path / "öut put" / "manifest.arrow"
    assert f"train with: 'data.manifest={manifest}'" in capsys.readouterr().out
    files = ensure_manifest(root, cache_dir=tmp_path / "cache", workers=1, show=False)
    shards = Manifest.load(tmp_path / "öut put" / "manifest.arrow")
    assert len(_shards(shards.root)) > 3
    assert (len(shards), shards.classes, shards.splits) == (
        len(files),
        files.classes,
        files.splits,
    )
    assert not changed_files(shards)
    for i in range(len(files)):
        for ask in ("name", "label", "video_id", "group_id", "num_frames", "window"):
            assert getattr(shards, ask)(i) == getattr(files, ask)(i)
        place = shard_place(shards.path(i))
        assert place is not None
        with (shards.root / place.shard).open("rb") as file:
            file.seek(place.start)
            assert file.read(place.size) == files.path(i).read_bytes()
        with PyAVReader().open(files.path(i)) as video:
            truth = video.read(range(video.num_frames))
        with ShardReader().open(shards.path(i)) as video:
            frames = video.read(range(video.num_frames))
            np.testing.assert_allclose(video.times(), np.arange(len(truth)) / 10)
        np.testing.assert_array_equal(frames, truth)


def test_order_stays_whatever_splits_and_clips_there_are(root: Path, tmp_path: Path) -> None:
    names = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.mp4"))
    rows = [
        Row(path=names[-1], name="one", split="test", label=1, start=0.1, end=0.4),
        Row(path=names[-1], name="two", split="train", label=0, start=0.4, end=0.7),
        Row(path=names[3], group="h", split="val", label=2, spans=(Span(0.1, 0.5, 0),)),
        *(Row(path=name, group="g", split="train") for name in names[4:-1]),
        *(Row(path=name, split="val") for name in names[:3]),
    ]
    source = Manifest.load(
        write_manifest(tmp_path / "m.arrow", rows, Info(root=root, classes=("a", "b", "c")))
    )
    stored = _pack(source, tmp_path / "out", 1)  # a shard for each file
    assert len(_shards(stored.root)) == len(names)
    for i in range(len(source)):
        for ask in ("name", "label", "window", "spans", "group_id"):
            assert getattr(stored, ask)(i) == getattr(source, ask)(i)
        assert stored.relative_path(i).endswith(source.relative_path(i))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(1, 40))
def test_shards_are_filled_in_order(sizes: list[int], most: int) -> None:
    files = [FileResult(f"{k:02d}", size, 0) for k, size in enumerate(sizes)]
    about = {file.path: {"path": file.path} for file in files}
    shards = fill_shards(files[::-1], about, most)
    assert [file for shard in shards for file in shard.files] == files
    assert [content["path"] for shard in shards for content in shard.about] == list(about)
    assert [shard.name for shard in shards] == [f"{k:06d}.tar" for k in range(len(shards))]
    first = 0
    for shard in shards:
        assert shard.first == first
        first += len(shard.files)
        assert len(shard.files) == 1 or sum(file.size for file in shard.files) <= most
    for shard, following in pairwise(shards):
        assert sum(file.size for file in shard.files) + following.files[0].size > most
    paths = [stored_path(shard.name, 512, 9, file.path) for shard in shards for file in shard.files]
    assert paths == sorted(paths)


# It leaves the closing of its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_they_are_tar_files_of_webdataset(root: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    stored = _pack(root, tmp_path / "out")
    shards = [str(file) for file in sorted(stored.root.glob("*.tar"))]
    for shard in shards:
        with tarfile.open(shard) as file:
            assert all(member.isfile() for member in file.getmembers())
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    paths = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.mp4"))
    assert [json.loads(sample["json"])["path"] for sample in samples] == paths
    for sample, path in zip(samples, paths, strict=True):
        assert sample["mp4"] == (root / path).read_bytes()
        (row,) = json.loads(sample["json"])["rows"]
        assert row["class"] == path.split("/")[0]
    gc.collect()


def _trained(where: Path, tmp_path: Path, **loading: object) -> list[dict[str, object]]:
    from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
    from vclr_lightning.data.transforms import EvalTransform, PretrainTransform

    data = video_data(
        root=where,
        cache_dir=tmp_path / "cache",
        holdout=0.2,
        samplers={"tuples": TupleSampler(num_segments=3)},
        transform=PretrainTransform(size=32),
        eval_transform=EvalTransform(size=32, resize=36),
        batch_size=4,
        **{"num_workers": 0, **loading},
    )
    loader = data.train_dataloader()
    batches = [batch for epoch in range(2) for batch in (loader.set_epoch(epoch), *loader)[1:]]
    loader.close()
    return batches


def test_a_long_suffix_moves_no_video(root: Path, tmp_path: Path) -> None:
    source = next(root.rglob("*.mp4"))
    (tmp_path / "long").mkdir()
    long = source.rename(tmp_path / "long" / f"a.{'b' * 120}")
    about = {"path": long.name}
    with (tmp_path / "00.tar").open("w+b") as sink:
        writer = ShardWriter(sink)
        start = writer.add(0, long, size=long.stat().st_size, about=about)
        writer.finish()
    content = (tmp_path / "00.tar").read_bytes()
    assert content[start:].startswith(long.read_bytes())


@pytest.mark.parametrize("how", [{}, {"num_workers": 1, "start_method": "spawn"}])
def test_training_draws_what_it_draws_from_the_files(
    root: Path, tmp_path: Path, how: dict[str, object]
) -> None:
    stored = _pack(root, tmp_path / "shärds here")
    folders = [root, stored.root]
    for path in (p for folder in folders for p in [folder, *folder.rglob("*")]):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        files, shards = _trained(root, tmp_path), _trained(stored.root, tmp_path, **how)
    finally:
        for path in (p for folder in folders for p in [folder, *folder.rglob("*")]):
            path.chmod(0o755)
    assert len(files) == len(shards) >= 6
    for a, b in zip(files, shards, strict=True):
        assert a["rejected"] == b["rejected"] == []
        for name in ("video_id", "group_id", "label", "index"):
            assert torch.equal(a[name], b[name])
        for name, view in a["views"].items():
            assert torch.equal(view, b["views"][name])
            assert torch.equal(a["frame_indices"][name], b["frame_indices"][name])


def test_only_shards_that_change_are_written_again(
    root: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    _pack(root, out)
    first = _shards(out)
    (out / "000001.tar").unlink()
    (out / "000002.tar").write_bytes(b"cut short")
    again = pack(root, out, shard_size=SIZE, workers=1, show=False)
    assert again.earlier == len(first) - 2
    now = _shards(out)
    assert {name for name in now if now[name] == first[name]} == set(first) - {
        "000001.tar",
        "000002.tar",
    }
    content = (out / "000000.tar").read_bytes()
    for file in sorted(root.rglob("*.mp4"))[-8:]:  # the last shards are no longer needed
        file.unlink()
    fewer = pack(root, out, shard_size=SIZE, workers=1, show=False)
    assert len(fewer.manifest) == 10
    assert len(_shards(out)) == fewer.shards < len(first)
    assert (out / "000000.tar").read_bytes() == content
    assert main(_vclr(root, "--out", out)) == 2
    assert "prepared otherwise (shard_size 12000)" in capsys.readouterr().err


def test_failures_are_listed(root: Path, tmp_path: Path, capsys: Capture) -> None:
    files = ensure_manifest(root, cache_dir=tmp_path / "cache", workers=1, show=False)
    gone, longer = files.path(3), files.path(7)
    gone.unlink()
    longer.write_bytes(longer.read_bytes() + b"more")
    command = _vclr(files.file, "--out", tmp_path / "out")
    assert main([*command, "--max-failed", "0.5"]) == 0
    assert "2 failed" in capsys.readouterr().out
    stored = Manifest.load(tmp_path / "out" / "manifest.arrow")
    assert len(stored) == len(files) - 2
    with (tmp_path / "out" / "manifest.rejected.csv").open(encoding="utf-8") as file:
        reasons = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    assert reasons == {gone.name: "no such file", longer.name: "changed since it was indexed"}
    assert main([*command, "--max-failed", "0.05"]) == 2
    assert "2 of 18 files failed" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_read_leaves_nothing_in_the_shard(root: Path, tmp_path: Path) -> None:
    secret = sorted(root.rglob("*.mp4"))[1]
    files = ensure_manifest(root, cache_dir=tmp_path / "cache", workers=1, show=False)
    secret.chmod(0)
    packed = pack(files, tmp_path / "out", workers=1, show=False)
    assert [Path(reject.path).name for reject in packed.failed] == [secret.name]
    with tarfile.open(tmp_path / "out" / "000000.tar") as file:
        assert len(file.getmembers()) == 2 * (len(files) - 1)
    secret.chmod(0o644)
    assert len(_pack(files, tmp_path / "out", 256 * 2**20)) == len(files)


def test_what_is_clearly_no_video_is_not_stored(root: Path, tmp_path: Path) -> None:
    """A manifest that others made may name a link that leads to a file of another kind."""
    video = next(root.rglob("*.mp4"))
    secret = tmp_path / "passwd"
    secret.write_text("root:x:0:0:root:/root:/bin/bash\n" * 40)
    (root / "link.mp4").symlink_to(secret)
    rows = [Row(path=name, group=name) for name in ("link.mp4", str(video.relative_to(root)))]
    source = Manifest.load(write_manifest(tmp_path / "m.arrow", rows, Info(root=root)))
    packed = pack(source, tmp_path / "out", workers=1, show=False)
    assert [(one.path, one.reason) for one in packed.failed] == [
        ("link.mp4", "it is no video: it is a text file")
    ]
    assert len(packed.manifest) == 1
    assert b"root:x" not in (tmp_path / "out" / "000000.tar").read_bytes()


def test_a_kill_leaves_nothing_half_written(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = (
        "import os, sys\n"
        "from vclr_lightning.data.shards import pack, shard_writer\n"
        "add = shard_writer.ShardWriter.add\n"
        "def dying(self, number, *rest, **more):\n"
        "    place = add(self, number, *rest, **more)\n"
        "    return os._exit(9) if number == 7 else place\n"
        "shard_writer.ShardWriter.add = dying\n"
        f"pack(sys.argv[1], sys.argv[2], shard_size={SIZE}, workers=1, show=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(root), str(out)], check=False)
    assert done.returncode == 9
    left = _shards(out)
    assert left
    assert not (out / "manifest.arrow").exists()
    (out / ".shards" / ".0.tar.json.k2_x81ab").touch()  # killed in the midst of that
    packed = pack(root, out, shard_size=SIZE, workers=1, show=False)
    assert packed.earlier == len(left)
    assert len(packed.manifest) == 18
    assert not [file for file in out.rglob(".0*") if file.is_file()]


def test_from_a_store(root: Path, tmp_path: Path) -> None:
    stored = _pack(root, tmp_path / "out")
    store = fsspec.filesystem("memory")
    store.put(str(stored.root), "/bucket/set", recursive=True)
    reader = pickle.loads(pickle.dumps(ShardReader(url="memory://bucket/set/")))
    for i in range(0, len(stored), 5):
        with ShardReader().open(stored.path(i)) as video:
            truth = video.read([0, 9, 3])
        with reader.open(stored.path(i)) as video:
            np.testing.assert_array_equal(video.read([0, 9, 3]), truth)
            assert video.by_plan
    store.pipe("/bucket/set/000000.tar", b"short")
    with pytest.raises(VideoError, match="ends within the video"):
        reader.open(stored.path(0))
    store.rm("/bucket", recursive=True)
    with pytest.raises(VideoError, match="there is no shard memory:"):
        reader.open(stored.path(0))
    with pytest.raises(UserError, match="cannot be opened"):
        ShardReader(url="nosuch://bucket").open(stored.path(0))


def test_shards_that_are_not_there_are_errors_of_the_video(root: Path, tmp_path: Path) -> None:
    stored = _pack(root, tmp_path / "out")
    shard = stored.root / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    assert changed_files(stored)[stored.relative_path(0)] == "size"
    with pytest.raises(VideoError), ShardReader().open(stored.path(0)) as video:
        video.read([0])
    shard.unlink()
    assert changed_files(stored)[stored.relative_path(0)] == "missing"
    with pytest.raises(VideoError, match="the file does not exist"):
        ShardReader().open(stored.path(0)).__enter__()
    with pytest.raises(UserError, match="is not a video in a shard"):
        ShardReader().open(root / "a.mp4")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda root: root / "none", "does not exist"),
        (lambda root: _pack(root, root.parent / "one").file, "videos in shards"),
    ],
)
def test_what_cannot_be_stored(
    root: Path, tmp_path: Path, make: Callable[[Path], Path], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        pack(make(root), tmp_path / "out", show=False)
    with pytest.raises(UserError, match="must not lie in one another"):
        pack(root, root / "out", show=False)
    with pytest.raises(UserError, match="at least 1"):
        pack(root, tmp_path / "out", shard_size=0, show=False)


def test_a_change_withdraws_the_manifest_before_the_shards(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _pack(root, out)
    first = sorted(root.rglob("*.mp4"))[0]
    (first.parent / "! the first.mp4").write_bytes(first.read_bytes())

    def stopped(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vclr_lightning.data.shards.shard_writer.ShardWriter", stopped)
    with pytest.raises(KeyboardInterrupt):
        _pack(root, out)
    assert not (out / "manifest.arrow").exists()  # its rows would lead into other videos
    monkeypatch.undo()
    assert len(_pack(root, out)) == len(sorted(root.rglob("*.mp4")))


def test_shards_of_another_manifest_s_rows_are_written_again(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = ensure_manifest(root, cache_dir=tmp_path / "one", show=False)
    _pack(manifest, out)
    plain = ensure_manifest(root, cache_dir=tmp_path / "two", classes="none", show=False)
    again = pack(plain, out, shard_size=SIZE, workers=1, show=False)
    assert again.earlier == 0


@pytest.mark.parametrize(
    "option", [{"group_regex": "g0"}, {"classes": "none"}, {"decode": True}], ids=str
)
def test_what_shards_cannot_be_asked_is_refused(
    option: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    _pack(root, tmp_path / "out")
    with pytest.raises(UserError, match=f"{next(iter(option))} cannot change what the shards in"):
        ensure_manifest(tmp_path / "out", cache_dir=tmp_path / "cache", show=False, **option)


class _Flaky(MemoryFileSystem):
    """A store that refuses every second request, and may send more than was asked for."""

    protocol = "flaky"
    asked = 0
    whole = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("flaky://", "memory://")))

    def cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
        type(self).asked += 1
        if self.asked % 2:
            raise TimeoutError("too busy")
        if self.whole:
            start = end = None
        return super().cat_file(path, start=start, end=end, **options)


def test_a_store_that_fails_once_is_asked_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vclr_lightning.data.faults.PAUSES", (0.0,))
    fsspec.register_implementation("flaky", _Flaky, clobber=True)
    out = tmp_path / "out"
    manifest = _pack(root, out)
    files = fsspec.filesystem("flaky")
    for shard in out.glob("*.tar"):
        files.pipe_file(f"/set/{shard.name}", shard.read_bytes())
    reader = ShardReader(url="flaky://set")

    def read(reader: ShardReader) -> Any:
        return read_drawn(manifest, 0, reader, lambda _: (None, np.array([1])))[1][0]

    assert np.array_equal(read(reader), read(ShardReader()))
    monkeypatch.setattr("vclr_lightning.data.faults.PAUSES", ())
    with pytest.raises(VideoError, match="cannot be read: too busy"):
        read(reader)
    monkeypatch.setattr(_Flaky, "whole", True)
    with pytest.raises(VideoError, match="sent whole where a part is asked for"):
        read(reader)
