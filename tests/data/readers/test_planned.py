"""The plan of what to decode."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.data.readers.planned import plan_runs, serving_entry


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    """Presentation times in decoding order, keyframes, and targets.

    Frames are shown near where they are decoded, so that some groups are open.
    """
    count = draw(st.integers(1, 40))
    delays = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    shown = sorted(range(count), key=lambda i: (i + delays[i], i))
    pts = [0] * count
    for time, position in enumerate(shown):
        pts[position] = 10 * time
    entries = sorted(draw(st.sets(st.integers(0, count - 1))))
    targets = draw(st.lists(st.integers(0, count - 1), max_size=12))
    return pts, entries, targets


@given(streams())
def test_entry_is_the_last_that_serves(stream: tuple[list[int], list[int], list[int]]) -> None:
    pts, entries, targets = stream
    for target in targets:
        served = [e for e in entries if e <= target and pts[e] <= pts[target]]
        assert serving_entry(target, entries, pts) == (max(served) if served else 0)


@given(streams())
def test_runs_decode_each_target_from_what_serves_it(
    stream: tuple[list[int], list[int], list[int]],
) -> None:
    pts, entries, targets = stream
    runs = plan_runs(targets, entries, pts)
    assert sorted(t for run in runs for t in run.targets) == sorted(set(targets))
    for run in runs:
        assert list(run.targets) == sorted(run.targets)
        assert all(run.start <= serving_entry(t, entries, pts) for t in run.targets)
        assert run.start == 0 or run.start in entries


@given(streams())
def test_runs_lie_apart_and_decode_no_packet_that_nothing_needs(
    stream: tuple[list[int], list[int], list[int]],
) -> None:
    pts, entries, targets = stream
    runs = plan_runs(targets, entries, pts)
    for before, after in pairwise(runs):
        assert before.stop + 1 < after.start  # otherwise going on costs no more than seeking
        assert bisect_right(entries, after.start) > bisect_right(entries, before.stop)
    decoded = {p for run in runs for p in range(run.start, run.stop + 1)}
    needed = {p for t in targets for p in range(serving_entry(t, entries, pts), t + 1)}
    assert decoded == needed
