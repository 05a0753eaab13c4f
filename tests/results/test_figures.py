"""Curves and bars: what they draw, and how long runs are thinned."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclr_lightning.results import Bars, Chart, Charts, Histogram, Histograms
from vclr_lightning.results.curves import Curve, charts_of
from vclr_lightning.results.figures import draw
from vclr_lightning.results.svg import png, svg

numbers = st.floats(-1e6, 1e6, allow_nan=False)


def drawn(chart: Chart) -> str:
    (only,) = draw(Charts(charts=[chart]))
    return svg(only)


def lines(text: str) -> list[list[tuple[float, float]]]:
    """The points of every curve."""
    paths = re.findall(r'<path d="(M [^"z]*)"[^>]*stroke-linecap: (?:square|round)', text)
    return [
        [(float(x), float(y)) for x, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path)]
        for path in paths
    ]


def test_higher_is_higher_and_later_is_right() -> None:
    (((x1, y1), (x2, y2)),) = [
        line
        for line in lines(drawn(Chart(title="t", lines={"a": [(0, 1.0), (5, 2.0)]})))
        if len(line) == 2 and line[0][1] != line[1][1]
    ]
    assert x1 < x2
    assert y1 > y2


def test_what_is_not_finite_is_left_out() -> None:
    values = [(0, math.nan), (1, 2.0), (2, math.inf), (3, 1.0)]
    assert "a, step 1: 2" in drawn(Chart(title="t", lines={"a": values}))
    assert draw(Charts(charts=[Chart(title="t", lines={"a": [(0, math.nan)]})])) == []


def test_many_points_are_drawn_once_more_smooth() -> None:
    values = [(i, float(i % 2)) for i in range(100)]
    text = drawn(Chart(title="t", lines={"a": values}))
    assert text.count("stroke: var(--c0)") == 2
    assert text.count("stroke-opacity: 0.28") == 1
    few = drawn(Chart(title="t", lines={"a": values[:20]}))
    assert few.count("stroke: var(--c0)") == 1


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
    assert len(drawn(Chart(title="t", lines={"a": curve}))) < 60_000


def test_names_cannot_break_the_page() -> None:
    name = "<script>&\"' $x$ \N{CJK UNIFIED IDEOGRAPH-4E2D}"
    text = drawn(Chart(title=name, lines={name: [(0, 1.0)], "b": [(0, 2.0)]}, chance=0.5))
    (bars,) = draw(Bars(groups={name: {name: [0.5, 0.6]}}, chance={name: 0.1}))
    for one in (text, svg(bars)):
        assert "<script>" not in one
        assert "$x$" in "".join(ElementTree.fromstring(one).itertext())
    assert png(bars)[1:4] == b"PNG"


def test_control_codes_in_names_are_replaced() -> None:
    (bars,) = draw(Bars(groups={"a\x07b": {"c\x1b[31md": [0.5, 0.6]}}))
    text = svg(bars)
    assert ">a\N{REPLACEMENT CHARACTER}b<" in text
    assert "\x07" not in text
    ElementTree.fromstring(text)


def test_values_beyond_single_precision_are_left_out() -> None:
    chart = Chart(title="t", lines={"a": [(0, 1.0), (1, 1e308), (2, -1e308), (3, 2.0)]}, chance=1.5)
    assert [*Curve(chart.lines["a"])] == [(0, 1.0), (3, 2.0)]
    assert "a: 2 at the end" in drawn(chart)


def test_bars_are_as_long_as_their_mean() -> None:
    (bars,) = draw(Bars(groups={"R@1": {"a": [0.2, 0.4], "b": [0.6]}}, chance={"R@1": 0.125}))
    text = svg(bars)
    first, second = (
        max(xs) - min(xs)
        for path in re.findall(r'<path d="(M[^"]*z ?)"[^>]*fill: var\(--c[01]\)', text)
        for xs in [[float(x) for x in re.findall(r"[ML] ([\d.]+) ", path)]]
    )
    assert second == pytest.approx(2 * first, rel=1e-2)
    for tip in ("a, one seed: 20%", "a, one seed: 40%", "chance level: 12.5%"):
        assert f"<title>{tip}</title>" in text
    assert ">30.0<" in text


def test_the_same_figure_is_the_same_text() -> None:
    chart = Chart(title="t", lines={"a": [(0, 1.0), (5, 2.0)]}, chance=1.5)
    assert drawn(chart) == drawn(chart)


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
        "start/val/knn_r1": [(0, 0.2)],
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
    assert charts["unseen: nearest has the label"].before == 0.2
    assert charts["order: accuracy"].before is None
    text = drawn(charts["unseen: nearest has the label"])
    assert "chance 12.5%" in text
    assert "before training 20%" in text


@pytest.mark.parametrize("count", [1, 2, 61])
def test_a_histogram_counts_every_value_once(count: int) -> None:
    values = np.random.default_rng(count).normal(3, 99, count).tolist()
    (only,) = draw(Histograms(charts=[Histogram(title="values", values=values)]))
    text = svg(only)
    counts = [int(n) for n in re.findall(r"<title>[-+.e\d]+ to [-+.e\d]+: (\d+)</title>", text)]
    assert sum(counts) == len(values)
    assert f"median: {np.median(values):.4g}" in text


def test_the_last_point_of_a_curve_is_kept_however_long_it_is() -> None:
    curve = Curve((float(step), float(step % 7)) for step in range(10_000))
    curve.extend([(10_000, math.nan)])
    assert curve.last == (9_999.0, 9_999 % 7)
    assert Curve().last is None


@pytest.mark.parametrize(("count", "named"), [(2, True), (12, True), (13, False)])
def test_long_names_stand_below_a_chart_as_long_as_there_are_few(count: int, named: bool) -> None:
    names = [f"a run with a long name, {k}" for k in range(count)]
    text = drawn(Chart(title="t", lines={name: [(0, 1.0), (1, 2.0)] for name in names}))
    words = re.sub(r"<title>.*?</title>", "", text)
    assert all((name in words) is named for name in names)
