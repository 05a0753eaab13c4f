"""The page: whole by itself, well-formed, and true to what it was given."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vclr_lightning.core.errors import UserError
from vclr_lightning.results import (
    Bars,
    Chart,
    Charts,
    Column,
    ConfusionMatrix,
    Embedded,
    Gallery,
    Link,
    Picture,
    PictureGroup,
    Proposal,
    Result,
    Scalar,
    Table,
    Timeline,
    Timelines,
    render,
    save,
)
from vclr_lightning.results.html import sources

VOID = {"meta", "img", "br"}


def picture(seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 255, (3, 16, 16), dtype=np.uint8))


@pytest.fixture
def result() -> Result:
    """Everything that a page can show, with names that could break it."""
    frames = torch.stack([picture(i) for i in range(3)])
    query = Picture(frames=frames, caption="push & <pull>")
    near = [
        Picture(frames=frames, caption="push & <pull>", detail="0.5", correct=True),
        Picture(frames=None, caption="kick", tooltip="kick <1>", correct=False),
    ]
    tuples = [Picture(frames=f, badge=str(i + 1), outlined=i == 2) for i, f in enumerate(frames)]
    video = Timeline(
        name="one <1>",
        duration=9.0,
        truth=[(1, 4, "<run>")],
        proposals=[Proposal(start=1, end=5, score=0.8, iou=0.75)],
    )
    return Result(
        title="A <result>",
        summary="Found & shown.",
        scalars=[Scalar("top1", 0.5, chance=0.125, untrained=0.25, published=0.75)],
        notes=["1 video <is> damaged."],
        content=[
            Charts(
                charts=[Chart(title="<loss>", lines={"<a>": [(0, 1), (1, 0.5)], "b": [(0, 1)]})]
            ),
            Bars(title="bars", groups={"R@1 <b>": {"VCLR": [0.5, 0.6]}}, chance={"R@1 <b>": 0.1}),
            ConfusionMatrix(counts=torch.tensor([[3, 1], [0, 2]]), classes=["<run>", "jump"]),
            Timelines(title="segments", videos=[video]),
            Gallery(groups=[PictureGroup(rows=[(query, near)])], title="neighbours"),
            Gallery(
                groups=[PictureGroup(rows=[("anchor", tuples)], title="clip", text="shuffled")],
                layout="cards",
            ),
            Table(
                title="Classes",
                columns=["class", Column("r1", "R@1", unit="%"), "predicted"],
                rows=[["<run>", 0.5, ""], ["jump", None, "<run>"]],
                marks=["strong", ""],
            ),
            Table(title="Hidden", columns=["secret"], rows=[["hidden"]], shown="file"),
            Table(title="Nothing", columns=["secret"], rows=[]),
        ],
        provenance={"network": "Tiny<8>"},
    )


class Structure(HTMLParser):
    """Checks that elements close in order, and collects what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_is_well_formed_and_fetches_nothing(result: Result) -> None:
    page = render(result)
    structure = Structure()
    structure.feed(page)
    assert structure.open == []
    pictures = [one for one in structure.addresses if not one.startswith("#")]
    assert len(pictures) == 3 + 3 + 3  # query, neighbour, tuple; the damaged one has none
    assert all(address.startswith("data:image/jpeg;base64,") for address in pictures)
    assert not re.search(r"https?://|@import|url\((?!#)", page)
    for name in ("<pull>", "<run>", "<1>", "<loss>", "<8>", "<is>", "<b>V"):
        assert name not in page


def test_shows_what_it_was_given(result: Result) -> None:
    page = render(result)
    for text in (
        *("A &lt;result&gt;", "Found &amp; shown.", "1 video &lt;is&gt; damaged.", "Tiny&lt;8&gt;"),
        *("<b>50.0%</b>", "chance level 12.5%", "untrained 25.0%", "paper 75.0%", "--chance:12.5%"),
        *("no picture", 'title="kick &lt;1&gt;"', "shuffled", "chance level: 10%", "55.0"),
        *("&lt;run&gt; predicted as jump: 1 of 4 (25%)", "1.0 s to 5.0 s: 0.80, tIoU 0.75"),
        '<tr class="strong"><td class="words">&lt;run&gt;</td><td>50.0</td>',
    ):
        assert text in page, text
    assert page.count('<i aria-label="right">✓</i>') == page.count('aria-label="wrong">✗') == 1
    assert re.findall(r"<em>(\d)</em>", page) == ["1", "2", "3"]
    assert page.count('class="outlined"') == 1
    for text in ("hidden", "Hidden", "Nothing"):
        assert text not in page


def test_what_is_not_there_is_not_shown() -> None:
    page = render(Result(title="Only a title"))
    assert "<h2>" not in page
    assert "<svg" not in page


def test_pictures_survive() -> None:
    smooth = torch.arange(0, 240, 5).view(1, 1, -1).expand(3, 48, -1).contiguous().byte()
    for lossless, most in ((False, 2), (True, 0)):
        (source,) = sources(Picture(frames=smooth), lossless=lossless)
        content = base64.b64decode(source.partition(",")[2])
        back = np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1)
        assert np.abs(back.astype(int) - smooth.numpy()).mean() <= most


def test_is_written_in_one_step(result: Result, tmp_path: Path) -> None:
    save(result, tmp_path / "new")
    page = tmp_path / "new" / "report.html"
    assert page.read_text(encoding="utf-8") == render(result)
    assert [file.name for file in page.parent.iterdir()] == ["report.html"]
    with pytest.raises(UserError, match="cannot write"):
        save(result, page / "below")


def test_an_embedded_page_leads_from_its_own_folder(tmp_path: Path) -> None:
    save(Result(title="Inner & small"), tmp_path / "my films")
    outer = Result(
        title="Outer", content=[Embedded(title="films", page=Path("my films/report.html"))]
    )
    page = render(outer, tmp_path)
    assert "&lt;base href=&#34;my%20films/&#34; target=&#34;_blank&#34;&gt;" in page
    assert "Inner &amp;amp; small" in page


@pytest.mark.parametrize("classes", [2, 25, 26, 40, 41])
def test_confusions_show_numbers_and_names_as_far_as_there_is_room(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    counts = torch.randint(0, 3, (classes, classes), generator=generator)
    counts += 5 * torch.eye(classes, dtype=torch.int64)
    names = [f"class <{i}>" for i in range(classes)]
    page = render(Result(title="", content=[ConfusionMatrix(counts=counts, classes=names)]))
    cells = re.findall(r"(?:opacity: ([\d.]+)[^>]*)?><title>(.*?)</title>", page)
    assert len(cells) == int((counts > 0).sum())
    assert sum(" correct: " in title for _, title in cells) == classes
    found = (counts.double() / counts.sum(dim=1, keepdim=True))[counts > 0].tolist()
    for (opacity, title), share in zip(cells, found, strict=True):
        assert float(opacity or 1) == pytest.approx(0.12 + 0.88 * share, abs=1e-3)
        assert title.endswith(f"({100 * share:.0f}%)")
    numbers = [int(n) for n in re.findall(r"<text[^>]*>(\d+)</text>", page)]
    assert sorted(numbers) == (sorted(counts[counts > 0].tolist()) if classes <= 25 else [])
    assert page.count(">class &lt;0&gt;</text>") == (2 if classes <= 40 else 0)
    for text in ("10%", "100%", "of the class's videos", "correct", "misclassified", "true class"):
        assert text in page


def test_a_link_in_a_table_leads_to_its_file() -> None:
    rows = [[Link("a <b>", "b%20c/page.html"), 1], ["plain", 2]]
    page = render(Result(title="t", content=[Table(columns=["x", "n"], rows=rows)]))
    assert '<td class="words"><a href="b%20c/page.html">a &lt;b&gt;</a></td>' in page
    assert '<td class="words">plain</td>' in page
