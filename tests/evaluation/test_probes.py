"""Probes: what they are fitted to, how settings are chosen, what counts as wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation import FeatureSet, linear_probe
from vclr_lightning.evaluation.cross_validation import Probe, ProbeData, cross_validate
from vclr_lightning.evaluation.probe_result import ProbeResult, run_probe
from vclr_lightning.evaluation.probes import KNNProbe, LogisticProbe, SVMProbe, fit_svm

PROBES = [SVMProbe(), LogisticProbe(epochs=10, folds=3), KNNProbe(k=3)]


def videos(rows: int, classes: int, seed: int, **changes: Any) -> FeatureSet:
    centres = 3 * torch.eye(classes, 8)
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(rows) % classes
    mean = (centres[label] + torch.randn(rows, 8, generator=generator)).relu()
    number = torch.arange(rows)
    facts = {"mean": mean, "label": label, "group_id": number // (2 * classes)} | changes
    return FeatureSet(segments=facts["mean"][:, None], video_id=number, index=number, **facts)


def ask(probe: Probe, **changes: Any) -> ProbeResult:
    return run_probe(probe, videos(60, 6, 0), videos(30, 6, 1, **changes), show=False)


@pytest.mark.parametrize("probe", PROBES)
def test_classes_that_lie_apart_are_told(probe: Probe) -> None:
    result = ask(probe)
    values = result.accuracies
    assert set(values) == {"top1", "top5", "mean_class"}
    assert values["top1"] > 0.7
    assert values["top5"] >= values["top1"]
    assert result.chance == pytest.approx({"top1": 1 / 6, "top5": 5 / 6, "mean_class": 1 / 6})
    assert values["top1"] == float((result.predicted == result.label).double().mean())
    confusion = result.confusion(6)
    assert confusion.diagonal().sum() / confusion.sum() == pytest.approx(values["top1"])
    assert values["mean_class"] == pytest.approx(
        float((confusion.diagonal() / confusion.sum(1)).mean())
    )
    for row in result.by_class():
        assert row.right == int(confusion[row.label, row.label])
        assert row.videos == int(confusion[row.label].sum())
        others = confusion[row.label].clone()
        others[row.label] = 0
        assert (row.predicted is None) == (not others.any())
        if row.predicted is not None:
            assert others[row.predicted] == others.max()


@pytest.mark.parametrize("probe", PROBES)
def test_names_of_classes_do_not_matter(probe: Probe) -> None:
    """Labels that are permuted and leave gaps: the same predictions under other names."""
    name = torch.tensor([40, 3, 17, 5, 90, 8])
    train, test = videos(60, 6, 0), videos(30, 6, 1)
    plain = run_probe(probe, train, test, show=False)
    renamed = run_probe(
        probe,
        videos(60, 6, 0, label=name[train.label]),
        videos(30, 6, 1, label=name[test.label]),
        show=False,
    )
    same = renamed.predicted == name[plain.predicted]
    assert same.double().mean() >= (1.0 if not isinstance(probe, LogisticProbe) else 0.9)


def test_the_svm_is_the_measure_of_frozen_features() -> None:
    train, test = videos(60, 6, 0), videos(30, 6, 1)
    for standardize in (False, True):
        probe = SVMProbe(standardize=standardize)
        values = run_probe(probe, train, test, show=False).accuracies
        assert values == linear_probe(train, test, standardize=standardize)


def test_scaling_features_is_scaling_c() -> None:
    """w.x is unchanged by x -> s x, C -> C / s^2: |w|^2 / 2 falls by s^2, and so must the sum."""
    train, test = videos(60, 6, 0), videos(30, 6, 1)
    plain = run_probe(SVMProbe(cost=2.0), train, test, show=False).scores
    scaled = run_probe(
        SVMProbe(cost=2.0 / 16),
        videos(60, 6, 0, mean=4 * train.mean),
        videos(30, 6, 1, mean=4 * test.mean),
        show=False,
    ).scores
    assert torch.allclose(plain, scaled, atol=2e-2 * float(plain.abs().max()))


@pytest.mark.parametrize("probe", PROBES)
def test_a_class_that_training_lacks_counts_as_wrong(probe: Probe) -> None:
    train, test = videos(60, 6, 0), videos(28, 7, 1)
    result = run_probe(probe, train, test, show=False)
    assert result.missing == [6]
    assert result.chance["top1"] == pytest.approx(6 / 7 / 6)
    assert result.confusion(7)[6, 6] == 0
    assert result.accuracies["top1"] <= 24 / 28
    assert result.by_class()[6].training == 0


def test_videos_without_label_are_left_out() -> None:
    label = torch.arange(30) % 6
    label[:10] = -1
    assert len(ask(SVMProbe(), label=label)) == 20


def test_search_over_c_is_by_group_and_takes_the_best() -> None:
    train = videos(60, 6, 0)
    seen: list[tuple[Tensor, Tensor]] = []

    def accuracies(known: ProbeData, held: ProbeData, values: Any) -> list[float]:
        seen.append((known.groups, held.groups))
        return [float(value == 4.0) for value in values]

    rows = ProbeData(train.mean, train.label, train.group_id, 6)
    search = cross_validate("C", [1.0, 4.0, 9.0], accuracies, rows, folds=5, show=False)
    assert search.best.value == 4.0
    assert sum(search.held_out) == 60
    assert len(seen) == 5
    for known, held in seen:
        assert not torch.isin(held, known).any()
        assert len(known) + len(held) == 60


def test_search_of_the_svm_is_that_of_separate_fits() -> None:
    costs = [0.001, 0.1, 10.0]
    result = ask(SVMProbe(costs=costs, folds=3))
    assert result.search is not None
    assert [one.value for one in result.search.tried] == costs
    best = result.search.best
    assert best.mean == max(one.mean for one in result.search.tried)
    assert result.settings == f"SVM, C = {best.value:g}"
    assert torch.allclose(result.scores, ask(SVMProbe(cost=best.value)).scores)
    alone = ask(SVMProbe(costs=costs[1:2], folds=3)).search
    assert alone is not None
    assert alone.tried[0] == result.search.tried[1]  # warm starts change nothing


def test_warm_starts_reach_the_same_minimum() -> None:
    train = videos(60, 6, 0)
    rows = ProbeData(train.mean, train.label, train.group_id, 6)
    cold = fit_svm(rows, 5.0)
    warm = fit_svm(rows, 5.0, start=fit_svm(rows, 1.0).weight)
    assert torch.allclose(cold.objective, warm.objective, rtol=2e-4)


def test_a_learning_rate_that_diverges_is_not_chosen() -> None:
    result = ask(LogisticProbe(learning_rates=[0.1, 1e38], epochs=5, folds=3))
    assert result.search is not None
    assert result.search.best.value == 0.1
    with pytest.raises(UserError, match="diverges at every learning rate"):
        ask(LogisticProbe(learning_rates=[1e38], epochs=5))


@pytest.mark.parametrize(
    ("probe", "settings", "sentence"),
    [
        (SVMProbe, {"cost": 0.0}, "cost=0.0 must be a number, above 0"),
        (SVMProbe, {"cost": float("nan")}, "cost=nan must be a number, above 0"),
        (SVMProbe, {"costs": [1, -1]}, "costs=-1 must be a number, above 0"),
        (SVMProbe, {"costs": 0.1}, "costs=0.1 must be a list of one or more numbers"),
        (SVMProbe, {"folds": 1}, "folds=1 must be a whole number, 2 or more"),
        (KNNProbe, {"k": 0}, "k=0 must be a whole number, 1 or more"),
        (KNNProbe, {"k": 2.5}, "k=2.5 must be a whole number, 1 or more"),
        (KNNProbe, {"temperature": 0}, "temperature=0 must be a number, above 0"),
        (LogisticProbe, {"learning_rates": [-1.0]}, "learning_rates=-1.0 must be a number"),
        (LogisticProbe, {"learning_rates": []}, "learning_rates=[] must be a list"),
        (LogisticProbe, {"weight_decay": -1}, "weight_decay=-1 must be a number, at least 0"),
        (LogisticProbe, {"momentum": 5}, "momentum=5 must be a number, at least 0 and below 1"),
        (LogisticProbe, {"epochs": 0.5}, "epochs=0.5 must be a whole number, 1 or more"),
        (LogisticProbe, {"batch_size": 0}, "batch_size=0 must be a whole number, 1 or more"),
    ],
    ids=str,
)
def test_impossible_settings_are_told_before_anything_is_fitted(
    probe: type[Probe], settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        probe(**settings)


@pytest.mark.parametrize(
    ("probe", "sentence"),
    [
        (SVMProbe(costs=[1, 2], folds=50), "too few for folds=50"),
        (LogisticProbe(folds=50), "too few for folds=50"),
        (SVMProbe(device="nowhere"), "device=nowhere of the probe cannot be used"),
        (KNNProbe(device="nowhere"), "device=nowhere of the probe cannot be used"),
    ],
)
def test_settings_that_these_videos_do_not_allow(probe: Probe, sentence: str) -> None:
    """Known from labels and groups alone, before there are features."""
    train = videos(20, 2, 0)
    with pytest.raises(UserError, match=sentence):
        probe.check(train.label, train.group_id)
    with pytest.raises(UserError, match=sentence):
        ask(probe)


def test_one_class_no_labels_and_not_finite() -> None:
    train, test = videos(20, 2, 0), videos(20, 2, 1)
    with pytest.raises(UserError, match="all 20 training videos are of one class"):
        run_probe(SVMProbe(), videos(20, 2, 0, label=torch.zeros(20).long()), test, show=False)
    with pytest.raises(UserError, match="none of the videos has a label"):
        run_probe(SVMProbe(), train, videos(20, 2, 1, label=torch.full((20,), -1)), show=False)
    bad = test.mean.clone()
    bad[7, 1] = float("nan")
    with pytest.raises(UserError, match="of 1 test videos are not finite, the first row 7"):
        run_probe(SVMProbe(), train, videos(20, 2, 1, mean=bad), show=False)


def test_strong_directions_decide_cosines_until_they_are_whitened() -> None:
    """Their spread hides the one that separates the classes."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(60) % 2
    noise = torch.randn(60, 4, generator=generator)
    features = noise * torch.tensor([20.0, 0.5, 20.0, 20.0])
    features[:, 1] += 6.0 * label - 3
    known, unseen = features[:40], features[40:]
    data = ProbeData(known, label[:40], torch.arange(40), 2)
    right = {}
    for name, options in {"plain": {}, "whiten": {"whiten": True}}.items():
        scored = KNNProbe(k=1, **options).score(data, unseen, show=False)
        right[name] = float((scored.scores.argmax(1) == label[40:]).double().mean())
        assert ("whiten" in scored.settings) == (name == "whiten")
    assert right["plain"] < 0.8 < 0.9 <= right["whiten"]
