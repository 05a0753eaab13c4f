"""Figures by matplotlib: as SVG in the colours of the page around them, and as PNG."""

from __future__ import annotations

from functools import partial
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from vclr_lightning.results.curves import Curve
from vclr_lightning.results.svg import COLOURS, Drawn, styled
from vclr_lightning.results.visuals import (
    Bars,
    Chart,
    Charts,
    ConfusionMatrix,
    Figure,
    Histogram,
    Histograms,
    Timeline,
    Timelines,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = [COLOURS[f"c{i}"] for i in range(6)]
NAMED = 40  # classes, up to which their names stand next to a confusion matrix
NUMBERED = 25  # classes, up to which its cells show numbers
GOOD_IOU = 0.5  # from which a proposal is coloured
_MANY = 60  # points of a curve, above which its moving average is drawn over it
_DOTTED = 12  # points of a curve, up to which each is a dot
_LEGEND = 12  # lines of a chart, up to which there is a legend
_LONG = 18  # characters of a name that two columns have room for
_BINS = 20  # of a histogram
_FAINTEST = 0.12  # opacity of a cell that counts any video


def draw(figure: Figure) -> list[Drawn]:
    """Return the drawings of a figure; without data, none.

    Example:
        >>> from vclr_lightning.results.svg import svg
        >>> bars = Bars(groups={"R@1": {"VCLR": [0.5, 0.6]}}, chance={"R@1": 0.125})
        >>> "chance level: 12.5%" in svg(draw(bars)[0])
        True
    """
    with styled():
        match figure:
            case Charts():
                return [_chart(chart) for chart in figure.charts if any(map(_points, _of(chart)))]
            case Histograms():
                return [_histogram(chart) for chart in figure.charts]
            case Bars():
                return [_bars(figure)]
            case ConfusionMatrix():
                return [_confusion(figure)]
            case Timelines():
                return [_timeline(video) for video in figure.videos]


def _blank(title: str, width: float, height: float, **options: Any) -> tuple[Drawn, Axes]:
    """Return an empty drawing of a size in pixels."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(width / 100, height / 100), layout="constrained")
    return Drawn(title, drawing, **options), drawing.subplots()


def _of(chart: Chart) -> list[Curve]:
    return [line if isinstance(line, Curve) else Curve(line) for line in chart.lines.values()]


def _points(curve: Curve) -> list[tuple[float, float]]:
    return [*curve]


def _chart(chart: Chart) -> Drawn:
    from matplotlib.ticker import EngFormatter

    # Long names stand one below the other; those of many lines only where one points at.
    long, named = max(map(len, chart.lines), default=0) > _LONG, 1 < len(chart.lines) <= _LEGEND
    below = 13 * (len(chart.lines) - 2) if long and named else 0
    drawn, axes = _blank(chart.title, 320, 200 + max(0, below))
    for (name, curve), colour in zip(
        zip(chart.lines, _of(chart), strict=True), LINES * len(chart.lines), strict=False
    ):
        if not (points := _points(curve)):
            continue
        smooth = curve.average() if len(points) > _MANY else []
        if smooth:
            axes.plot(*zip(*points, strict=True), color=colour, alpha=0.28, linewidth=0.8)
        (line,) = axes.plot(*zip(*(smooth or points), strict=True), color=colour, label=name)
        text = _percent if chart.percent else "{:.4g}".format
        drawn.tip(line, f"{name}: {text((smooth or points)[-1][1])} at the end")
        if len(points) <= _DOTTED:
            dots = axes.scatter([x for x, _ in points], [y for _, y in points], color=colour, s=10)
            drawn.tip(dots, *(f"{name}, step {x:g}: {text(y)}" for x, y in points))
    axes.margins(y=0.08)
    axes.set_xlim(left=0, right=max(1.0, axes.get_xlim()[1]))
    if chart.percent:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda share, _: _percent(share))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.locator_params(nbins=4)
    axes.locator_params(axis="x", integer=True)  # steps
    axes.grid(axis="y")
    text = _percent if chart.percent else "{:.3g}".format
    for name, level, x in (("chance", chart.chance, 1.0), ("before training", chart.before, 0.5)):
        if level is not None:
            _dashed(axes.axhline, level)
            place = {"xy": (x, level), "xycoords": ("axes fraction", "data")}
            above = {"xytext": (0, 2), "textcoords": "offset points"}
            side = {"ha": "right" if x == 1 else "center", "color": COLOURS["soft"]}
            axes.annotate(f"{name} {text(level)}", **place, **above, **side)  # type: ignore[arg-type]
    if named:
        options: Any = {"ncols": 1 if long else 2, "labelcolor": "linecolor", "fontsize": 7}
        drawn.drawing.legend(loc="outside lower left", **options)
    return drawn


def _histogram(chart: Histogram) -> Drawn:
    drawn, axes = _blank(chart.title, 320, 180)
    counts, edges, bars = axes.hist(chart.values, bins=_BINS, color=LINES[0], rwidth=0.9)
    tips = zip(edges, edges[1:], counts, strict=False)
    for bar, (low, high, count) in zip(bars, tips, strict=True):  # type: ignore[arg-type]
        drawn.tip(bar, f"{low:.4g} to {high:.4g}: {count:.0f}")
    middle = median(chart.values)
    drawn.tip(_dashed(axes.axvline, middle), f"median: {middle:.4g}")
    axes.locator_params(nbins=4)
    axes.locator_params(axis="y", integer=True)
    axes.grid(axis="y")
    return drawn


def _bars(figure: Bars) -> Drawn:
    from matplotlib.ticker import PercentFormatter

    count = sum(len(bars) + 1.4 for bars in figure.groups.values())
    drawn, axes = _blank(figure.title, 860, 20 * count + 30)
    top, labels = 0.0, {}
    for measure, bars in figure.groups.items():
        labels[top] = measure
        for number, (name, values) in enumerate(bars.items(), start=1):
            y, average = top + number, mean(values)
            labels[y] = name
            axes.barh(y, average, height=0.7, color=LINES[min(number - 1, 1)])
            if len(values) > 1:
                seeds = axes.scatter(values, [y] * len(values), s=14, linewidths=0.9, zorder=3)
                seeds.set(facecolor=COLOURS["paper"], edgecolor=COLOURS["ink"])
                drawn.tip(seeds, *(f"{name}, one seed: {_percent(value)}" for value in values))
            axes.annotate(
                f"{100 * average:.1f}",
                (max(average, *values) if len(values) > 1 else average, y),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontweight="bold",
            )
        if (level := figure.chance.get(measure)) is not None:
            line = _dashed(axes.vlines, level, top + 0.4, top + len(bars) + 0.6)
            drawn.tip(line, f"chance level: {_percent(level)}")
        top += len(bars) + 1.4
    axes.set_xlim(0, 1.06)
    axes.set_ylim(top - 0.6, -0.6)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_yticks(list(labels), list(labels.values()))
    for label in axes.get_yticklabels():
        if label.get_text() in figure.groups:
            label.set(fontweight="bold", color=COLOURS["ink"])
    axes.grid(axis="x")
    return drawn


def _confusion(figure: ConfusionMatrix) -> Drawn:
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    count, names = len(figure.classes), figure.classes
    cell = next(
        size for most, size in ((12, 34), (25, 26), (NAMED, 16), (count, 8)) if count <= most
    )
    margin = 44 + (6 * max(map(len, names)) if count <= NAMED else 0)
    drawn, axes = _blank(figure.title, *[cell * count + margin] * 2, fixed=True)
    total = figure.counts.sum(dim=1).tolist()
    cells, colours, titles = [], [], []
    for row, column in figure.counts.nonzero().tolist():
        number, correct = int(figure.counts[row, column]), row == column
        share = number / total[row]
        opacity = _FAINTEST + (1 - _FAINTEST) * share
        outcome = "correct" if correct else f"predicted as {names[column]}"
        titles.append(f"{names[row]} {outcome}: {number} of {total[row]} ({100 * share:.0f}%)")
        colours.append(to_rgba(COLOURS["right" if correct else "wrong"], opacity))
        cells.append(Rectangle((column, row), 1, 1))
        if count <= NUMBERED:
            light = opacity > 0.65
            axes.text(
                column + 0.5,
                row + 0.5,
                str(number),
                ha="center",
                va="center",
                color=COLOURS["paper" if light else "ink"],
                fontweight="bold" if light else "normal",
            )
    drawn.tip(axes.add_collection(PatchCollection(cells, facecolors=colours)), *titles)
    axes.set(xlim=(0, count), ylim=(count, 0), aspect="equal")
    axes.set_xlabel("predicted class", style="italic")
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("true class", style="italic")
    middle = [i + 0.5 for i in range(count)] if count <= NAMED else []
    axes.set_xticks(middle, names[: len(middle)], rotation=90)
    axes.set_yticks(middle, names[: len(middle)])
    axes.spines[:].set_visible(True)
    return drawn


def _timeline(video: Timeline) -> Drawn:
    rows = 1 + len(video.proposals)
    drawn, axes = _blank(video.name, 860, 20 * rows + 28)
    for start, end, label in video.truth:
        bar = axes.barh(0, end - start, left=start, height=0.6, color=COLOURS["c2"])[0]
        drawn.tip(bar, f"{label}: {start:.1f} s to {end:.1f} s".removeprefix(": "))
    right = partial(axes.text, video.duration, va="center", color=COLOURS["soft"])
    for rank, one in enumerate(video.proposals, start=1):
        said = f"{one.score:.2f}, tIoU {one.iou:.2f}"
        colour = COLOURS["c0" if one.iou >= GOOD_IOU else "c1"]
        bar = axes.barh(rank, one.end - one.start, left=one.start, height=0.6, color=colour)[0]
        drawn.tip(bar, f"{one.start:.1f} s to {one.end:.1f} s: {said}")
        right(rank, f"  {said}")
    axes.set(xlim=(0, video.duration), ylim=(rows - 0.5, -0.6))
    axes.set_yticks(range(rows), ["truth", *(f"proposal {i}" for i in range(1, rows))])
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter("{x:g} s")
    axes.grid(axis="x")
    return drawn


def _dashed(line: Any, *where: float) -> Any:
    return line(*where, color=COLOURS["ink"], linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.75)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
