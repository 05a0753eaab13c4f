"""Building a mixture: weights, names, what is left out."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.modules.mixture import build_objectives
from vclr_lightning.objectives import InterFrame, IntraFrame, TemporalOrder


def test_weight_zero_is_never_built() -> None:
    def explode(*, num_features: int) -> Any:
        raise AssertionError("built")

    built = build_objectives({"a": IntraFrame, "b": explode}, {"b": 0.0}, num_features=4)
    assert list(built.objectives) == ["a"]
    assert built.weights == {"a": 1.0}


def test_one_segment_leaves_the_order_loss_out() -> None:
    factories = {"intra": IntraFrame, "order": partial(TemporalOrder, num_segments=1)}
    assert list(build_objectives(factories, None, num_features=4).objectives) == ["intra"]


def test_several_of_one_class() -> None:
    make = partial(InterFrame, queue_size=8, embedding_dim=4)
    built = build_objectives({"a": make, "b": partial(make, seed=1)}, {"a": 2}, num_features=4)
    assert built.weights == {"a": 2.0, "b": 1.0}
    rows = [objective.queue.rows for objective in built.objectives.values()]
    assert not rows[0].equal(rows[1])


@pytest.mark.parametrize(
    ("names", "weights", "said"),
    [
        (["intra"], {"inter": 1}, "weights name inter, but the objectives are intra"),
        (["intra"], {"intra": -1}, r"objective\.weights\.intra=-1 must be"),
        (["intra"], {"intra": float("nan")}, r"objective\.weights\.intra=nan must be"),
        (["intra"], {"intra": 0}, "no objective is left"),
        (["a.b"], None, "can't be named 'a.b'"),
        (["keys"], None, "can't be named 'keys'"),
        ([], None, "no objective is left"),
    ],
)
def test_wrong_mixtures_are_refused(names: list[str], weights: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_objectives(dict.fromkeys(names, IntraFrame), weights, num_features=4)


@pytest.mark.parametrize(
    ("factories", "weights", "said"),
    [
        (None, None, "objective.objectives must be a mapping from names to objectives, not null"),
        (["a"], None, r"objective.objectives must be a mapping .*, not \['a'\]"),
        ({"a": None}, None, "objective.objectives.a is null, not an objective; give it a _targ"),
        ({"a": {}}, None, "objective.objectives.a is {}, not an objective"),
        ({"a": lambda **_: 3}, None, "objective.objectives.a is 3, not an objective"),
        ({"a": IntraFrame}, {"a": None}, "objective.weights.a is null, not a number; correct it"),
        ({"a": IntraFrame}, {"a": "1"}, "objective.weights.a is '1', not a number"),
        ({"a": IntraFrame}, [1], r"objective.weights must be a mapping .*, not \[1\]"),
        ({"a": partial(IntraFrame, query=3)}, None, r"3 describes no view.*\(.*objectives\.a\)"),
    ],
)
def test_what_is_no_mixture_is_refused(factories: Any, weights: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_objectives(factories, weights, num_features=4)
