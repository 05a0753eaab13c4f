"""Folds: groups stay whole, every row is in one, classes are spread."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.folds import group_folds


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=20, max_size=60),
    st.integers(2, 5),
    st.integers(0, 99),
)
def test_groups_are_never_on_both_sides(rows: list[tuple[int, int]], folds: int, seed: int) -> None:
    labels, groups = torch.tensor(rows).unbind(1)
    if len(torch.unique(groups)) < folds:
        with pytest.raises(UserError, match="too few for folds"):
            group_folds(labels, groups, folds=folds, seed=seed)
        return
    fold = group_folds(labels, groups, folds=folds, seed=seed)
    for group in torch.unique(groups):
        assert len(torch.unique(fold[groups == group])) == 1
    assert torch.unique(fold).tolist() == list(range(folds))  # none is empty
    assert torch.equal(fold, group_folds(labels, groups, folds=folds, seed=seed))


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_without_groups_classes_are_spread_evenly(folds: int) -> None:
    labels = torch.arange(90) % 6
    fold = group_folds(labels, torch.full((90,), -1), folds=folds, seed=3)
    for label in range(6):
        counts = torch.bincount(fold[labels == label], minlength=folds)
        assert counts.max() - counts.min() <= 1


def test_groups_of_one_class_are_spread_evenly() -> None:
    """UCF101's form: 25 groups a class, 4 to 7 clips each."""
    generator = torch.Generator().manual_seed(0)
    labels, groups = [], []
    for group in range(10 * 25):
        clips = int(torch.randint(4, 8, (), generator=generator))
        labels += [group // 25] * clips
        groups += [group] * clips
    label = torch.tensor(labels)
    fold = group_folds(label, torch.tensor(groups), folds=5)
    for one in range(10):
        share = torch.bincount(fold[label == one], minlength=5) / (label == one).sum()
        assert share.min() > 0.16
        assert share.max() < 0.24


def test_the_seed_decides() -> None:
    labels, groups = torch.arange(60) % 3, torch.arange(60) // 2
    first, second = (group_folds(labels, groups, folds=3, seed=s) for s in (0, 1))
    assert not torch.equal(first, second)


def test_too_few_folds() -> None:
    with pytest.raises(UserError, match="folds=1 must be 2 or more"):
        group_folds(torch.zeros(4), torch.arange(4), folds=1)
