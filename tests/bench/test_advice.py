"""Advice follows from the numbers alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.bench.advice import Setup, advise

SECONDS = st.floats(1e-4, 10)


def setup(name: str, worker: float, step: float = 0.01, *lines: str) -> Setup:
    return Setup(name=name, worker=worker, step=step, lines=lines)


@given(SECONDS, SECONDS)
def test_the_workers_needed_keep_the_device_busy_and_one_less_does_not(
    worker: float, step: float
) -> None:
    found = setup("", worker, step)
    assert found.rate(found.workers) >= 0.97 / step
    assert found.rate(10**9) == pytest.approx(1 / step)
    if found.workers > 1:
        assert found.rate(found.workers - 1) < 1 / step


def test_nothing_changes_where_the_workers_suffice() -> None:
    advice = advise(setup("as it is", 0.04), [], available=7, on_cpu=False)
    assert "Nothing has to change" in advice.text
    assert "4 workers of the 7" in advice.text
    assert advice.lines == ("data.num_workers=4",)


def test_the_least_work_that_suffices_wins_over_the_fastest() -> None:
    now = setup("as it is", 0.08)
    small = setup("data.augment=opencv", 0.035, 0.01, "data.augment=opencv")
    large = setup("vclr prepare", 0.008, 0.01, "vclr prepare x --out y")
    advice = advise(now, [small, large], available=4, on_cpu=False)
    assert advice.lines == ("data.augment=opencv", "data.num_workers=4")
    assert "50 videos/s" not in advice.text
    assert "2.0 times as fast, 100 videos/s; 4 workers suffice" in advice.text
    assert "it would take 8" in advice.text


def test_where_nothing_suffices_the_fastest_wins() -> None:
    now = setup("as it is", 0.4)
    options = [setup("one", 0.3), setup("two", 0.1, 0.01, "two")]
    advice = advise(now, options, available=2, on_cpu=False)
    assert advice.lines == ("two", "data.num_workers=2")
    assert "4.0 times as fast" in advice.text
    assert "though it would take 10" in advice.text


def test_what_helps_little_is_not_advised() -> None:
    now = setup("as it is", 0.4)
    advice = advise(now, [setup("one", 0.39)], available=1, on_cpu=True)
    assert "Nothing that was measured helps" in advice.text
    assert advice.lines == ()
    assert "share the cores" in advice.text
    assert "1 worker delivers 2.5; it would take 40." in advice.text
    unknown = advise(now, [], available=1, on_cpu=False)
    assert "What would help was not measured." in unknown.text


def test_a_slower_step_counts_against_the_device() -> None:
    """Augmenting on the device spares workers, and costs it time."""
    now = setup("as it is", 0.02, 0.01)
    device = setup("data.augment=device", 0.005, 0.03, "data.augment=device")
    assert advise(now, [device], available=1, on_cpu=False).lines == ()


def test_workers_that_share_the_cores_are_spared() -> None:
    now = setup("as it is", 0.2, 0.3)
    options = [
        setup("data.augment=device", 0.18, 0.4),
        setup("vclr prepare", 0.05, 0.3, "vclr prepare x --out y"),
    ]
    advice = advise(now, options, available=1, on_cpu=True, wait=0.32)
    assert "waited for its data 32% of the time: workers and training share" in advice.text
    assert "With vclr prepare a sample costs 4.0 times less" in advice.text
    assert advice.lines == ("vclr prepare x --out y",)
    without = advise(now, options[:1], available=1, on_cpu=False, wait=0.32)
    assert "something else uses the cores. Nothing that was measured helps" in without.text
    assert (
        advise(now, options, available=1, on_cpu=True, wait=0.05).lines[0] == "data.num_workers=1"
    )
