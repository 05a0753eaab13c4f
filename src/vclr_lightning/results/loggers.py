"""A result in experiment loggers: tables, pictures and summary, as far as each can take them."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from vclr_lightning.results import figures, svg
from vclr_lightning.results.pictures import picture_of
from vclr_lightning.results.value import Result, Table
from vclr_lightning.results.visuals import ConfusionMatrix, Embedded, Gallery, Picture, PictureGroup

logger = logging.getLogger(__name__)

_IMAGES = 100  # under one key; W&B keeps 108


def log_result(result: Result, loggers: Iterable[Any], directory: str | Path | None = None) -> None:
    """Log a result and its parts; what cannot be logged is a warning, for its files are written.

    A logger with a method ``log_result`` decides itself. Another receives the numbers by
    ``log_summary`` (or as metrics), tables by ``log_table``, figures and pictures by ``log_image``,
    films by ``log_video`` and confusion matrices by ``log_confusion``, whichever it has.

    Args:
        result: of a stage.
        loggers: of the run.
        directory: that the files of the result are in.

    Example:
        >>> from vclr_lightning.results import Scalar
        >>> class Printing:
        ...     def log_metrics(self, metrics):
        ...         print(metrics)
        >>> log_result(Result(title="", scalars=[Scalar("r1", 0.5)]), [Printing()])
        {'test/r1': 0.5}
    """
    numbers = _numbers(result)
    for sink in loggers:
        calls: dict[str, Callable[[], Any]] = {}
        if callable(own := getattr(sink, "log_result", None)):
            calls = {"its numbers": partial(own, result)}
        else:
            if numbers:
                calls["its numbers"] = partial(_log_numbers, sink, numbers)
            calls |= dict(_media(result, sink, "test", Path(directory or ".")))
        failed = {}
        for what, call in calls.items():
            try:
                call()
            except Exception as error:  # whatever a service raises
                failed[what] = " ".join(f"{type(error).__name__}: {error}".split())
        if failed:
            some = ", ".join([*failed][:3]) + (" and others" if len(failed) > 3 else "")
            logger.warning(
                "%s could not log the results: %s (%s); the others are logged, and all are in "
                "the run's folder",
                *(type(sink).__name__, next(iter(failed.values())), some),
            )


def _numbers(result: Result) -> dict[str, float]:
    values: dict[str, float] = {one.name: one.value for one in result.scalars}
    chance = {f"chance/{one.name}": one.chance for one in result.scalars if one.chance is not None}
    if not values and result.page:  # a table of several evaluations; training logs its own metrics
        values = dict(result.numbers)
    numbers = {f"test/{name}": float(value) for name, value in (values | chance).items()}
    if "best" in result.numbers:
        numbers["best"] = result.numbers["best"]
    return numbers


def _log_numbers(sink: Any, numbers: Mapping[str, float]) -> None:
    if callable(own := getattr(sink, "log_summary", None)):
        own(numbers)
        return
    summary: Any = getattr(getattr(sink, "experiment", None), "summary", None)
    if hasattr(summary, "update"):
        summary.update(numbers)  # of Lightning's own logger for W&B
    else:
        sink.log_metrics(numbers)


def _media(
    result: Result, sink: Any, prefix: str, directory: Path
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the key and the call of everything to log but numbers."""

    def takes(name: str) -> Any:
        return own if callable(own := getattr(sink, name, None)) else None

    for number, item in enumerate(result.content):
        key = f"{prefix}/{getattr(item, 'title', '') or getattr(item, 'file', '') or number}"
        if isinstance(item, Table):
            if (log := takes("log_table")) and item.rows:
                heads = item.heads
                names = [
                    one.name if item.shown == "file" else one.title or one.name for one in heads
                ]
                rows = [list(row) for row in item.rows]
                yield key, partial(log, key=key, columns=names, data=rows)
        elif isinstance(item, Gallery):
            if log := takes("log_image"):
                yield from _pictures(key, item, log)
            films = [directory / p.link for p in _found(item) if p.link.endswith(".mp4")]
            if films and (log := takes("log_video")):
                names = [file.stem for file in films]
                files = [str(file) for file in films]
                yield f"{key}, films", partial(log, f"{key}, films", files, caption=names)
        elif not isinstance(item, Embedded):
            if isinstance(item, ConfusionMatrix) and (log := takes("log_confusion")):
                counts, classes = item.counts.tolist(), list(item.classes)
                yield f"{key}, chart", partial(log, f"{key}, chart", counts, classes)
            if log := takes("log_image"):
                yield key, partial(_log_figure, log, key, item)
    for name, part in result.parts.items():
        yield from _media(part, sink, f"{prefix}/{name}", directory / name)


def _log_figure(log: Callable[..., Any], key: str, item: Any) -> None:
    from PIL import Image

    drawn = figures.draw(item)
    images = [Image.open(io.BytesIO(svg.png(one))).convert("RGB") for one in drawn]
    log(key=key, images=images, caption=[one.title for one in drawn])


def _pictures(
    key: str, gallery: Gallery, log: Callable[..., Any]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    drawn = [(picture_of(group), _caption(group)) for group in gallery.groups]
    found = [(image, text) for image, text in drawn if image is not None]
    for first in range(0, len(found), _IMAGES):
        images, texts = zip(*found[first : first + _IMAGES], strict=True)
        name = f"{key}, from {first + 1}" if first else key
        yield name, partial(log, key=name, images=list(images), caption=list(texts))


def _found(gallery: Gallery) -> Iterator[Picture]:
    for group in gallery.groups:
        for label, row in group.rows:
            yield from (one for one in (label, *row) if isinstance(one, Picture))


def _caption(group: PictureGroup) -> str:
    words = [group.title, group.text]
    for label, row in group.rows:
        shown = (label, *row)
        words += [one if isinstance(one, str) else one.tooltip or one.caption for one in shown]
    return "; ".join(dict.fromkeys(filter(None, words)))
