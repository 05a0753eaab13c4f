"""Features extracted on two machines, by the ranks that torchrun starts there."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vclr_lightning.evaluation.store import FeatureStore
from vclr_lightning.stages.features import extraction

Begin = Callable[..., list[Any]]


@pytest.fixture
def torchrun(
    fork: Callable[..., Any], video_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Begin:
    """``torchrun(name, own=("", ""))``: a rank on each of two machines, with own arguments."""
    true = extraction.encode_part

    def encode(job: Any, blocks: Any, *, number: int = 0, of: int = 1) -> None:
        (tmp_path / f"{job.work.parent.name} {number} of {of}").touch()
        true(job, blocks, number=number, of=of)

    monkeypatch.setattr(extraction, "encode_part", encode)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def begin(name: str, own: tuple[str, ...] = ("", "")) -> list[Any]:
        arguments = [
            *("stage=features", f"name={name}", "ckpt=none", "backbone=tiny", "image_size=32"),
            *(f"data.root={video_folder}", f"data.cache_dir={tmp_path / 'index'}"),
            *("data.num_workers=0", "data.eval_batch_size=2", "data.holdout=0.34"),
            *("features.num_frames=2", "trainer=cpu", "stage.run.splits=train"),
            *(f"features.folder={tmp_path / name}", f"trainer.num_nodes={len(own)}"),
        ]
        ranks = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
        ranks |= {"TORCHELASTIC_RUN_ID": name, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
        return [
            fork(
                [*arguments, *filter(None, [other])],
                tmp_path / f"rank{rank}",
                {**ranks, "RANK": str(rank)} if len(own) > 1 else {},
            )
            for rank, other in enumerate(own)
        ]

    return begin


def test_two_machines_give_the_features_of_one(torchrun: Begin, tmp_path: Path) -> None:
    ranks = torchrun("both")
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].output() + ranks[1].output()
    (alone,) = torchrun("alone", ("",))
    assert alone.wait() == 0, alone.output()
    worked = {file.name for file in tmp_path.glob("* of *")}
    assert worked == {"both 0 of 2", "both 1 of 2", "alone 0 of 1"}
    about = "outputs/features/both/features.json"
    store = FeatureStore.open(
        json.loads((tmp_path / "rank0" / about).read_text())["train"]["folder"]
    )
    assert len(store) == 12
    for name in ("features.npy", "rows.arrow"):
        both, one = ((tmp_path / kind / "train" / name).read_bytes() for kind in ("both", "alone"))
        assert both == one
    assert list((tmp_path / "rank1").rglob("*.json")) == []  # the first one writes and reports
    assert "wrote" not in ranks[1].output()


def test_a_folder_that_they_do_not_share_is_refused(torchrun: Begin, tmp_path: Path) -> None:
    ranks = torchrun("apart", ("", f"features.folder={tmp_path / 'elsewhere'}"))
    assert [rank.wait() for rank in ranks] == [2, 2], ranks[0].output() + ranks[1].output()
    for rank in ranks:
        assert "some ranks do not see" in rank.output()
        assert "on a file system that all machines share" in rank.output()
