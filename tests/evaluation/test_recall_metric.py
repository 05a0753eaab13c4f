"""The metric says what the function does, in batches and over processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation.recall_metric import RecallAtK
from vclr_lightning.functional.nearest_neighbours import cosine_neighbours
from vclr_lightning.functional.retrieval import first_hits, recall_at_k, recalls


@pytest.fixture
def given() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "gallery": torch.randn(40, 6, generator=draw),
        "gallery_labels": torch.randint(3, (40,), generator=draw),
        "queries": torch.randn(23, 6, generator=draw),
        "labels": torch.randint(3, (23,), generator=draw),  # of 4 classes, one has no queries
    }


def expected(given: dict[str, torch.Tensor], keep: torch.Tensor) -> dict[str, float]:
    found = recall_at_k(
        given["queries"][keep],
        given["gallery"],
        query_labels=given["labels"][keep],
        gallery_labels=given["gallery_labels"],
        ks=(1, 5),
    )
    return {f"r{k}": value for k, value in found.items()}


@pytest.mark.parametrize("batch", [1, 7, 23])
def test_batches_say_what_the_function_does(given: dict[str, torch.Tensor], batch: int) -> None:
    metric = RecallAtK(given["gallery"], given["gallery_labels"], ks=(1, 5))
    for part in zip(given["queries"].split(batch), given["labels"].split(batch), strict=True):
        metric.update(*part)
    everything = torch.ones(23, dtype=torch.bool)
    assert {n: float(v) for n, v in metric.compute().items()} == pytest.approx(
        expected(given, everything)
    )
    assert 0 < metric.compute()["r1"] < 1
    metric.reset()
    assert int(metric.queries.sum()) == 0


def test_classes(given: dict[str, torch.Tensor]) -> None:
    options = {"ks": (1, 5), "num_classes": 4}
    each = RecallAtK(given["gallery"], given["gallery_labels"], average="none", **options)
    each.update(given["queries"], given["labels"])
    found = each.compute()
    classes = [expected(given, given["labels"] == label) for label in range(3)]
    for name in ("r1", "r5"):
        assert found[name][:3].tolist() == pytest.approx([row[name] for row in classes])
        assert found[name][3].isnan()
    macro = RecallAtK(given["gallery"], given["gallery_labels"], average="macro", **options)
    macro.update(given["queries"], given["labels"])
    assert float(macro.compute()["r1"]) == pytest.approx(sum(row["r1"] for row in classes) / 3)


def test_groups(given: dict[str, torch.Tensor]) -> None:
    rows, labels, groups = given["gallery"], given["gallery_labels"], torch.arange(40) // 2
    metric = RecallAtK(rows, labels, ks=(1, 5), gallery_groups=groups)
    metric.update(rows, labels, groups)
    _, position = cosine_neighbours(rows, rows, 5, query_groups=groups, gallery_groups=groups)
    by_hand = recalls(first_hits(position, labels, labels), ks=(1, 5))
    assert float(metric.compute()["r1"]) == pytest.approx(by_hand[1])
    assert by_hand[1] < 1
    with pytest.raises(UserError, match="groups"):
        metric.update(rows, labels)


def test_two_processes_count_together(given: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(given, tmp_path / "given.pt")
    script = Path(__file__).with_name("recall_ranks.py")
    ranks = [
        subprocess.Popen([sys.executable, script, str(rank), tmp_path / "meet", tmp_path])
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    for average in ("micro", "macro", "none"):
        alone = RecallAtK(
            given["gallery"], given["gallery_labels"], ks=(1, 5), average=average, num_classes=4
        )
        alone.update(given["queries"], given["labels"])
        for rank in range(2):
            found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
            for share in ("uneven", "nothing"):
                torch.testing.assert_close(
                    found[f"{average} {share}"], alone.compute(), equal_nan=True
                )


def test_what_cannot_be() -> None:
    x, y = torch.eye(3), torch.arange(3)
    for gallery, labels in [(x, y[:2]), (x[:0], y[:0])]:
        with pytest.raises(UserError, match="cannot be searched"):
            RecallAtK(gallery, labels)
    with pytest.raises(UserError, match="num_classes"):
        RecallAtK(x, y, average="macro")
    with pytest.raises(UserError, match="average=mean"):
        RecallAtK(x, y, average="mean")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="2 features"):
        RecallAtK(x, y).update(torch.ones(1, 2), y[:1])
    with pytest.raises(UserError, match="from 2 to 2 do not fit num_classes=2"):
        RecallAtK(x, y, average="none", num_classes=2).update(x[:1], y[2:])
