"""Charts: well-formed, within their frame, and with what they should show."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.report import Chart, charts_of
from vclr_lightning.report.charts import HEIGHT, WIDTH, bar_chart, line_chart
from vclr_lightning.report.scale import Scale, tick_text, ticks
from vclr_lightning.results.curves import Curve

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
    drawn = points(line_chart(Chart(title="t", lines={"a": sorted(values)})))
    assert len(drawn) >= len(values)
    assert all(0 <= x <= WIDTH + 0.1 and -0.1 <= y <= HEIGHT + 0.1 for x, y in drawn)


def test_higher_is_higher_and_later_is_right() -> None:
    (x1, y1), (x2, y2) = points(line_chart(Chart(title="t", lines={"a": [(0, 1.0), (5, 2.0)]})))
    assert x1 < x2
    assert y1 > y2


def test_what_is_not_finite_is_left_out() -> None:
    values = [(0, math.nan), (1, 2.0), (2, math.inf), (3, 1.0)]
    assert len(points(line_chart(Chart(title="t", lines={"a": values})))) == 2
    assert line_chart(Chart(title="t", lines={"a": [(0, math.nan)]})) == ""


def test_many_points_are_drawn_once_more_smooth() -> None:
    values = [(i, float(i % 2)) for i in range(100)]
    svg = line_chart(Chart(title="t", lines={"a": values}))
    assert len(points(svg)) == 200
    assert svg.count("c0 raw") == 1


@given(st.lists(numbers, min_size=1, max_size=200))
def test_an_average_is_that_of_a_twentieth_of_the_points(values: list[float]) -> None:
    half = len(values) // 20 // 2 if len(values) // 20 % 2 else (len(values) // 20 | 1) // 2
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    found = Curve(list(enumerate(values))).average()
    assert [step for step, _ in found] == list(range(len(values)))
    means = [math.fsum(window) / len(window) for window in windows]
    assert [value for _, value in found] == pytest.approx(means, rel=1e-9, abs=1e-9)


def test_a_long_curve_is_thinned_and_keeps_its_extremes() -> None:
    steps = np.arange(200_000.0)
    rng = np.random.default_rng(0)
    values = np.exp(-steps / 50_000) + rng.normal(0, 0.05, len(steps))
    values[[77_777, 150_001]] = 9, -3
    values[[5, 90_000]] = math.nan, math.inf
    given = np.column_stack([steps, values])
    curve = Curve(given)
    assert len([*curve]) <= 1024
    high, low = max(curve, key=lambda p: p[1]), min(curve, key=lambda p: p[1])
    assert (high[1], low[1]) == (9, -3)
    assert abs(high[0] - 77_777) < 512
    assert abs(low[0] - 150_001) < 512
    smooth = curve.average()
    truth = np.exp(-np.array([step for step, _ in smooth]) / 50_000)
    assert np.abs(np.array([value for _, value in smooth]) - truth)[20:-20].max() < 0.005
    pieces = Curve()
    for part in np.array_split(given, 37):
        pieces.extend(part)
    assert [*pieces] == [*curve]
    assert len(line_chart(Chart(title="t", lines={"a": curve}))) < 40_000


def test_names_cannot_break_the_page() -> None:
    name = "<script>&\"'"
    svg = line_chart(Chart(title=name, lines={name: [(0, 1.0)]}, chance=0.5))
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
    numbers = (0, 0.125, 25000, 2.5e6, -3)
    assert [tick_text(v) for v in numbers] == ["0", "0.125", "25k", "2.5M", "-3"]
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
        "order: accuracy",
        "unseen: nearest has the label",
        "effective rank of the embeddings",
    ]
    assert charts["order: accuracy"].chance == 0.25
    assert charts["unseen: nearest has the label"].chance == 0.125
    assert charts["unseen: nearest has the label"].percent
