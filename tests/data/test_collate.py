"""Batches of samples: shapes, and samples that are left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vclr_lightning.data.loading.collate import as_tensors, collate


def sample(number: int, *, valid: bool = True) -> dict[str, Any]:
    return {
        "views": {"anchor": torch.full((3, 2), number, dtype=torch.uint8)},
        "targets": {"label": np.asarray(number)},
        "mask": np.array([True, number > 1]),
        "video_id": 10 + number,
        "valid": valid,
        "rejected": [] if valid else [{"video_id": number}],
    }


def test_samples_are_stacked() -> None:
    batch = as_tensors(collate([sample(1), sample(2)]))
    assert "valid" not in batch
    assert batch["views"]["anchor"].shape == (2, 3, 2)
    assert batch["views"]["anchor"].dtype == torch.uint8
    assert batch["views"]["anchor"].is_contiguous()
    assert torch.equal(batch["targets"]["label"], torch.tensor([1, 2]))
    assert torch.equal(batch["mask"], torch.tensor([[True, False], [True, True]]))
    assert torch.equal(batch["video_id"], torch.tensor([11, 12]))
    assert batch["rejected"] == []


def test_invalid_samples_are_left_out_but_listed() -> None:
    batch = as_tensors(collate([sample(1, valid=False), sample(2), sample(3, valid=False)]))
    assert batch["video_id"].tolist() == [12]
    assert batch["views"]["anchor"].unique().tolist() == [2]
    assert batch["rejected"] == [{"video_id": 1}, {"video_id": 3}]


def test_a_batch_without_any_keeps_its_shapes() -> None:
    batch = as_tensors(collate([sample(1, valid=False)]))
    assert batch["views"]["anchor"].shape == (0, 3, 2)
    assert batch["targets"]["label"].shape == (0,)
    assert batch["video_id"].dtype == torch.int64
