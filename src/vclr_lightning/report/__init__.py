"""The HTML page about a run."""

from vclr_lightning.report.content import Chart, Content, Query, Score, Shown, TupleSample
from vclr_lightning.report.page import render, write_report
from vclr_lightning.results.curves import charts_of, read_metrics

__all__ = [
    "Chart",
    "Content",
    "Query",
    "Score",
    "Shown",
    "TupleSample",
    "charts_of",
    "read_metrics",
    "render",
    "write_report",
]
