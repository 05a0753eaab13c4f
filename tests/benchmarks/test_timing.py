"""The comparison of costs, on a clock that the cases themselves turn."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest
from benchmarks.timing import Comparison, compare, cpu_name, report
from rich.console import Console


@pytest.fixture(autouse=True)
def no_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round collects it, which takes long where thousands of tests are loaded."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


class Clock:
    """Time that passes only when a case runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[tuple[str, int]] = []

    def __call__(self) -> float:
        return self.now

    def case(self, name: str, cost: Callable[[int], float]) -> Callable[[int], None]:
        def work(number: int) -> None:
            self.log.append((name, number))
            self.now += cost(number)

        return work


def _compare(repeats: int = 9, **options: object) -> tuple[Clock, Comparison]:
    clock = Clock()
    cases = {
        "slow": clock.case("slow", lambda number: 3.0 + 0.1 * (number % 3)),
        "fast": clock.case("fast", lambda number: 1.0 + 0.1 * (number % 3)),
    }
    found = compare(cases, baseline="slow", repeats=repeats, clock=clock, **options)
    return clock, found


def test_ratio_is_of_medians() -> None:
    _, found = _compare()
    ratio = found.ratio("fast")
    assert ratio.value == pytest.approx(3.1 / 1.1)
    assert ratio.low <= ratio.value <= ratio.high
    assert found.ratio("slow").value == 1
    assert found.ratio("slow", of="fast").value == pytest.approx(1.1 / 3.1)


def test_cases_take_turns_on_the_same_inputs() -> None:
    clock, _ = _compare(repeats=4, warmup=1)
    rounds = [clock.log[i : i + 2] for i in range(0, len(clock.log), 2)]
    assert [{number for _, number in turn} for turn in rounds] == [{-1}, {0}, {1}, {2}, {3}]
    assert all({name for name, _ in turn} == {"slow", "fast"} for turn in rounds)


def test_several_calls_count_by_their_mean() -> None:
    clock, found = _compare(repeats=3, warmup=0, calls={"fast": 3})
    assert sorted(number for name, number in clock.log if name == "fast") == list(range(9))
    np.testing.assert_allclose(found.seconds["fast"], 1.1)


def test_missed_targets_set_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    _, reached = _compare(targets={"fast": 2.5})
    _, missed = _compare(targets={"fast": 3.5})
    assert (reached.missed, missed.missed) == ([], ["fast"])
    assert report({"a": reached}) == 0
    assert report({"a": reached, "b": missed}) == 1
    said = capsys.readouterr().out
    assert "b: fast" in said
    assert f"processor: {cpu_name()}" in said.replace("\n", " ")


def test_the_bound_may_have_to_reach_the_target() -> None:
    _, found = _compare()
    least = (found.ratio("fast").low + found.ratio("fast").value) / 2
    assert _compare(targets={"fast": least})[1].missed == []
    assert _compare(targets={"fast": least}, bounded=True)[1].missed == ["fast"]


def test_table_names_every_case() -> None:
    console = Console(record=True, width=120)
    console.print(_compare(targets={"fast": 9})[1].table("decode"))
    text = console.export_text()
    assert "decode" in text
    assert "9 x missed" in text


def test_an_unknown_case_is_refused() -> None:
    with pytest.raises(ValueError, match="no such case: none"):
        compare({}, baseline="none", repeats=1)
