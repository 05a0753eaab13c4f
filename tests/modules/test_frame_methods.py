"""MoCo v2, SeCo and VINCE train as their authors' code does, in one process and in two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

REFERENCE = Path(__file__).parents[1] / "reference"
MOCO = json.loads((REFERENCE / "g13_moco.json").read_text())
SECO = json.loads((REFERENCE / "seco.json").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What each rank of each run saved."""
    folder = tmp_path_factory.mktemp("frame_methods")
    script = Path(__file__).with_name("frame_methods_run.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.pt")):
        found.setdefault(path.stem.rpartition("-")[0], []).append(torch.load(path))
    return found


def moved(step: dict[str, Any], side: str, heads: dict[str, str]) -> dict[str, float]:
    """How far parameters have moved, by their names in the authors' code."""
    renamed = {f"{side}_encoder.trunk.": ""} | {
        f"objectives.{objective}.{side}_head.": f"{name}." for objective, name in heads.items()
    }
    return {
        new + name.removeprefix(old): value
        for name, value in step["moved"].items()
        for old, new in renamed.items()
        if name.startswith(old)
    }


def assert_queue(step: dict[str, Any], file: str, name: str) -> None:
    with np.load(REFERENCE / file) as arrays:
        np.testing.assert_allclose(step["queue"].numpy(), arrays[name], atol=1e-8)


@pytest.mark.parametrize("norm", ["gn", "bn"])
def test_moco_v2(runs: dict[str, list[dict[str, Any]]], norm: str) -> None:
    (run,) = runs[f"moco_{norm}"]
    figures, heads = MOCO[norm], {"moco": "fc"}
    assert len(run["steps"]) == len(figures["steps"]) == 3
    for i, (ours, theirs) in enumerate(zip(run["steps"], figures["steps"], strict=True)):
        assert ours["losses"]["moco"] == pytest.approx(theirs["loss"], abs=1e-8)
        assert ours["pointer"] == theirs["pointer_after"]
        assert_queue(ours, "g13_moco.npz", f"{norm}.step{i}.queue")
    *_, before, last = run["steps"]
    assert moved(last, "query", heads) == pytest.approx(figures["query_moved_l2"], rel=1e-6)
    # The authors' code updates the key encoder before it encodes: one update fewer at the end.
    assert moved(before, "key", heads) == pytest.approx(figures["key_moved_l2"], rel=1e-6)
    once_more = figures["key_moved_l2_after_one_more_update"]
    assert moved(last, "key", heads) == pytest.approx(once_more, rel=1e-6)


def test_moco_v2_on_two_ranks_with_its_shuffles(runs: dict[str, list[dict[str, Any]]]) -> None:
    figures, heads = MOCO["ranks2"], {"moco": "fc"}
    for rank, run in enumerate(runs["moco_ranks"]):
        assert len(run["steps"]) == figures["steps"] == 2
        for i, ours in enumerate(run["steps"]):
            expected = figures["loss_per_rank"][i][rank]
            assert ours["losses"]["moco"] == pytest.approx(expected, abs=1e-8)
            assert ours["pointer"] == figures["pointer_after"][i]
            assert_queue(ours, "g13_moco.npz", f"ranks2.step{i}.queue")
        before, last = run["steps"]
        assert moved(last, "query", heads) == pytest.approx(figures["query_moved_l2"], rel=1e-6)
        assert moved(before, "key", heads) == pytest.approx(figures["key_moved_l2"], rel=1e-6)


@pytest.mark.parametrize("norm", ["gn", "bn"])
def test_seco(runs: dict[str, list[dict[str, Any]]], norm: str) -> None:
    (run,) = runs[f"seco_{norm}"]
    figures = SECO[norm]
    assert len(run["steps"]) == len(figures["steps"]) == 3
    for i, (ours, theirs) in enumerate(zip(run["steps"], figures["steps"], strict=True)):
        for name, loss in ours["losses"].items():
            assert loss == pytest.approx(theirs[name], abs=1e-8), name
        assert ours["losses"].keys() == {"inter", "intra", "order"}
        assert ours["pointer"] == theirs["pointer_after"]
        assert_queue(ours, "seco.npz", f"{norm}.step{i}.memory")
    heads = {name: f"fc_{name}" for name in ("inter", "intra", "order")}
    last = run["steps"][-1]
    classifier = {
        f"fc_order_classifier.{name}": last["moved"][f"objectives.order.classifier.{name}"]
        for name in ("weight", "bias")
    }
    ours = moved(last, "query", heads) | classifier
    assert ours == pytest.approx(figures["query_moved_l2"], rel=1e-6)
    expected = {n: v for n, v in figures["key_moved_l2"].items() if "classifier" not in n}
    assert moved(last, "key", heads) == pytest.approx(expected, rel=1e-6)
    for side, buffers in figures.get("running_l2", {}).items():
        for name, value in buffers.items():  # of three key batches a step
            assert run["running"][f"{side}.trunk.{name}"] == pytest.approx(value, rel=1e-8)


def test_losses_and_gradients_of_two_processes_are_those_of_one(
    runs: dict[str, list[dict[str, Any]]],
) -> None:
    (alone,) = runs["world1"]
    ranks = runs["world2"]
    assert alone["steps"][0]["losses"].keys() == {"moco", "inter", "intra", "order", "vince"}
    for i, step in enumerate(alone["steps"]):
        for name, loss in step["losses"].items():
            mean = np.mean([rank["steps"][i]["losses"][name] for rank in ranks])
            assert mean == pytest.approx(loss, abs=1e-10), name
    for rank in ranks:
        for name, value in alone["state"].items():  # after four steps, so gradients are equal too
            close = {"atol": 1e-9, "rtol": 0.0}
            torch.testing.assert_close(rank["state"][name], value, msg=name, **close)
