"""The plan of views: which sampler draws which, and mistakes that are told at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Draw, ViewSpec
from vclr_lightning.data.loading.views import ViewPlan
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler


@dataclass(frozen=True)
class OneFrame:
    """Draws one frame for one view."""

    view: str
    rows: tuple[str, ...] = ()
    shape: tuple[int, int] = (1, 1)
    spec: ViewSpec = field(default=ViewSpec(clips=1))

    @property
    def views(self) -> Mapping[str, ViewSpec]:
        return {self.view: self.spec}

    def __call__(self, num_frames: int, rng: np.random.Generator) -> Draw:
        indices = rng.integers(0, num_frames, self.shape)
        return Draw(
            frame_indices={self.view: indices}, rows={name: np.zeros(1, int) for name in self.rows}
        )


@given(
    needed=st.sets(st.sampled_from(["anchor", "positive", "second", "extra"])),
    s=st.integers(1, 5),
    n=st.integers(1, 100),
    epoch=st.integers(0, 5),
)
def test_a_draw_does_not_depend_on_what_is_needed(
    needed: set[str], s: int, n: int, epoch: int
) -> None:
    samplers = [TupleSampler(num_segments=s)]
    part, whole = (ViewPlan(samplers, names).draw(n, 1, epoch) for names in (needed, None))
    assert part.frame_indices.keys() == needed - ({"extra"} if s >= 3 else set())
    for name, indices in part.frame_indices.items():
        assert np.array_equal(indices, whole.frame_indices[name])
    for kind in ("rows", "order"):
        for name, values in getattr(whole, kind).items():
            assert np.array_equal(getattr(part, kind)[name], values)


def test_a_draw_does_not_depend_on_later_samplers() -> None:
    alone = ViewPlan([TupleSampler()]).draw(50, 7)
    joined = ViewPlan([TupleSampler(), OneFrame("single")]).draw(50, 7)
    assert joined.frame_indices.keys() == {*alone.frame_indices, "single"}
    assert all(
        np.array_equal(joined.frame_indices[name], indices)
        for name, indices in alone.frame_indices.items()
    )


def test_equal_samplers_are_one() -> None:
    plan = ViewPlan([TupleSampler(), TupleSampler()])
    assert set(plan.specs) == {"anchor", "positive", "second"}


def test_a_shared_view_comes_from_the_first() -> None:
    spec = TupleSampler(num_segments=1).views["second"]
    other = OneFrame("second", spec=spec)
    plan = ViewPlan([TupleSampler(), other])
    drawn = plan.draw(500, 3)
    assert drawn.frame_indices["second"][0, 0] in drawn.frame_indices["anchor"]


@pytest.mark.parametrize(
    ("samplers", "needed", "message"),
    [
        ([], None, "samplers is empty"),
        (
            [TupleSampler()],
            {"query", "anchor"},
            "no sampler yields the view query; the samplers yield anchor, extra, positive, second",
        ),
        (
            [TupleSampler(), TupleSampler(num_segments=5)],
            None,
            r"TupleSampler yields the view anchor as ViewSpec\(clips=3.* and TupleSampler as",
        ),
        (
            [OneFrame("a", rows=("x",)), OneFrame("b", rows=("x",))],
            None,
            "OneFrame and OneFrame both yield rows named 'x'",
        ),
        (
            [OneFrame("a", shape=(2, 1))],
            None,
            r"declares the view a of shape \(1, 1\), but draws \(2, 1\)",
        ),
    ],
)
def test_what_does_not_fit_is_told(
    samplers: list[TupleSampler | OneFrame], needed: set[str] | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ViewPlan(samplers, needed)
