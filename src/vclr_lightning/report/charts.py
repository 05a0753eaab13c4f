"""Charts as SVG, in the colours of the page around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import mean

from vclr_lightning.report.content import Chart
from vclr_lightning.report.scale import Scale, tick_text, ticks
from vclr_lightning.results.curves import Curve, Point

WIDTH, HEIGHT = 320, 200
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 12, 26
MANY = 60  # points of a curve, above which an average is drawn over it


def line_chart(chart: Chart) -> str:
    """Return curves over steps.

    Example:
        >>> svg = line_chart(Chart("loss", {"loss": [(0, 2.0), (10, 1.0)]}))
        >>> svg.startswith("<svg"), "polyline" in svg
        (True, True)
    """
    curves = {
        name: points if isinstance(points, Curve) else Curve(points)
        for name, points in chart.lines.items()
    }
    lines = {name: points for name, curve in curves.items() if (points := [*curve])}
    if not lines:
        return ""
    steps = [step for points in lines.values() for step, _ in points]
    values = [value for points in lines.values() for _, value in points]
    if chart.chance is not None:
        values.append(chart.chance)
    if chart.percent:
        values.append(0.0)
    x_ticks = [t for t in ticks(0, max(steps)) if t <= max(*steps, 1)]
    y_ticks = ticks(min(values), max(values))
    x = Scale(0, max(*steps, 1), LEFT, WIDTH - RIGHT)
    y = Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_horizontal(y, y_ticks, chart.percent), _steps(x, x_ticks)]
    if chart.chance is not None:
        parts.append(
            f'<line class="chance" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
            f'y1="{y(chart.chance):.1f}" y2="{y(chart.chance):.1f}"/>'
            f'<text class="chance-text" x="{WIDTH - RIGHT}" y="{y(chart.chance) - 4:.1f}" '
            f'text-anchor="end">chance {tick_text(chart.chance, percent=chart.percent)}</text>'
        )
    for number, (name, points) in enumerate(lines.items()):
        average = curves[name].average() if len(points) > MANY else []
        parts.append(_curve(name, points, average, x, y, number, chart.percent))
    return _svg(WIDTH, HEIGHT, chart.title, parts)


def _curve(
    name: str,
    points: list[Point],
    average: list[Point],
    x: Scale,
    y: Scale,
    number: int,
    percent: bool,
) -> str:
    drawn = [("", points, " raw"), (name, average, "")] if average else [(name, points, "")]
    parts = []
    for title, some, style in drawn:
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in some)
        last = tick_text(some[-1][1], percent=percent)
        tip = f"<title>{escape(title)}: {last} in the end</title>" if title else ""
        parts.append(f'<polyline class="line c{number}{style}" points="{path}">{tip}</polyline>')
    if len(points) <= 12:
        parts += [
            f'<circle class="dot c{number}" cx="{x(step):.1f}" cy="{y(value):.1f}" r="2.5">'
            f"<title>{escape(name)}, step {step:g}: {tick_text(value, percent=percent)}</title>"
            "</circle>"
            for step, value in points
        ]
    return "".join(parts)


def bar_chart(
    groups: Mapping[str, Mapping[str, Sequence[float]]], *, chances: Mapping[str, float]
) -> str:
    """Return bars of shares: for each measure one for each kind of features.

    A bar ends at the mean; a dot stands for each seed; a dashed line for chance.

    Args:
        groups: values of each seed, by features, by measure.
        chances: by measure.

    Example:
        >>> "rect" in bar_chart({"R@1": {"VCLR": [0.5]}}, chances={"R@1": 0.125})
        True
    """
    row, gap, left, width, right = 20, 18, 170, 860, 56
    x = Scale(0, 1, left, width - right)
    parts = [
        f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="0" y2="HEIGHT"/>'
        f'<text x="{x(t):.1f}" y="HEIGHT" dy="14" text-anchor="middle">{tick_text(t, percent=True)}'
        "</text>"
        for t in (0, 0.25, 0.5, 0.75, 1)
    ]
    top = 0.0
    for measure, bars in groups.items():
        end = top + 16 + row * len(bars)
        parts.append(f'<text class="group" x="0" y="{top + 11}">{escape(measure)}</text>')
        for number, (name, values) in enumerate(bars.items()):
            y = top + 16 + number * row
            parts.append(_bar(name, values, x, y, row, number, left))
        if measure in chances:
            c = x(chances[measure])
            parts.append(
                f'<line class="chance" x1="{c:.1f}" x2="{c:.1f}" y1="{top + 14}" y2="{end}">'
                f"<title>chance: {tick_text(chances[measure], percent=True)}</title></line>"
            )
        top = end + gap
    height = top - gap + 4
    body = "".join(parts).replace("HEIGHT", f"{height:.0f}")
    return _svg(width, height + 18, "frozen features", [body])


def _bar(
    name: str, values: Sequence[float], x: Scale, y: float, row: int, number: int, left: int
) -> str:
    average, middle = mean(values), y + row / 2
    style = f"c{number}" if number < 2 else "pale"
    dots = "".join(
        f'<circle class="seed" cx="{x(v):.1f}" cy="{middle:.1f}" r="2.4">'
        f"<title>{escape(name)}, one seed: {100 * v:.1f}%</title></circle>"
        for v in (values if len(values) > 1 else ())
    )
    end = x(max(average, *values)) if len(values) > 1 else x(average)
    return (
        f'<text x="{left - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="bar {style}" x="{x(0):.1f}" y="{y + 3:.1f}" '
        f'width="{x(average) - x(0):.1f}" height="{row - 6}" rx="2"/>{dots}'
        f'<text class="value" x="{end + 8:.1f}" y="{middle + 4:.1f}">{100 * average:.1f}</text>'
    )


def _horizontal(y: Scale, values: Sequence[float], percent: bool) -> str:
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">'
        f"{tick_text(v, percent=percent)}</text>"
        for v in values
    )


def _steps(x: Scale, values: Sequence[float]) -> str:
    return "".join(
        f'<text x="{x(v):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick_text(v)}'
        "</text>"
        for v in values
    )


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg>'
    )
