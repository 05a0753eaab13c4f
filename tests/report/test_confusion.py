"""The confusion matrix as a picture: what it shows of few classes, and of many."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from vclr_lightning.report.confusion import NAMED, NUMBERED, confusion_chart, confusion_key
from vclr_lightning.report.probe import ProbePage, write_probe_page
from vclr_lightning.report.tables import html_table


def matrix(classes: int) -> tuple[torch.Tensor, list[str]]:
    generator = torch.Generator().manual_seed(classes)
    counts = torch.randint(0, 3, (classes, classes), generator=generator)
    counts += 5 * torch.eye(classes, dtype=torch.int64)
    return counts, [f"class <{i}>" for i in range(classes)]


@pytest.mark.parametrize("classes", [2, NUMBERED, NUMBERED + 1, NAMED, NAMED + 1])
def test_numbers_and_names_as_far_as_there_is_room(classes: int) -> None:
    counts, names = matrix(classes)
    svg = confusion_chart(counts, names)
    cells = re.findall(r'<rect class="cell (\w+)"[^>]*fill-opacity="([\d.]+)"><title>(.*?)<', svg)
    assert len(cells) == int((counts > 0).sum())
    assert sum(kind == "right" for kind, _, _ in cells) == classes
    shares = (counts.double() / counts.sum(dim=1, keepdim=True))[counts > 0]
    for (_, opacity, title), share in zip(cells, shares.tolist(), strict=True):
        assert float(opacity) == pytest.approx(0.12 + 0.88 * share, abs=1e-3)
        assert title.endswith(f"({100 * share:.0f}%)")
    numbers = [int(n) for n in re.findall(r'<text class="number[^>]*>(\d+)<', svg)]
    assert numbers == (counts[counts > 0].tolist() if classes <= NUMBERED else [])
    assert svg.count("class &lt;0&gt;</text>") == (2 if classes <= NAMED else 0)
    assert "predicted class" in svg


def test_the_page_explains_the_colours(tmp_path: Path) -> None:
    key = confusion_key()
    for text in ("10%", "100%", "of the class's videos", "correct", "misclassified"):
        assert text in key
    for classes, told in ((3, "Numbers are videos."), (50, "Point at a cell")):
        counts, names = matrix(classes)
        page = ProbePage("A probe", confusion=counts, names=names)
        text = write_probe_page(tmp_path / "report.html", page).read_text("utf-8")
        assert key in text
        assert told in text


def test_words_stand_left_and_numbers_right() -> None:
    table = html_table([["class", "right", "taken for"], ["a", "50.0%", "b"], ["b", "1,000", ""]])
    assert re.findall(r'<th( class="words")?>', table) == [' class="words"', "", ' class="words"']
