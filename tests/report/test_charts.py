"""Charts: well-formed, within their frame, and with what they should show."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.report import Chart, charts_of
from vclr_lightning.report.charts import HEIGHT, WIDTH, bar_chart, line_chart
from vclr_lightning.report.scale import Scale, smooth, tick_text, ticks

numbers = st.floats(-1e6, 1e6, allow_nan=False)


def points(svg: str) -> list[tuple[float, float]]:
    tree = ElementTree.fromstring(svg)
    pairs = [pair for line in tree.iter("polyline") for pair in line.attrib["points"].split()]
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in pairs)]


@given(low=numbers, span=st.floats(1e-6, 1e6))
def test_ticks_enclose_and_are_even(low: float, span: float) -> None:
    high = low + span
    found = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert 2 <= len(found) <= 8
    steps = [b - a for a, b in pairwise(found)]
    assert max(steps) - min(steps) <= slack


def test_ticks_of_one_value() -> None:
    assert ticks(3, 3)[0] < 3 < ticks(3, 3)[-1]
    assert ticks(0, 5e-324)[0] < 0 < ticks(0, 5e-324)[-1]


@given(st.lists(st.tuples(st.floats(0, 1e5), numbers), min_size=1, max_size=80))
def test_curves_stay_in_their_frame(values: list[tuple[float, float]]) -> None:
    drawn = points(line_chart(Chart("t", {"a": sorted(values)})))
    assert len(drawn) >= len(values)
    assert all(0 <= x <= WIDTH + 0.1 and -0.1 <= y <= HEIGHT + 0.1 for x, y in drawn)


def test_higher_is_higher_and_later_is_right() -> None:
    (x1, y1), (x2, y2) = points(line_chart(Chart("t", {"a": [(0, 1.0), (5, 2.0)]})))
    assert x1 < x2
    assert y1 > y2


def test_what_is_not_finite_is_left_out() -> None:
    values = [(0, math.nan), (1, 2.0), (2, math.inf), (3, 1.0)]
    assert len(points(line_chart(Chart("t", {"a": values})))) == 2
    assert line_chart(Chart("t", {"a": [(0, math.nan)]})) == ""


def test_many_points_are_drawn_once_more_smooth() -> None:
    values = [(i, float(i % 2)) for i in range(100)]
    svg = line_chart(Chart("t", {"a": values}))
    assert len(points(svg)) == 200
    assert svg.count("c0 raw") == 1
    assert all(0.3 < value < 0.7 for _, value in smooth(values, width=9)[4:-4])


def test_names_cannot_break_the_page() -> None:
    name = "<script>&\"'"
    svg = line_chart(Chart(name, {name: [(0, 1.0)]}, chance=0.5))
    svg += bar_chart({name: {name: [0.5, 0.6]}}, chances={name: 0.1})
    assert "<script>" not in svg
    ElementTree.fromstring(f"<all>{svg}</all>")


def test_bars_are_as_long_as_their_mean() -> None:
    svg = bar_chart({"R@1": {"a": [0.2, 0.4], "b": [0.6]}}, chances={"R@1": 0.125})
    tree = ElementTree.fromstring(svg)
    first, second = (float(bar.attrib["width"]) for bar in tree.iter("rect"))
    assert second == pytest.approx(2 * first, rel=1e-2)
    assert len(list(tree.iter("circle"))) == 2
    assert "30.0" in "".join(tree.itertext())


def test_numbers_are_short() -> None:
    assert [tick_text(v) for v in (0, 0.125, 25000, -3)] == ["0", "0.125", "25k", "-3"]
    assert Scale(1, 3, 10, 30)(2) == 20


def test_charts_of_a_run() -> None:
    metrics = {
        "train/loss": [(0, 9.0)],
        "train/lr": [(0, 0.1)],
        "train/inter/loss": [(0, 4.0)],
        "train/inter/top1": [(0, 0.5)],
        "train/inter/effective_rank": [(0, 20.0)],
        "train/mine/loss": [(0, 1.0)],
        "train/order/loss": [(0, 1.4)],
        "train/order/accuracy": [(0, 0.3)],
        "train/order/chance": [(0, 0.25)],
        "val/knn_r1": [(0, 0.4)],
        "val/knn_chance": [(0, 0.1), (9, 0.125)],
    }
    charts = {chart.title: chart for chart in charts_of(metrics)}
    assert list(charts) == [
        "sum of the losses",
        "inter-frame loss",
        "loss of mine",
        "temporal-order loss",
        "inter: positive ranked first",
        "order: told right",
        "unseen: nearest has the label",
        "effective rank of the embeddings",
    ]
    assert charts["order: told right"].chance == 0.25
    assert charts["unseen: nearest has the label"].chance == 0.125
    assert charts["unseen: nearest has the label"].percent
