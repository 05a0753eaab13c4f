"""The HTML page about a run."""

from vclr_lightning.report.content import Chart, Content, Query, Score, Shown, TupleSample
from vclr_lightning.report.metrics import charts_of, read_metrics
from vclr_lightning.report.page import render, write_report

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
