from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from vclr_lightning.callbacks.throughput import Throughput, samples_in

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning", "ignore:The .*dataloader. does not have many workers"
)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_speed_wait_and_rate_stand_in_the_rows(fit: Any, tmp_path: Path, accumulate: int) -> None:
    fit(tmp_path, Throughput(), accumulate_grad_batches=accumulate)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert float(row["perf/videos_per_s"]) > 0
        assert 0 <= float(row["perf/data_wait"]) <= 1
    # StepLR of the module: x 0.9 every two steps, in full precision.
    expected, rate = [], 0.1
    for step in range(len(rows)):
        rate = rate if step == 0 or step % 2 else rate * 0.9
        expected.append(rate)
    assert [float(row["train/lr"]) for row in rows] == expected


def test_rows_of_a_batch() -> None:
    assert samples_in(torch.zeros(3, 2)) == 3
    assert samples_in([torch.zeros(5), torch.zeros(5)]) == 5
    assert samples_in({"x": "text", "views": {"a": torch.zeros(7, 1)}}) == 7
    assert samples_in({"video_id": torch.zeros(2), "x": torch.zeros(9)}) == 2
    assert samples_in([]) == 0
