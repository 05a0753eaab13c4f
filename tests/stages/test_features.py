"""Extracting features of real video files: what, how often, by whom, and what is told."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from vclr_lightning.core.errors import UserError
from vclr_lightning.data import faults
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.data.transforms import EvalTransform
from vclr_lightning.evaluation import extract_features, frame_encoder
from vclr_lightning.evaluation.store import FeatureStore
from vclr_lightning.models import TinyBackbone, TorchvisionVideo, export_backbone
from vclr_lightning.stages.features import extraction
from vclr_lightning.stages.features.extractor import FeatureExtractor
from vclr_lightning.stages.features.stage import extract
from vclr_lightning.stages.shared.data import video_data
from vclr_lightning.stages.shared.hardware import Hardware

Build = Callable[..., FeatureExtractor]


def small_data(folder: Path, cache: Path, **options: Any) -> VideoDataModule:
    given = {"holdout": 0.34, "num_workers": 0, "eval_batch_size": 4} | options
    return video_data(
        root=folder,
        cache_dir=cache,
        samplers={},
        transform=EvalTransform(size=32, resize=36),
        eval_transform=EvalTransform(size=32, resize=36),
        batch_size=4,
        eval_frames=6,
        **given,
    )


def small_backbone(seed: int = 0) -> TinyBackbone:
    torch.manual_seed(seed)
    return TinyBackbone(width=4, stages=2)


def small_extractor(root: Path, cache: Path, **options: Any) -> FeatureExtractor:
    given = {"weights": "none", "backbone": small_backbone()} | options
    return FeatureExtractor(
        data=given.pop("data", None) or small_data(root, cache),
        num_frames=6,
        transform=given.pop("transform", EvalTransform(size=32, resize=36)),
        cache_dir=cache,
        hardware=given.pop("hardware", Hardware(accelerator="cpu", threads=1)),
        show=False,
        **given,
    )


@pytest.fixture
def build(video_folder: Path, tmp_path: Path) -> Build:
    return partial(small_extractor, video_folder, tmp_path / "cache")


@pytest.fixture
def damaged_folder(video_folder: Path, tmp_path: Path) -> Path:
    """A copy whose first and ninth file are no videos beyond their first bytes."""
    folder = tmp_path / "damaged"
    shutil.copytree(video_folder, folder)
    for name in ("grow/grow_g00_c00.mp4", "left/left_g01_c00.mp4"):
        file = folder / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return folder


def test_equals_features_in_memory(build: Build) -> None:
    extractor = build()
    store = extractor("train")
    loader = extractor.data.frames_loader("train")
    expected = extract_features(frame_encoder(extractor.backbone), loader, show=False)
    assert torch.equal(store.mean, expected.mean)
    for name in ("label", "video_id", "group_id", "index"):
        assert torch.equal(getattr(store, name), getattr(expected, name))
    table = extractor.data.split("train")
    assert store.names == [table.name(i) for i in range(len(table))]
    assert store.classes == ("grow", "left", "right")
    assert extractor.splits == ("train", "val")
    assert extractor.test_split() == "val"


def test_found_again_and_said(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = build()("val")
    assert "extracting features of 6 videos" in caplog.text
    written = (first.folder / "features.npy").stat().st_mtime_ns
    caplog.clear()
    again = build()("val")
    assert f"val: reusing the features in {first.folder}" in caplog.text
    assert (again.folder / "features.npy").stat().st_mtime_ns == written


def test_damaged_features_of_the_cache_are_made_anew(
    build: Build, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    first = build()("val")
    expected, file = first.mean.clone(), first.folder / "features.npy"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert torch.equal(build()("val").mean, expected)
    assert "features.npy is not what was written" in caplog.text
    shutil.copytree(first.folder, tmp_path / "mine" / "val")
    (tmp_path / "mine" / "val" / "features.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"features.npy is not what was written.*extract"):
        build(folder=tmp_path / "mine")("val")


def test_the_same_weights_in_another_file_are_found_again(build: Build, tmp_path: Path) -> None:
    exported = export_backbone(small_backbone(), tmp_path / "b.safetensors")
    torch.save({"state_dict": small_backbone().state_dict()}, tmp_path / "a.pth")
    one = build(weights=exported, backbone=None)("val")  # the file says what network it is of
    other = build(weights=tmp_path / "a.pth")("val")
    assert one.folder == other.folder == build()("val").folder


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": small_backbone(1)},
        {"layer": "blocks.0"},
        {"transform": EvalTransform(size=24, resize=36)},
        {"keep_frames": True},
        {"every": 8},
        {"hardware": Hardware(accelerator="cpu", precision="bf16-mixed", threads=1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_features_depend_on_has_an_entry_of_its_own(
    change: dict[str, Any], build: Build
) -> None:
    first, other = build(), build(**change)
    one, two = first("val"), other("val")
    assert one.folder != two.folder
    # both are still found
    assert (first("val").folder, other("val").folder) == (one.folder, two.folder)


def test_a_replaced_video_is_extracted_anew(video_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    shutil.copytree(video_folder, folder)
    before = small_extractor(folder, tmp_path / "cache")("train")
    changed = Path(before.paths[0])
    shutil.copy(before.paths[-1], changed)
    after = small_extractor(folder, tmp_path / "cache")("train")
    assert after.folder != before.folder
    assert not torch.equal(after.mean[0], before.mean[0])
    assert torch.equal(after.mean[1:], before.mean[1:])


def test_every_frame_is_kept(build: Build) -> None:
    frames, mean = build(keep_frames=True)("val"), build()("val")
    assert frames.features.shape == (6, 6, 16)
    assert torch.equal(frames.mean, mean.mean)


def test_snippets(build: Build) -> None:
    extractor = build(every=8, keep_frames=True)
    store = extractor("val")
    table = extractor.data.split("val")
    encode = frame_encoder(extractor.backbone)
    for i, video in enumerate(store):
        with extractor.data.reader.open(table.path(i)) as opened:
            indices = list(range(4, opened.num_frames, 8))
            pictures = opened.read(indices)
        rng = np.random.default_rng(0)
        expected = encode(torch.stack([extractor.transform([p], rng) for p in pictures]))
        assert torch.equal(video, expected)
    assert len(set(store.count.tolist())) > 1
    assert store.features.shape == (int(store.count.sum()), 16)


def test_a_network_of_clips(build: Build) -> None:
    torch.manual_seed(0)
    store = build(backbone=TorchvisionVideo(name="r3d_18"), frames_per_clip=4, stride=2)("val")
    assert store.mean.shape == (6, 512)
    assert store.provenance["sampling"] == {"num_frames": 6, "frames_per_clip": 4, "stride": 2}
    torch.manual_seed(0)
    timed = build(backbone=TorchvisionVideo(name="r3d_18"), frames_per_clip=4, rate=5)("val")
    assert timed.provenance["sampling"] == {"num_frames": 6, "frames_per_clip": 4, "rate": 5}
    assert torch.equal(timed.mean, store.mean)  # the videos have ten frames a second


def test_bad_videos_are_left_out_counted_and_listed(
    damaged_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = small_data(damaged_folder, tmp_path / "cache", holdout=0)
    listed = len(data.train)
    extractor = small_extractor(damaged_folder, tmp_path / "cache", data=data)
    # Files that break after they were indexed.
    broken = [data.train.path(i) for i in (0, 5)]
    for path in broken:
        path.write_bytes(b"")
    store = extractor("train")
    assert len(store) == listed - 2
    assert [Path(item["path"]) for item in store.rejected] == broken
    assert store.index.tolist() == [i for i in range(listed) if i not in (0, 5)]
    assert f"train: 2 of {listed} videos cannot be read" in caplog.text
    values = extract(features=extractor, directory=tmp_path / "run")
    assert values == {"train/videos": listed - 2, "train/rejected": 2}
    rows = (tmp_path / "run" / "rejected.csv").read_text().splitlines()
    assert [row.split(",")[:3:2] for row in rows[1:]] == [["train", str(p)] for p in broken]
    content = json.loads((tmp_path / "run" / "features.json").read_text())
    assert content["train"]["folder"] == str(store.folder)


class Flaky(PyAVReader):
    """The disk of some files fails, until it is mended."""

    broken: ClassVar[set[Path]] = set()

    def open(self, path: Path, **known: Any) -> Any:
        if path in self.broken:
            raise OSError(errno.EIO, "Input/output error")
        return super().open(path, **known)


@pytest.mark.parametrize(
    "options", [{}, {"keep_frames": True}, {"keep_frames": True, "every": 8}], ids=str
)
def test_what_the_disk_failed_to_give_is_read_again(
    options: dict[str, Any], video_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "PAUSES", ())
    data = small_data(video_folder, tmp_path / "cache", holdout=0, reader=Flaky())
    given = options | {"data": data, "folder": tmp_path / "f"}
    make = partial(small_extractor, video_folder, tmp_path / "cache", **given)
    true, seen = extraction.encode_batch, list[int]()

    def counted(encoders: Any, batch: Any, **options: Any) -> Any:
        seen.extend(batch["index"].tolist())
        return true(encoders, batch, **options)

    monkeypatch.setattr(extraction, "encode_batch", counted)
    one, other = data.train.path(1), data.train.path(9)
    monkeypatch.setattr(Flaky, "broken", {one, other})
    extractor = make()
    first = extractor("train")
    assert [item["path"] for item in first.rejected] == [str(one), str(other)]
    seen.clear()
    extractor("train")
    assert seen == []  # in one run once
    monkeypatch.setattr(Flaky, "broken", {other})
    partly = make()("train")
    assert [item["path"] for item in partly.rejected] == [str(other)]
    (tmp_path / "f" / "train" / "notes.txt").write_text("mine")
    make()("train")  # in vain
    monkeypatch.setattr(Flaky, "broken", set())
    seen.clear()
    store = make()("train")
    size = 1 if "every" in options else 4
    assert seen == [row for row in range(len(data.train)) if row // size == 9 // size]
    assert store.rejected == []
    whole = make(folder=tmp_path / "g")("train")
    assert torch.equal(store.features, whole.features)
    assert torch.equal(store.count, whole.count)
    assert (store.names, store.paths) == (whole.names, whole.paths)
    assert FeatureStore.open(tmp_path / "f" / "train").index.tolist() == whole.index.tolist()
    assert (tmp_path / "f" / "train" / "notes.txt").read_text() == "mine"
    assert {p.name for p in (tmp_path / "f").iterdir()} == {"train"}


def test_a_run_in_which_nothing_could_be_read_is_not_the_last_word(
    video_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small_data(video_folder, tmp_path / "cache", holdout=0)
    away = video_folder.rename(video_folder.with_name("away"))
    try:
        make = partial(small_extractor, video_folder, tmp_path / "cache", data=data)
        with pytest.raises(UserError, match="none of the"):
            make()("train")
    finally:
        away.rename(video_folder)
    assert make()("train").rejected == []


@pytest.mark.slow
def test_processes_do_not_matter(build: Build, tmp_path: Path) -> None:
    one = build(folder=tmp_path / "one", keep_frames=True)("train")
    hardware = Hardware(accelerator="cpu", devices=2, threads=1)
    two = build(folder=tmp_path / "two", keep_frames=True, hardware=hardware)("train")
    for name in ("features.npy", "rows.arrow"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
def test_a_process_killed_before_it_reads_what_to_do_is_said(build: Build) -> None:
    def kill_first() -> None:
        while not (started := _children("spawn_main")):
            time.sleep(0.001)
        os.kill(started[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_first)
    killer.start()
    network = TinyBackbone(width=64)  # more than a pipe holds
    with pytest.raises(UserError, match=r"that encodes videos .* was killed"):
        build(hardware=Hardware(accelerator="cpu", devices=2, threads=1), backbone=network)("train")
    killer.join()


def _children(words: str) -> list[int]:
    found = []
    for number in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        with suppress(OSError):  # it may have ended meanwhile
            if words in Path(f"/proc/{number}/cmdline").read_text():
                found.append(int(number))
    return found


def test_a_mistake_in_another_process_is_told(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Forked, to be spared the seconds that a spawned process imports.
    monkeypatch.setattr(extraction, "spawn", partial(mp.start_processes, start_method="fork"))
    extractor = build(hardware=Hardware(accelerator="cpu", devices=2), layer="blocks.0")
    extractor.layer = "blocks.9"
    with pytest.raises(UserError, match=r"no layer 'blocks\.9'"):
        extractor("train")


def _ranked(rank: int, folder: Path, cache: Path, port: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    try:
        extractor = small_extractor(folder, cache, data=small_data(folder, cache / str(rank)))
        store = extractor("train")
        again = extractor("train")
        assert store.folder == again.folder
        torch.save((store.mean, store.index), cache / f"rank{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def test_ranks_of_a_process_group_share_the_work(
    build: Build, video_folder: Path, tmp_path: Path
) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cache = tmp_path / "ranks"
    cache.mkdir()
    mp.start_processes(_ranked, (video_folder, cache, port), nprocs=2, start_method="fork")
    single = build()("train")
    for rank in range(2):
        mean, index = torch.load(cache / f"rank{rank}.pt")
        assert torch.equal(mean, single.mean)
        assert torch.equal(index, single.index)


def test_goes_on_where_it_was_stopped(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    true = extraction.encode_batch

    def stopping(encoders: Any, batch: Any, **options: Any) -> Any:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(batch["video_id"]))
        return true(encoders, batch, **options)

    monkeypatch.setattr(extraction, "encode_batch", stopping)
    with pytest.raises(KeyboardInterrupt):
        build(folder=tmp_path / "f")("train")
    assert not (tmp_path / "f" / "train").exists()
    assert seen == [4, 4]
    seen.clear()
    monkeypatch.setattr(extraction, "encode_batch", lambda *a, **o: seen.append(1) or true(*a, **o))
    store = build(folder=tmp_path / "f")("train")
    assert seen == [1]  # of three batches
    assert torch.equal(store.mean, build()("train").mean)
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["train"]


def test_a_folder_of_other_features_is_refused(build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    build(folder=folder)("val")
    assert len(build(folder=folder)("val")) == 6
    with pytest.raises(UserError, match=r"holds features of other weights \(other random ones\);"):
        build(folder=folder, backbone=small_backbone(1))("val")
    with pytest.raises(UserError, match=r"holds features of other transform \(size 32; now 24\);"):
        build(folder=folder, transform=EvalTransform(size=24, resize=36))("val")


def test_a_folder_of_other_weights_is_refused_by_their_names(build: Build, tmp_path: Path) -> None:
    """No hash that nobody can find again; the untrained twin has a folder of its own."""
    first, second = (
        export_backbone(small_backbone(seed), tmp_path / f"{seed}.backbone.safetensors")
        for seed in (0, 1)
    )
    folder = tmp_path / "features"
    build(folder=folder, weights=first)("val")
    build(folder=folder, weights=first, untrained=True)("val")
    assert (folder / "untrained/val/store.json").is_file()
    with pytest.raises(UserError) as told:
        build(folder=folder, weights=second)("val")
    assert f"holds features of other weights ({first}; now {second});" in str(told.value)
    shutil.copy(second, first)
    with pytest.raises(UserError, match=r"0\.backbone\.safetensors, which has changed since\);"):
        build(folder=folder, weights=first)("val")


def test_a_folder_of_other_files_is_refused(build: Build, tmp_path: Path) -> None:
    (tmp_path / "notes" / "val").mkdir(parents=True)
    (tmp_path / "notes" / "val" / "a.txt").write_text("a")
    with pytest.raises(UserError, match="holds other files"):
        build(folder=tmp_path / "notes")("val")


def test_splits_of_a_table_are_whole(video_folder: Path, tmp_path: Path) -> None:
    """Nothing is held out of the training videos where a test split is there to measure on."""
    files = sorted(video_folder.rglob("*.mp4"))
    labels = {"grow": 0, "left": 1, "right": 2}
    for name, chosen in (("train", files[::2]), ("val", files[1::2])):
        lines = [f"{f.relative_to(video_folder)} {labels[f.parent.name]}" for f in chosen]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    lists = {f"{name}_list": tmp_path / f"{name}.txt" for name in ("train", "val")}
    data = small_data(video_folder, tmp_path / "cache", **lists)
    extractor = small_extractor(video_folder, tmp_path / "cache", data=data)
    assert (len(extractor("train")), len(extractor("val"))) == (9, 9)
    with pytest.raises(UserError, match="no videos of split 'test'; there is train, val"):
        extractor("test")
    with pytest.raises(UserError, match="split test to measure on, only train, val"):
        extractor.test_split("test")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": "block.0"}, "no layer 'block.0'; near it are blocks"),
        ({"weights": "nowhere.ckpt"}, "no weights file at nowhere.ckpt"),
        ({"backbone": None}, "give backbone=resnet50"),
        ({"chunk": 0}, "chunk=0"),
        ({"every": 0}, "every=0"),
    ],
    ids=str,
)
def test_mistakes_are_told(options: dict[str, Any], words: str, build: Build) -> None:
    with pytest.raises(UserError, match=words):
        build(**options)("val")


def test_weights_that_do_not_fit_say_which_and_what_would(build: Build, tmp_path: Path) -> None:
    file = export_backbone(TinyBackbone(width=8), tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"stem\.weight of .* fits TinyBackbone\(width=8"):
        build(weights=file)
    half = {k: v for k, v in small_backbone().state_dict().items() if "blocks" not in k}
    torch.save(half, tmp_path / "half.pth")
    with pytest.raises(UserError, match=r"has no blocks \(\d+\) of this TinyBackbone"):
        build(weights=tmp_path / "half.pth")
    assert len(build(weights=tmp_path / "half.pth", layer="stem_norm")("val")) == 6
    assert isinstance(FeatureStore.open(build()("val").folder), FeatureStore)


def test_an_untrained_network_to_compare_with_is_the_same_each_time(
    build: Build, tmp_path: Path
) -> None:
    file = export_backbone(small_backbone(), tmp_path / "b.safetensors")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one = build(weights=file, backbone=None, untrained=True)
    torch.rand(3)
    other = build(weights=file, backbone=None, untrained=True)
    assert one.provenance("val") == other.provenance("val")
    assert one.provenance("val") != build(weights=file, backbone=None).provenance("val")
    torch.set_rng_state(before)
