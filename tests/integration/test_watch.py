"""What watches a training, by the command line: `+watch=[...]`, and the best checkpoint by it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

MEASURES = {
    *("collapse/rankme", "collapse/lidar", "collapse/alarm"),
    *("gradients/norm/order", "gradients/cosine/inter-video"),
    *("queue/objectives.inter/fill", "queue/objectives.video/stale"),
    *("probe/knn/val_top1", "probe/linear/val_top1", "probe/linear/loss"),
    *("probe/attentive/val_top1", "probe/time/reversed/similarity"),
}


def test_all_of_them(fork: Any, video_folder: Path, tmp_path: Path) -> None:
    words = [
        *("name=tried", "image_size=32", "trainer=cpu", "trainer.threads=1"),
        *("trainer.log_every_n_steps=1", f"data.root={video_folder}", "data.holdout=0.34"),
        *("data.num_workers=0", "batch_size=4", "queue_size=50", "epochs=1"),
        *("backbone=slow_r50", "backbone.depth=18", "backbone.width=4", "frames_per_clip=4"),
        "+watch=[collapse,gradients,queue,knn,linear,attentive,time,embedding]",
        *("callbacks.collapse.every_n_steps=2", "callbacks.gradients.every_n_steps=2"),
        *("callbacks.queue.every_n_steps=2", "callbacks.online=null"),
        "monitor=collapse/lidar",
    ]
    run = fork(words, tmp_path)
    assert run.wait() == 0, run.output()
    folder = tmp_path / "outputs/pretrain/tried"
    with (folder / "metrics.csv").open() as file:
        found = {name for row in csv.DictReader(file) for name, value in row.items() if value}
    assert found >= MEASURES
    assert (folder / "best.ckpt").exists()
    assert (folder / "embeddings/embedding-query_encoder-0001.png").exists()
