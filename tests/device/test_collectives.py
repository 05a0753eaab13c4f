"""What ranks exchange is on the device, and of types that NCCL takes.

The device of these tests checks every collective of torch.distributed; see ``fake_cuda.py``.
Control messages, which are objects, go by a gloo group on the host.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from pytorch_lightning import Trainer
from torch import Tensor

import vclr_lightning
from vclr_lightning.core import distributed
from vclr_lightning.evaluation.average_recall_metric import AverageRecallAtAN
from vclr_lightning.evaluation.recall_metric import RecallAtK
from vclr_lightning.models import TinyBackbone
from vclr_lightning.modules.key_batchnorm import key_copy, running_statistics

SOURCES = Path(vclr_lightning.__file__).parent
TINY = ("backbone=tiny", "backbone.width=8", "backbone.stages=1")


# The trainer itself is on one device.
@pytest.mark.filterwarnings("ignore:It is recommended to use `self.log")
@pytest.mark.parametrize(
    ("precision", "features"), [("32-true", "float32"), ("bf16-mixed", "bfloat16")]
)
def test_pretraining_exchanges_what_nccl_takes(
    precision: str,
    features: str,
    pretraining: Callable[..., dict[str, Any]],
    fit: Callable[..., Trainer],
    ranks: Any,
) -> None:
    """Shuffled keys, queues, running statistics and logged means."""
    fit(pretraining(*TINY, "objective=inter_intra"), precision=precision)
    assert ranks.collectives == {
        ("alltoall_base", "uint8"),  # clips, on the way to other ranks
        ("alltoall_base", features),  # their features, on the way back
        ("allgather", "float32"),  # keys
        ("allgather", "int64"),  # ids
        ("allreduce", "float32"),  # running statistics, state of the queues
        ("allreduce", "float64"),  # logged sums
    }


def test_finetuned_statistics_are_averaged_on_the_device(ranks: Any) -> None:
    network = TinyBackbone(width=8, stages=1)
    ranks.strict = False
    network.to("cuda")
    ranks.strict = True
    distributed.average_in_place(running_statistics(network))
    assert ranks.collectives == {("allreduce", "float32")}


def test_synchronised_batchnorm_exchanges_what_nccl_takes(
    ranks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moments(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        return x.mean((0, 2, 3)), x.var((0, 2, 3))

    # Torch's own layer waits: it leaves out ranks without samples by a mask.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    # Of these there are no fake ones.
    monkeypatch.setattr(torch, "batch_norm_stats", moments)
    monkeypatch.setattr(torch, "batch_norm_gather_stats_with_counts", moments)
    monkeypatch.setattr(torch, "batch_norm_elemt", lambda x, *_: x)
    network = key_copy(TinyBackbone(width=8, stages=1), "sync")
    ranks.strict = False
    network.to("cuda")
    network(torch.zeros(2, 3, 32, 32, device="cuda"))
    assert ranks.collectives == {("allgather_base", "float32")}


def test_metrics_are_gathered_on_the_device(ranks: Any) -> None:
    ranks.strict = False  # torchmetrics compares the sizes of the ranks' tensors
    found = AverageRecallAtAN().to("cuda")
    found.update([np.array([[0.0, 0.5, 0.9], [0.2, 1.0, 0.4]])], [np.array([[0.0, 0.6]])])
    recall = RecallAtK(torch.rand(4, 3), torch.arange(4)).to("cuda")
    recall._update_count = 1  # a search for neighbours reads values
    for metric in (found, recall):
        metric.sync(distributed_available=lambda: True)
    assert ranks.collectives == {("allgather", "float64"), ("allgather", "int64")}


def test_refused_tensors_are_noticed(ranks: Any) -> None:
    distributed.gather(torch.zeros(3, 2, device="cuda").T)  # made contiguous
    with pytest.raises(ValueError, match="not contiguous"):
        dist.all_reduce(torch.zeros(3, 2, device="cuda").T)
    with pytest.raises(TypeError, match="int16"):
        distributed.gather(torch.zeros(3, dtype=torch.int16, device="cuda"))
    with pytest.raises(AssertionError, match="of the host"):
        distributed.gather(torch.zeros(3))


def test_control_messages_go_by_gloo(ranks: Any) -> None:
    assert distributed.gather_objects("a") == ["a", "a"]
    assert distributed.max_over_ranks(3) == 3
    assert not ranks.collectives


def test_one_file_makes_all_collectives() -> None:
    called = re.compile(
        r"(?:dist|distributed)\.(?:nn\.|functional\.)*(?:_?all_|barrier|broadcast|reduce|gather\w*_"
        r"|scatter|send|recv|isend|irecv|monitored)\w*\(|from torch\.distributed\b(?!.* as)"
    )
    found = {
        path.relative_to(SOURCES).as_posix(): line.strip()
        for path in SOURCES.rglob("*.py")
        for line in path.read_text().splitlines()
        if called.search(line) and not line.lstrip().startswith("#")
    }
    assert set(found) <= {"core/distributed.py", "stages/shared/ddp.py"}, found
