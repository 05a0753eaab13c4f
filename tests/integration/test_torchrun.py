"""A training on two processes that torchrun itself starts."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.slow
def test_torchrun_starts_the_ranks_of_a_training(
    video_folder: Path, tmp_path: Path, indexed: Callable[[Path], str]
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": indexed(tmp_path / "c")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *("-m", "vclr_lightning.train", f"data.root={video_folder}", "backbone=tiny"),
            *("image_size=32", "batch_size=4", "queue_size=12", "epochs=null", "steps=2"),
            *("trainer=cpu", "trainer.devices=2", "trainer.threads=1", "data.num_workers=0"),
            *("callbacks.online=null", "monitor=null", "trainer.log_every_n_steps=1", "init=none"),
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "outputs" / "pretrain" / "default"
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [row["train/loss"] != "" for row in rows] == [True, True]
    assert "2 process(es)" in (run / "train.log").read_text()
    assert (run / "last.ckpt").is_file()
    assert done.stdout.count("wrote") == 1  # one of them writes
