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
        (["intra"], {"intra": -1}, "weight -1 of intra"),
        (["intra"], {"intra": float("nan")}, "weight nan of intra"),
        (["intra"], {"intra": 0}, "no objective is left"),
        (["a.b"], None, "can't be named 'a.b'"),
        ([], None, "no objective is left"),
    ],
)
def test_wrong_mixtures_are_refused(names: list[str], weights: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_objectives(dict.fromkeys(names, IntraFrame), weights, num_features=4)
