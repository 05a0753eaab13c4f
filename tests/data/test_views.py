"""The plan of views: which sampler draws which, and mistakes that are told at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.core.errors import CodeFault, UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.core.types import Draw, ViewSpec
from vclr_lightning.data.loading.views import ViewPlan, long_enough
from vclr_lightning.data.manifest import Info, Manifest, Row, write_manifest
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.sampling import Prefixed, TupleSampler


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
    samplers = {"tuples": TupleSampler(num_segments=s)}
    whole = ViewPlan(samplers).draw(n, 1, epoch)
    part = ViewPlan(samplers, needed, targets=["shuffled"]).draw(n, 1, epoch)
    assert part.frame_indices.keys() == needed - ({"extra"} if s >= 3 else set())
    for name, indices in part.frame_indices.items():
        assert np.array_equal(indices, whole.frame_indices[name])
    for kind in ("rows", "targets"):
        for name, values in getattr(whole, kind).items():
            assert np.array_equal(getattr(part, kind)[name], values)


def test_a_draw_depends_on_its_samplers_name_alone() -> None:
    alone = ViewPlan({"tuples": TupleSampler()}).draw(50, 7)
    joined = ViewPlan({"single": OneFrame("single"), "tuples": TupleSampler()}).draw(50, 7)
    renamed = ViewPlan({"other": TupleSampler()}).draw(50, 7)
    assert joined.frame_indices.keys() == {*alone.frame_indices, "single"}
    expected = TupleSampler()(50, numpy_generator(7, "draw", "tuples"))
    for name, indices in alone.frame_indices.items():
        assert np.array_equal(joined.frame_indices[name], indices)
        assert np.array_equal(expected.frame_indices[name], indices)
    both = (np.concatenate([*one.frame_indices.values()]) for one in (alone, renamed))
    assert not np.array_equal(*both)


def test_a_sampler_of_which_nothing_is_needed_is_not_called() -> None:
    class Never(OneFrame):
        def __call__(self, num_frames: int, rng: np.random.Generator) -> Draw:
            assert num_frames == 64, "called for a video"
            return super().__call__(num_frames, rng)

    samplers = {"never": Never("unused"), "tuples": TupleSampler()}
    assert ViewPlan(samplers, ["anchor"]).draw(50, 7).frame_indices.keys() == {"anchor"}
    with pytest.raises(CodeFault, match="called for a video"):
        ViewPlan(samplers).draw(50, 7)


def test_two_of_one_kind_are_told_apart_by_a_prefix() -> None:
    shared = OneFrame("clip", spec=ViewSpec(clips=1, share="k"), rows=("r",))
    other = Prefixed(TupleSampler(num_segments=2), prefix="b_")
    plan = ViewPlan(
        {"a": TupleSampler(), "b": other, "c": shared, "d": Prefixed(shared, prefix="d_")}
    )
    drawn = plan.draw(100, 3)
    assert list(plan.specs) == [
        *("anchor", "positive", "second"),
        *("b_anchor", "b_positive", "b_second", "b_extra"),
        *("clip", "d_clip"),
    ]
    assert plan.specs["d_clip"].share == "d_k"
    assert drawn.targets.keys() == plan.targets
    assert {"shuffled", "b_shuffled"} < plan.targets
    assert {"x1", "b_x1", "r", "d_r"} < drawn.rows.keys()
    own = TupleSampler(num_segments=2)(100, numpy_generator(3, "draw", "b"))
    assert np.array_equal(drawn.frame_indices["b_anchor"], own.frame_indices["anchor"])
    assert np.array_equal(drawn.targets["b_anchor_order"], own.targets["anchor_order"])


@dataclass(frozen=True)
class Long(OneFrame):
    """Needs many frames."""

    min_frames: int = 80


def test_a_video_too_short_is_told_from_the_others() -> None:
    plan = ViewPlan({"long": Long("long"), "single": OneFrame("single")})
    assert plan.min_frames == 80
    with pytest.raises(VideoError, match="it has 79 frames; the sampler long needs 80"):
        plan.draw(79, 1)
    assert plan.draw(80, 1).frame_indices.keys() == {"long", "single"}
    assert plan.trial().frame_indices.keys() == {"long", "single"}
    assert ViewPlan({"long": Long("long"), "a": OneFrame("single")}, ["single"]).min_frames == 1
    assert Prefixed(Long("long"), prefix="b_").min_frames == 80


def test_what_cannot_be_batched_is_the_samplers_fault() -> None:
    class Worded(OneFrame):
        def __call__(self, num_frames: int, rng: np.random.Generator) -> Draw:
            drawn = super().__call__(num_frames, rng)
            return Draw(drawn.frame_indices, targets={"pace": np.array("fast")})

    with pytest.raises(CodeFault, match=r"Worded .* fails: TypeError: targets pace holds <U4, not"):
        ViewPlan({"worded": Worded("clip")})


def test_what_the_index_says_of_a_video_s_length(tmp_path: Path) -> None:
    plan = ViewPlan({"long": Long("long")})  # 80 frames
    rows = [
        Row(path="a.mp4", num_frames=79),
        Row(path="b.mp4", num_frames=80),
        Row(path="c.mp4"),
        Row(path="d.mp4", num_frames=79, exact=True),
        Row(path="e.mp4", num_frames=500, fps=10.0, start=1.0, end=8.9),
        Row(path="f.mp4", num_frames=500, fps=10.0, start=1.0, end=9.0),
        Row(path="g.mp4", num_frames=500, start=1.0, end=8.9),
        Row(path="h.mp4", fps=10.0, start=1.0, end=8.9),
    ]
    table = Manifest.load(write_manifest(tmp_path / "m.arrow", rows, Info(root=tmp_path)))
    long = [
        table.path(i).stem for i, kept in enumerate(long_enough(table, plan.min_frames)) if kept
    ]
    assert long == ["b", "c", "f", "g"]
    assert long_enough(table, ViewPlan({"a": OneFrame("single")}).min_frames).all()


class Promising(OneFrame):
    targets = ("speed",)


@pytest.mark.parametrize(
    ("samplers", "needed", "message"),
    [
        ({}, None, "samplers={} must be samplers by name"),
        ([TupleSampler()], None, "samplers must be a mapping from names to samplers, not"),
        ({"a": None}, None, "samplers.a is null, not a sampler; give it a _target_, or leave it"),
        ({"a": partial(TupleSampler)}, None, "samplers.a is of type .*; leave out its _partial_"),
        (
            {"tuples": TupleSampler()},
            {"query", "anchor"},
            "no sampler yields the view query; the samplers tuples yield anchor, extra, positive",
        ),
        (
            {"a": TupleSampler(), "b": TupleSampler(num_segments=5)},
            None,
            r"samplers a and b both yield the view 'anchor'; wrap one in .*Prefixed\(sampler, pre",
        ),
        (
            {"a": OneFrame("a", rows=("x",)), "b": OneFrame("b", rows=("x",))},
            None,
            "the samplers a and b both yield rows 'x'; wrap one in .*Prefixed",
        ),
        (
            {"a": OneFrame("a", shape=(2, 1))},
            None,
            r"\(the sampler a\) declares the view a of shape \(1, 1\), but draws \(2, 1\)",
        ),
        (
            {"a": Promising("a")},
            None,
            r"Promising \(the sampler a\) declares targets=\['speed'\], but draws \[\]",
        ),
    ],
)
def test_what_does_not_fit_is_told(samplers: Any, needed: set[str] | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ViewPlan(samplers, needed)
