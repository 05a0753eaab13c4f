"""Run files of Python, given on the command line, each as a script, beside what they speak of.

In the folder where it is started: a pretrained run, a finetuned one, annotations with features.
"""

from __future__ import annotations

import json
import runpy
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

from vclr_lightning import train

NETWORK = ("backbone=tiny", "backbone.width=4", "backbone.stages=1")
COMMON = (
    *("trainer=cpu", "trainer.threads=1", "data.num_workers=0", "data.holdout=0.34", "epochs=1"),
    *("image_size=32", "num_segments=3", "batch_size=4", "data.cache_dir=cache"),
    *("callbacks.online=null", "monitor=null"),
)


def run(*arguments: str) -> None:
    """Run a training command in this process."""
    sys.argv = ["train", *arguments, *COMMON]
    train.main()


def project(videos: Path) -> None:
    """Make what the pages speak of."""
    run("name=k400", *NETWORK, "queue_size=16", f"data.root={videos}")
    pretrained = Path("outputs/pretrain/k400")
    shutil.copy(pretrained / "last.backbone.safetensors", pretrained / "best.backbone.safetensors")
    start = f"init={pretrained / 'last.ckpt'}"
    run("stage=finetune", "name=ucf101_finetune", *NETWORK, start, f"data.root={videos}")
    shutil.copy(next(videos.rglob("*.mp4")), "one.mp4")
    features = Path("anet/csv_mean_100")
    features.mkdir(parents=True)
    database = {}
    for number in range(16):
        name = f"video{number:06d}"
        np.save(features / f"{name}.npy", np.random.default_rng(number).random((100, 8)))
        span = {"segment": [10.0, 40.0 + number], "label": "Run"}
        database[name] = {"subset": "training", "duration": 100.0, "annotations": [span]}
    (Path("anet") / "activity_net.v1-3.min.json").write_text(json.dumps({"database": database}))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    videos, *files = map(Path, sys.argv[1:])
    project(videos)
    for file in files:
        sys.argv = [str(file)]
        runpy.run_path(str(file), run_name="__main__")
