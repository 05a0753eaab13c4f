"""Classification of made labels, against sums written out clip by clip."""

from __future__ import annotations

from itertools import permutations
from math import exp, log
from typing import Any

import pytest
import torch
from torch import nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Request
from vclr_lightning.functional.permutations import permutation_classes, permutation_table
from vclr_lightning.objectives import Classify


def surprise(scores: list[float], target: int) -> float:
    return -log(exp(scores[target]) / sum(exp(s) for s in scores))


def batch_of(**targets: list[Any]) -> Any:
    return {"targets": {name: torch.tensor(value) for name, value in targets.items()}}


def test_every_clip_is_classified_by_itself() -> None:
    torch.manual_seed(0)
    pace = Classify(num_features=5, of="slow:clip[x1]", target="pace", classes=3).double()
    assert pace.requests() == {"clips": Request("slow", ("clip",), rows="x1")}
    assert list(pace.targets()) == ["pace"]
    x = torch.randn(2, 2, 5, dtype=torch.float64, requires_grad=True)
    out = pace({"clips": x}, batch_of(pace=[[0, 2], [1, 1]]))
    weight, bias = pace.classifier.weight.detach(), pace.classifier.bias.tolist()
    expected, hits = [], 0
    for row, targets in zip(x.detach(), ((0, 2), (1, 1)), strict=True):
        for clip, target in zip(row, targets, strict=True):
            scores = [float(w @ clip) + b for w, b in zip(weight, bias, strict=True)]
            expected.append(surprise(scores, target))
            hits += max(range(3), key=scores.__getitem__) == target
    assert out.loss.item() == pytest.approx(sum(expected) / 4)
    assert out.metrics["accuracy"].item() == hits / 4
    assert out.metrics["chance"].item() == pytest.approx(1 / 3)
    out.loss.backward()
    assert x.grad is not None
    assert not out.pending


def test_a_label_of_a_video_is_that_of_each_of_its_clips() -> None:
    torch.manual_seed(0)
    pace = Classify(num_features=5, target="pace", classes=3)
    x = {"clips": torch.randn(2, 2, 5)}
    of_videos = pace(x, batch_of(pace=[0, 2])).loss
    assert of_videos == pace(x, batch_of(pace=[[0, 0], [2, 2]])).loss


def test_every_two_clips_share_a_hidden_layer() -> None:
    torch.manual_seed(0)
    order = Classify(num_features=2, target="o", classes=6, clips=3, join="pairs", hidden=4)
    order.double()
    x = torch.randn(3, 3, 2, dtype=torch.float64)
    out = order({"clips": x}, batch_of(o=[0, 5, 3]))
    layer = order.hidden[0]
    losses = []
    for (a, b, c), target in zip(x, (0, 5, 3), strict=True):
        parts = [(layer.weight @ torch.cat(two) + layer.bias) for two in ((a, b), (a, c), (b, c))]
        hidden = torch.cat([part.clamp(min=0) for part in parts])
        scores = order.classifier.weight @ hidden + order.classifier.bias
        losses.append(surprise(scores.tolist(), target))
    assert out.loss.item() == pytest.approx(sum(losses) / 3)
    # A label that stands with every clip of a video is the video's.
    repeated = order({"clips": x}, batch_of(o=[[0] * 3, [5] * 3, [3] * 3]))
    assert repeated.loss == out.loss


def test_sizes_are_those_of_the_published_heads() -> None:
    """VCOP and OPN: 512 features, pairs through 512; 6 and 24 classes in the authors' code."""
    for clips, classes in ((3, 6), (4, 24)):
        head = Classify(
            num_features=512, target="o", classes=classes, clips=clips, join="pairs", hidden=512
        )
        pairs = clips * (clips - 1) // 2
        expected = (1024 * 512 + 512) + (pairs * 512 * classes + classes)
        assert sum(p.numel() for p in head.parameters()) == expected


def test_joined_clips_in_a_row() -> None:
    puzzle = Classify(num_features=2, target="o", classes=24, clips=4, join="concat", hidden=3)
    assert puzzle.hidden[0].in_features == 8
    x = torch.randn(2, 4, 2)
    assert puzzle.logits(x).shape == (2, 24)
    swapped = x[:, [1, 0, 2, 3]]
    assert not torch.allclose(puzzle.logits(x), puzzle.logits(swapped))


def test_dropout_is_of_training_alone() -> None:
    torch.manual_seed(0)
    head = Classify(num_features=64, target="o", classes=2, dropout=0.5)
    x = torch.ones(1, 1, 64)
    assert not torch.equal(head.logits(x), head.logits(x))
    head.eval()
    assert torch.equal(head.logits(x), head.logits(x))


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float64])
def test_the_loss_is_in_full_precision(precision: torch.dtype) -> None:
    head = Classify(num_features=4, target="o", classes=2).to(precision)
    out = head({"clips": torch.ones(1, 1, 4, dtype=precision)}, batch_of(o=[0]))
    assert out.loss.dtype == torch.promote_types(precision, torch.float32)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"classes": 1}, "classes"),
        ({"classes": 2, "join": "sum"}, "join"),
        ({"classes": 2, "join": "pairs"}, "clips"),
        ({"classes": 2, "dropout": 1.0}, "dropout"),
        ({"classes": 2, "hidden": -1}, "hidden"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=key):
        Classify(num_features=4, target="o", **options)


def test_labels_and_clips_that_do_not_fit() -> None:
    head: nn.Module = Classify(num_features=4, target="pace", classes=2)
    with pytest.raises(UserError, match="'pace' has class 2, but classes=2"):
        head({"clips": torch.ones(1, 1, 4)}, batch_of(pace=[2]))
    with pytest.raises(UserError, match="'pace' has class -1"):
        head({"clips": torch.ones(1, 1, 4)}, batch_of(pace=[-1]))
    joined = Classify(num_features=4, target="o", classes=2, clips=3, join="concat")
    with pytest.raises(UserError, match="2 clips of clip, but clips=3"):
        joined({"clips": torch.ones(1, 2, 4)}, batch_of(o=[0]))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("up_to_reversal", [False, True])
def test_classes_of_permutations(size: int, up_to_reversal: bool) -> None:
    table = [tuple(row) for row in permutation_table(size, up_to_reversal=up_to_reversal).tolist()]
    assert len(table) == permutation_classes(size, up_to_reversal=up_to_reversal)
    assert table == sorted(set(table))
    found = {frozenset({row, row[::-1]}) for row in table} if up_to_reversal else set(table)
    every = set(permutations(range(size)))
    assert found == ({frozenset({p, p[::-1]}) for p in every} if up_to_reversal else every)
    assert table[0] == tuple(range(size))
