"""Results: one plain value that every stage returns, and its renderers.

A stage describes what it has measured as a :class:`Result`; :func:`present` writes its files and
its page into the stage's folder and prints it, and :func:`log_result` sends it to loggers::

    return present(
        Result(
            title="Retrieval",
            summary="For 45.0% of 80 test videos the nearest training video is of their class.",
            scalars=[Scalar("r1", 0.45, chance=0.125)],
            content=[Table(title="Classes", file="classes", columns=names, rows=rows)],
            file="retrieval",  # retrieval.json
        ),
        directory,
    )

Renderers: ``terminal`` (rich), ``artifacts`` (JSON, CSV), ``html`` (Jinja2; ``figures`` by
matplotlib), ``loggers`` (W&B and others).
"""

from __future__ import annotations

import logging
from pathlib import Path

from vclr_lightning.core.screen import is_new, wrote
from vclr_lightning.results.artifacts import write_files, write_table
from vclr_lightning.results.html import render, write_page
from vclr_lightning.results.loggers import log_result
from vclr_lightning.results.terminal import show_result
from vclr_lightning.results.value import (
    TITLES,
    Column,
    Link,
    Result,
    Scalar,
    Table,
    bracket,
    percent,
)
from vclr_lightning.results.visuals import (
    Bars,
    Chart,
    Charts,
    ConfusionMatrix,
    Embedded,
    Gallery,
    Histogram,
    Histograms,
    Picture,
    PictureGroup,
    Proposal,
    Timeline,
    Timelines,
)

__all__ = [
    "TITLES",
    "Bars",
    "Chart",
    "Charts",
    "Column",
    "ConfusionMatrix",
    "Embedded",
    "Gallery",
    "Histogram",
    "Histograms",
    "Link",
    "Picture",
    "PictureGroup",
    "Proposal",
    "Result",
    "Scalar",
    "Table",
    "Timeline",
    "Timelines",
    "bracket",
    "log_result",
    "percent",
    "present",
    "render",
    "save",
    "write_table",
]

logger = logging.getLogger(__name__)


def present(result: Result, directory: str | Path) -> Result:
    """Save a result in a folder, log its notes, print it, and return it.

    Raises:
        UserError: a file cannot be written.
    """
    save(result, directory)
    for note in filter(is_new, result.notes):
        logger.info("%s", note)
    show_result(result)
    if result.page:
        wrote(Path(directory) / result.page)
    return result


def save(result: Result, directory: str | Path) -> None:
    """Write a result's files and its page into a folder.

    Raises:
        UserError: a file cannot be written.
    """
    write_files(result, Path(directory))
    if result.page:
        write_page(result, Path(directory))
