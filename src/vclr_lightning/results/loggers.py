"""A result in experiment loggers: W&B tables, images and summary; numbers in any other."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from vclr_lightning.results import figures, svg
from vclr_lightning.results.value import Result, Table
from vclr_lightning.results.visuals import Embedded, Gallery, Picture

logger = logging.getLogger(__name__)

_IMAGES = 100  # under one key; W&B keeps 108


def log_result(result: Result, loggers: Iterable[Any]) -> None:
    """Log a result; one that cannot be logged is a warning, for its files are written already.

    A logger with a method ``log_result`` decides itself. One with ``log_table`` and ``log_image``,
    as Lightning's ``WandbLogger``, receives tables, figures and pictures too.

    Example:
        >>> from vclr_lightning.results import Scalar
        >>> class Printing:
        ...     def log_metrics(self, metrics):
        ...         print(metrics)
        >>> log_result(Result(title="", scalars=[Scalar("r1", 0.5)]), [Printing()])
        {'test/r1': 0.5}
    """
    values = {one.name: one.value for one in result.scalars}
    if not values and result.page:  # a table of several evaluations; training logs its own metrics
        values = dict(result.numbers)
    numbers = {f"test/{name}": value for name, value in values.items()}
    for sink in loggers:
        try:
            if callable(own := getattr(sink, "log_result", None)):
                own(result)
            elif callable(getattr(sink, "log_table", None)):
                _log_to_wandb(result, sink, numbers)
            elif numbers:
                sink.log_metrics(numbers)
        except Exception as error:  # whatever a service raises
            what = " ".join(f"{type(error).__name__}: {error}".split())
            logger.warning("%s could not log the results: %s", type(sink).__name__, what)


def _log_to_wandb(result: Result, sink: Any, numbers: Mapping[str, float]) -> None:
    from PIL import Image

    sink.experiment.summary.update(numbers)
    for number, item in enumerate(result.content):
        key = f"test/{getattr(item, 'title', '') or getattr(item, 'file', '') or number}"
        if isinstance(item, Table):
            if item.shown != "file":
                columns = [head.title or head.name for head in item.heads]
                sink.log_table(key=key, columns=columns, data=[list(row) for row in item.rows])
        elif isinstance(item, Gallery):
            rows = [[label, *row] for group in item.groups for label, row in group.rows]
            found = [p for row in rows for p in row if isinstance(p, Picture)]
            found = [p for p in found if p.frames is not None]
            for first in range(0, len(found), _IMAGES):
                some = found[first : first + _IMAGES]
                sink.log_image(
                    key=f"{key}, from {first + 1}" if first else key,
                    images=[_joined(picture.frames) for picture in some],
                    caption=[picture.tooltip or picture.caption for picture in some],
                )
        elif not isinstance(item, Embedded):
            drawn = figures.draw(item)
            images = [Image.open(io.BytesIO(svg.png(one))) for one in drawn]
            sink.log_image(key=key, images=images, caption=[one.title for one in drawn])


def _joined(frames: Any) -> Any:
    """Frames ``(n, 3, H, W)`` or ``(3, H, W)`` side by side, ``(H, n W, 3)``."""
    if frames.ndim == 4:
        frames = frames.permute(1, 2, 0, 3).flatten(2)
    return frames.permute(1, 2, 0).contiguous().cpu().numpy()
