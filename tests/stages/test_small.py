"""The experiment for one's own videos: any folder, so many steps, a page that compares."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from vclr_lightning import train

SIZES = ["image_size=32", "backbone.width=8", "backbone.stages=2", "batch_size=4", "queue_size=8"]
FEW = ["steps=7", "optim.scheduler.warmup_steps=2", "callbacks.online.every_n_steps=3"]


@pytest.mark.parametrize("labels", [True, False])
def test_a_folder_of_videos_ends_in_a_page(
    labels: bool,
    video_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    # A page of evaluations is tested elsewhere; k-NN is enough to see that there is one.
    suite = ["suite.linear_probe=null", "suite.retrieval=null", "data.num_workers=0"]
    where = [f"data.root={video_folder}", f"data.cache_dir={tmp_path}/cache", "data.holdout=0.34"]
    kind = [] if labels else ["data.classes=none"]
    words = ["train", "+experiment=small", *SIZES, *FEW, *suite, *where, *kind]
    monkeypatch.setattr(sys, "argv", words)
    GlobalHydra.instance().clear()
    try:
        train.main()
    finally:
        HydraConfig.instance().cfg = None
    run = tmp_path / "outputs/demo/small"
    results = json.loads((run / "results.json").read_text())
    held_out = results["held_out"]
    assert (held_out["videos"], held_out["instance_chance"]) == (6, pytest.approx(1 / 6))
    assert set(held_out["instance_r1"]) == {"VCLR", "untrained"}
    assert ("frozen" in results) == labels == (run / "evaluation.json").exists()
    page = (run / "report.html").read_text()
    assert "What a network learned from 12 videos without labels" in page
    by = f"{100 * held_out['instance_r1']['VCLR']:.3g}% by VCLR"
    assert ("A linear probe predicts" in page) == labels == (by not in page)
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["step"]) == 6  # counted from 0
    steps = {int(row["step"]) for row in rows if row["val/instance_r1"]} - {0}
    assert steps == {2, 5, 6}  # epochs of three steps
    log = (run / "train.log").read_text()
    assert "trainer.precision=auto is " in log
    assert "18 videos were re-encoded once" in capsys.readouterr().err
    assert len(list((tmp_path / "cache/prepared").rglob("*.mp4"))) == 18
