"""Several processes train as one does, and Shuffle-BN mixes ranks and restores the order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vclr_lightning.modules.encoding import through
from vclr_lightning.modules.input_pixels import Pixels

STEPS = 5
LOSSES = ("inter", "intra", "video", "order")
IN_BATCH = ("two_views", "documented", "dpc", "memdpc", "clip_nce", "cvrl", "pace", "vthcl")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What each rank of each run saved."""
    folder = tmp_path_factory.mktemp("distributed")
    script = Path(__file__).with_name("distributed_run.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.pt")):
        found.setdefault(path.stem.rpartition("-")[0], []).append(torch.load(path))
    return found


@pytest.mark.parametrize("run", ["world2", "world4", "accumulated"])
def test_losses_and_queues_are_those_of_one_process(
    runs: dict[str, list[dict[str, Any]]], run: str
) -> None:
    (alone,) = runs["world1"]
    assert len(alone["losses"]) == STEPS
    assert len(alone["losses"][1]) > 20
    for rank in runs[run]:
        for ours, single in zip(rank["losses"][1:], alone["losses"][1:], strict=True):
            assert ours == pytest.approx(single, abs=1e-6)  # shares of hits are float32
            for name in ("train/loss", *(f"train/{loss}/loss" for loss in LOSSES)):
                assert ours[name] == pytest.approx(single[name], abs=1e-9), name
        for name, value in alone["state"].items():
            if value.is_floating_point():
                close = {"atol": 1e-9, "rtol": 0.0}
                torch.testing.assert_close(rank["state"][name], value, msg=name, **close)
            else:  # ids and pointers
                assert torch.equal(rank["state"][name], value), name
    ids = alone["state"]["objectives.inter.queue.ids"]
    assert ids[:20].tolist() == [*range(36, 40), *range(32, 40), *range(32, 40)]
    assert int(alone["state"]["objectives.inter.queue.pointer"]) == 24 * STEPS % 50


@pytest.mark.parametrize("run", ["world2", "world4", "accumulated", "batchnorm"])
def test_the_state_is_the_same_on_every_rank(
    runs: dict[str, list[dict[str, Any]]], run: str
) -> None:
    first, *others = (rank["state"] for rank in runs[run])
    assert run != "batchnorm" or any("running_mean" in name for name in first)
    for other in others:
        for name, value in first.items():
            assert torch.equal(other[name], value), name


def test_losses_within_a_batch_are_those_of_one_process(
    runs: dict[str, list[dict[str, Any]]],
) -> None:
    (alone,) = runs["in_batch1"]
    for rank in runs["in_batch2"]:
        for ours, single in zip(rank["losses"][1:], alone["losses"][1:], strict=True):
            assert ours == pytest.approx(single, abs=1e-6)
            for loss in IN_BATCH:
                name = f"train/{loss}/loss"
                assert ours[name] == pytest.approx(single[name], abs=1e-9)
        for name, value in alone["state"].items():  # after five steps, so gradients are equal too
            torch.testing.assert_close(rank["state"][name], value, msg=name, atol=1e-9, rtol=0.0)


def video_at(videos: Tensor, wanted: Tensor) -> list[int]:
    return [i for i, video in enumerate(videos) if torch.equal(video, wanted)]


def test_shuffled_keys_are_normalised_with_other_ranks_videos_and_restored(
    runs: dict[str, list[dict[str, Any]]], make_network: Any
) -> None:
    ranks = runs["shuffle"]
    videos = torch.cat([rank["videos"] for rank in ranks])  # (8, 3, ...): 0 to 3 are of rank 0
    members = [[video_at(videos, clips)[0] for clips in rank["groups"][-1]] for rank in ranks]
    assert sorted(members[0] + members[1]) == list(range(8))
    for group in members:
        # A query's own batch is one rank's four; its key's is half of either rank's.
        assert sum(video < 4 for video in group) == 2

    features = torch.cat([rank["features"] for rank in ranks])
    for group in members:
        torch.manual_seed(0)
        network = make_network(norm=True).double()
        with torch.no_grad():
            alone = through(network, videos[group], pixels=Pixels(2, (0.5,) * 3, (0.25,) * 3))
        torch.testing.assert_close(features[group], alone, atol=1e-12, rtol=0)


def test_the_shuffle_differs_between_steps(runs: dict[str, list[dict[str, Any]]]) -> None:
    first, second = runs["shuffle"][0]["groups"]
    assert not torch.equal(first, second)


def test_a_module_that_no_loss_depends_on_is_named_before_the_first_step(
    runs: dict[str, list[dict[str, Any]]],
) -> None:
    for rank in runs["unused"]:
        said = rank["said"]
        assert "do not depend on 2 parameters, such as objectives.mine.spare.weight" in said
        assert "requires_grad_(False)" in said
