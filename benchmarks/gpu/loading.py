"""How fast samples reach the device, and whether loading or training bounds a run."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.decode import FPS, synthetic
from benchmarks.gpu.record import Add, Setting
from benchmarks.train_step import make_batch
from vclr_lightning.core.lightning import move_data_to_device
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.loading.workers import default_num_workers
from vclr_lightning.data.manifest import Info, Manifest, Row, write_manifest
from vclr_lightning.data.prepare import Recipe
from vclr_lightning.data.prepare.transcode import transcode
from vclr_lightning.data.prepare.video_writer import write_video
from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.transforms import EvalTransform, PretrainTransform

AUGMENTS = ("torch", "device")


def prepared_videos(folder: Path, *, frames: int, videos: int, edge: int) -> Manifest:
    """Return videos as ``vclr prepare`` writes them, links to one file."""
    import numpy as np

    pixels = np.stack([f.to_ndarray(format="rgb24") for f in itertools.islice(synthetic(), frames)])
    write_video(folder / "source.mp4", pixels, fps=FPS, keyframe_interval=frames)
    made = folder / "prepared.mp4"
    probe = transcode(folder / "source.mp4", made, Recipe(short_edge=edge))
    rows = []
    for number in range(videos):
        link = folder / f"{number:05}.mp4"
        os.link(made, link)
        rows.append(Row(path=link.name, num_frames=probe.num_frames, exact=True))
    write_manifest(folder / "videos.arrow", rows, Info(root=folder))
    return Manifest.load(folder / "videos.arrow")


def loader_rate(data: VideoDataModule, setting: Setting, *, seconds: float) -> tuple[float, float]:
    """Return videos a second that reach the device, and seconds of a batch spent finishing it."""
    loader: Any = data.train_dataloader()
    videos, batches, begun = 0, 0, 0.0
    try:
        for epoch in itertools.count():
            loader.set_epoch(epoch)
            for batch in loader:
                batch = data.transfer_batch_to_device(batch, setting.device)
                now = setting.clock()
                if not begun:  # the workers start, and the device's first calls are slow
                    begun, data.finishing_time = now, 0.0
                    continue
                videos, batches = videos + len(batch["video_id"]), batches + 1
                if now - begun > seconds and batches > 1:
                    return videos / (now - begun), data.finishing_time / batches
    finally:
        data.teardown("fit")
    raise AssertionError


def copy_rate(setting: Setting, *, pinned: bool) -> float:
    """Return the bytes a second at which batches are copied to the device."""
    batch: Any = make_batch(2 if setting.tiny else 64, 32 if setting.tiny else 224, 0)["views"]
    if pinned:
        batch = {name: view.pin_memory() for name, view in batch.items()}
    size = sum(view.numel() for view in batch.values())
    move_data_to_device(batch, setting.device)
    begun, times = setting.clock(), 20
    for _ in range(times):
        move_data_to_device(batch, setting.device)
    return float(times * size / (setting.clock() - begun))


def loading(setting: Setting, add: Add) -> None:
    """Measure the loader with all cores, copies, and the rest of the augmentation."""
    tiny, cuda = setting.tiny, setting.device.type == "cuda"
    for pinned in (False, True) if cuda else (False,):
        rate = copy_rate(setting, pinned=pinned)
        kind = "pinned" if pinned else "pageable"
        add(f"copy to the device, {kind} memory", f"{rate / 1e9:.2f} GB/s", bytes_per_s=rate)
    workers = 0 if tiny else default_num_workers(1)
    batch_size = 2 if tiny else 64
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        begun = time.monotonic()
        table = prepared_videos(
            Path(name),
            frames=12 if tiny else 300,
            videos=4 if tiny else 4096,
            edge=64 if tiny else 256,
        )
        add("videos made and prepared", f"{time.monotonic() - begun:.1f} s")
        for augment in AUGMENTS:
            seconds = 0.0 if tiny else max(3.0, 0.35 * setting.left())
            data = VideoDataModule(
                train=table,
                samplers={"tuples": TupleSampler(num_segments=3)},
                transform=PretrainTransform(size=32 if tiny else 224),
                eval_transform=EvalTransform(size=32 if tiny else 224),
                reader=PyAVReader(),
                batch_size=batch_size,
                num_workers=workers,
                views=("anchor", "positive", "second"),
                pin_memory=cuda,
                augment=augment,  # type: ignore[arg-type]
            )
            rates[augment], finishing = loader_rate(data, setting, seconds=seconds)
            add(
                f"loader, augment={augment}, {workers} workers on {os.cpu_count()} cores",
                f"{rates[augment]:.4g} videos/s",
                videos_per_s=rates[augment],
                workers=workers,
                finishing=finishing,
            )
            if augment == "device":
                add(
                    "augmentation finished on the device",
                    f"{1e3 * finishing:.3g} ms a batch of {batch_size}",
                )
    step = fastest_step(setting.folder)
    best = max(rates.values())
    if step is None:
        add("what bounds a run", "unknown: no training step was measured")
    else:
        bound = "loading" if best < step else "training"
        add(
            "what bounds a run: loader, training step",
            f"{bound}: {best:.4g}, {step:.4g} videos/s",
            bound=bound,
            loader=best,
            step=step,
        )


def fastest_step(folder: Path) -> float | None:
    """Return the most videos a second of the part ``steps``, if it has measured."""
    file = folder / "steps.json"
    rows = json.loads(file.read_text())["rows"] if file.is_file() else []
    ours = [
        row for row in rows if not str(row.get("case", "as released")).startswith("as released")
    ]
    return max((row["videos_per_s"] for row in ours), default=None)
