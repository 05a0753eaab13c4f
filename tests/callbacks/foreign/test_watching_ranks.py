"""What watches a training says the same of two processes as of one with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_two_processes_are_watched_as_one(tmp_path: Path) -> None:
    script = Path(__file__).with_name("watching_ranks.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    one, first, second = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1")
    )
    assert first == second  # classifiers of both ranks are the same, and so is what they log
    values, weights = one
    assert first[0] == pytest.approx(values, rel=1e-3, abs=1e-4)
    for own, expected in zip(first[1], weights, strict=True):
        assert own == pytest.approx(expected, rel=1e-2, abs=2e-4)
    assert any(abs(x) > 1e-3 for x in first[1][0])
    prefixes = {"/".join(name.split("/")[:2]) for name in values}
    assert {"collapse/rankme", "gradients/cosine", "probe/knn", "probe/linear"} <= prefixes
    assert {"probe/attentive", "probe/time"} <= prefixes
