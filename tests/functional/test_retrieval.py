"""Recall and k-NN against a NumPy computation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.accuracy import mean_class_accuracy, topk_accuracy
from vclr_lightning.functional.knn import knn_accuracy, knn_predict
from vclr_lightning.functional.retrieval import (
    chance_recall,
    first_hits,
    instance_recall,
    recall_at_k,
    recalls,
)


def features(seed: int, rows: int, columns: int = 6) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, columns)))


def ranking(queries: torch.Tensor, gallery: torch.Tensor) -> NDArray[np.int64]:
    q, g = queries.numpy(), gallery.numpy()
    norms = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(g, axis=1)[None]
    return np.argsort(-(q @ g.T) / norms, axis=1, kind="stable")


@settings(deadline=None)
@given(seed=st.integers(0, 1000))
def test_recall_is_the_share_of_queries_with_a_hit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, gallery = features(seed, 11), features(seed + 1, 17)
    q_labels, g_labels = rng.integers(4, size=11), rng.integers(4, size=17)
    order = ranking(queries, gallery)
    pairs = list(zip(order, q_labels, strict=True))
    expected = {
        k: np.mean([(g_labels[row[:k]] == label).any() for row, label in pairs]) for k in (1, 5, 50)
    }
    found = recall_at_k(
        queries,
        gallery,
        query_labels=torch.from_numpy(q_labels),
        gallery_labels=torch.from_numpy(g_labels),
        ks=(1, 5, 50),
        chunk=4,
    )
    assert found == pytest.approx(expected)
    assert found[1] <= found[5] <= found[50]


def test_a_class_that_the_gallery_lacks_is_never_found() -> None:
    gallery, labels = features(0, 9), torch.arange(9) % 3
    found = recall_at_k(
        gallery, gallery, query_labels=torch.full((9,), 3), gallery_labels=labels, ks=(1, 9)
    )
    assert found == {1: 0.0, 9: 0.0}


def test_no_neighbour_is_no_hit() -> None:
    positions = torch.tensor([[-1, -1], [2, -1], [0, 2]])
    hits = first_hits(positions, torch.tensor([5, 5, 5]), torch.tensor([4, 5, 5]))
    assert hits.tolist() == [0, 1, 2]
    assert recalls(hits, ks=(1, 2, 3)) == pytest.approx({1: 1 / 3, 2: 2 / 3, 3: 2 / 3})


@pytest.mark.parametrize("ks", [(), (0,), (5, -1)])
def test_numbers_of_neighbours_are_checked(ks: tuple[int, ...]) -> None:
    one, label = torch.ones(1, 2), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(UserError, match="ks="):
        recall_at_k(one, one, query_labels=label, gallery_labels=label, ks=ks)


def test_instance_recall_of_equal_features_is_chance() -> None:
    same = torch.ones(10, 4)
    assert instance_recall(same, same) == 0.1


def test_instance_recall_is_symmetric() -> None:
    first = features(0, 20)
    second = first + 0.8 * features(1, 20)
    assert instance_recall(first, second) == instance_recall(second, first)
    order = ranking(first, second)[:, 0], ranking(second, first)[:, 0]
    expected = np.mean([(side == np.arange(20)).mean() for side in order])
    assert 0 < expected < 1
    assert instance_recall(first, second) == pytest.approx(expected)


@settings(deadline=None)
@given(seed=st.integers(0, 1000), k=st.integers(1, 6), grouped=st.booleans())
def test_chance_is_the_share_of_all_choices_of_k_rows(seed: int, k: int, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    q_labels, g_labels = rng.integers(3, size=4), rng.integers(3, size=6)
    q_groups, g_groups = (rng.integers(3, size=size) for size in (4, 6))
    expected = []
    for label, group in zip(q_labels, q_groups, strict=True):
        others = g_labels[g_groups != group] if grouped else g_labels
        choices = list(itertools.combinations(others, min(k, len(others))))
        expected.append(np.mean([label in choice for choice in choices]))
    groups = {
        "query_groups": torch.from_numpy(q_groups),
        "gallery_groups": torch.from_numpy(g_groups),
    }
    found = chance_recall(
        torch.from_numpy(q_labels),
        torch.from_numpy(g_labels),
        ks=(k,),
        **(groups if grouped else {}),
    )
    assert found[k] == pytest.approx(np.mean(expected))


def test_chance_is_what_random_features_reach() -> None:
    rng = np.random.default_rng(0)
    q_labels = torch.from_numpy(rng.choice(3, size=60, p=[0.6, 0.3, 0.1]))
    g_labels = torch.from_numpy(rng.choice(3, size=90, p=[0.2, 0.2, 0.6]))
    drawn = [
        recall_at_k(
            features(2 * s, 60),
            features(2 * s + 1, 90),
            query_labels=q_labels,
            gallery_labels=g_labels,
            ks=(1,),
        )[1]
        for s in range(40)
    ]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert abs(np.mean(drawn) - chance_recall(q_labels, g_labels, ks=(1,))[1]) < 5 * error


def test_one_neighbour_is_recall_at_1() -> None:
    queries, gallery = features(3, 30), features(4, 40)
    labels = torch.arange(40) % 5
    given = {"query_labels": labels[:30], "gallery_labels": labels}
    assert (
        knn_accuracy(queries, gallery, **given)
        == recall_at_k(queries, gallery, ks=(1,), **given)[1]
    )


def test_votes_decide_and_the_nearest_breaks_ties() -> None:
    gallery = torch.tensor([[1.0, 0.0], [1.0, 0.2], [1.0, 0.4], [1.0, 0.6], [1.0, 0.8]])
    query = torch.tensor([[1.0, 0.0]])
    assert knn_predict(query, gallery, torch.tensor([5, 3, 3, 9, 9]), k=3).tolist() == [3]
    assert knn_predict(query, gallery, torch.tensor([5, 3, 3, 5, 9]), k=4).tolist() == [5]
    assert knn_predict(query, gallery, torch.tensor([5, 3, 3, 5, 9]), k=99).tolist() == [5]


def test_accuracies_against_hand_counts() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [2.0, 3.0, 1.0], [1.0, 2.0, 3.0]])
    targets = torch.tensor([0, 0, 0, -1])
    assert topk_accuracy(scores, targets) == 0.25
    assert topk_accuracy(scores, targets, k=2) == 0.5
    assert topk_accuracy(scores, targets, k=5) == 0.75
    assert mean_class_accuracy(scores.argmax(1), torch.tensor([0, 0, 0, 2])) == pytest.approx(2 / 3)
