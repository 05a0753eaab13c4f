"""The page: whole by itself, well-formed, and true to what it was given."""

from __future__ import annotations

import base64
import io
import json
import re
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vclr_lightning import cli
from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation import FrozenRow, FrozenTable, merge_tables
from vclr_lightning.report import (
    Chart,
    Content,
    Query,
    Score,
    Shown,
    TupleSample,
    read_metrics,
    render,
    write_report,
)
from vclr_lightning.report.images import data_uri, middle_frames
from vclr_lightning.report.runs import content_of, read_run

MEASURES = ("r1", "r1_ordered", "probe", "probe_ordered")
VOID = {"meta", "img"}


def table(*seeds: float) -> FrozenTable:
    values = dict.fromkeys(MEASURES, seeds)
    chance = dict.fromkeys(MEASURES, (0.125,))
    rows = FrozenRow("VCLR", values), FrozenRow("chance", chance)
    return FrozenTable(rows, 80, 20, 3)


def picture(seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 255, (3, 16, 16), dtype=np.uint8))


@pytest.fixture
def content() -> Content:
    tuples = torch.stack([picture(i) for i in range(3)])
    shown = Shown(tuples, "push & <pull>")
    sample = TupleSample("clip", tuples, tuples, picture(9), 2, [0, 1, 2], [1, 2, 0])
    return Content(
        title="A <run>",
        summary="Found & shown.",
        facts={"backbone": "Tiny<8>"},
        charts=[Chart(title="loss", lines={"a": [(0, 1.0), (1, 0.5)], "b": [(0, 1.0)]})],
        scores=[Score("found", 0.5, 0.125)],
        tuples=[sample],
        queries=[Query(shown, {"VCLR": [shown, Shown(tuples, "kick")]})],
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

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_is_well_formed_and_fetches_nothing(content: Content) -> None:
    page = render(content, frozen=table(0.5, 0.6))
    structure = Structure()
    structure.feed(page)
    assert structure.open == []
    assert len(structure.addresses) == 3 + 3 + 1 + 3 * 3
    assert all(address.startswith("data:image/jpeg;base64,") for address in structure.addresses)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "<pull>" not in page


def test_shows_what_it_was_given(content: Content) -> None:
    page = render(content, frozen=table(0.5, 0.6))
    for text in ("A &lt;run&gt;", "Found &amp; shown.", "55.0 ± 7.1", "Tiny&lt;8&gt;", "50.0%"):
        assert text in page
    assert page.count('class="ok"') == page.count('class="bad"') == 1
    assert "positive shuffled" in page
    # the positive tuple's pictures are shown as numbers 3, 1, 2: where [1, 2, 0] puts them
    positive = page[page.index("<span>positive</span>") :]
    assert re.findall(r"<em>(\d)</em>", positive)[:3] == ["3", "1", "2"]
    assert page.count('class="x1"') == 1


def test_what_is_not_there_is_not_shown() -> None:
    page = render(Content("Only a title"))
    assert "<h2>" not in page
    assert "<svg" not in page


def test_pictures_survive() -> None:
    smooth = torch.arange(0, 240, 5).view(1, 1, -1).expand(3, 48, -1).contiguous().byte()
    content = base64.b64decode(data_uri(smooth).partition(",")[2])
    back = np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1)
    assert np.abs(back.astype(int) - smooth.numpy()).mean() < 2
    clips = torch.arange(5).view(1, 1, 5, 1, 1).expand(2, 3, 5, 4, 4)
    assert (middle_frames(clips) == 2).all()


def test_is_written_in_one_step(content: Content, tmp_path: Path) -> None:
    page = write_report(tmp_path / "new" / "report.html", content)
    assert page.read_text(encoding="utf-8") == render(content)
    assert [file.name for file in page.parent.iterdir()] == ["report.html"]
    with pytest.raises(UserError, match="cannot write"):
        write_report(page / "below", content)


def test_tables_of_seeds_merge() -> None:
    merged = merge_tables([table(0.5), table(0.75), table(0.5)])
    assert merged.row("VCLR").values["r1"] == (0.5, 0.75, 0.5)
    assert merged.row("chance").values["r1"] == (0.125,)
    assert FrozenTable.from_dict(json.loads(json.dumps(merged.as_dict()))) == merged
    other = FrozenTable(merged.rows, 80, 21, 3)
    with pytest.raises(UserError, match="on different videos"):
        merge_tables([merged, other])
    with pytest.raises(UserError, match="no table"):
        FrozenTable.from_dict({"rows": 3})


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    folders = []
    for seed in range(2):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        (folder / "metrics.csv").write_text(
            f"step,epoch,train/loss,train/inter/loss\n0,0,9.5,4.5\n10,0,,{4 - seed}\n"
        )
        (folder / "config.yaml").write_text(
            f"seed: {seed}\nepochs: 4\ninit: null\nbackbone:\n  _target_: a.Tiny\n  width: 8\n"
        )
        held_out = {
            "instance_r1": {"VCLR": 0.5},
            "instance_chance": 0.05,
            "order_accuracy": 0.4,
            "order_chance": 0.25,
        }
        results = {"frozen": table(0.5 + seed / 10).as_dict(), "held_out": held_out}
        (folder / "results.json").write_text(json.dumps(results))
        folders.append(folder)
    return folders


def test_a_run_tells_what_it_left(runs: list[Path]) -> None:
    run = read_run(runs[1])
    assert run.facts == {"seed": "1", "epochs": "4", "backbone": "Tiny(width=8)"}
    assert [s.name for s in run.scores][1] == "shuffled tuples recognised"
    assert {name: [*line] for name, line in run.charts[1].lines.items()} == {
        "loss": [(0.0, 4.5), (10.0, 3.0)]
    }
    (runs[1] / "results.json").unlink()
    (runs[1] / "config.yaml").unlink()
    bare = read_run(runs[1])
    assert (bare.frozen, bare.facts, bare.scores) == (None, {}, [])


def test_runs_stand_side_by_side(runs: list[Path]) -> None:
    content, frozen = content_of([read_run(folder) for folder in runs])
    assert content.facts["seed"] == "0, 1"
    assert content.facts["epochs"] == "4"
    assert list(content.charts[1].lines) == ["seed0", "seed1"]
    assert frozen is not None
    assert frozen.row("VCLR").values["r1"] == (0.5, 0.6)


def test_command(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(runs[0])]) == 0
    assert (runs[0] / "curves.html").exists()
    out = tmp_path / "seeds.html"
    assert cli.main(["report", *map(str, runs), "--out", str(out), "--title", "Two"]) == 0
    assert "<h1>Two</h1>" in out.read_text(encoding="utf-8")
    assert "55.0 ± 7.1" in capsys.readouterr().out
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "metrics.csv cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "step,x\n1,y\n", "\x00\xff"])
def test_other_tables_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "metrics.csv"
    file.write_bytes(content.encode("latin1"))
    with pytest.raises(UserError, match=r"metrics\.csv"):
        read_metrics(file)


def test_damaged_lines_cost_themselves_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A byte order mark, Windows' line breaks, NUL bytes, a torn line, a cell that is no number."""
    file = tmp_path / "metrics.csv"
    torn = [b"2,\0\0\0", b"3,1.5", b"4,x,1", b"5,nan,1", b"6,,2", b"7,3."]
    rows = [b"\xef\xbb\xbfstep,a,b", b"0,1,", b"1,2,", *torn]
    file.write_bytes(b"\r\n".join(rows))
    curves = {name: [*curve] for name, curve in read_metrics(file).items()}
    assert curves == {"a": [(0.0, 1.0), (1.0, 2.0)], "b": [(5.0, 1.0), (6.0, 2.0)]}
    assert "4 damaged lines" in caplog.text


def test_a_long_run_is_read_in_parts(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    names = [f"m{i}" for i in range(20)]
    with file.open("w") as sink:
        sink.write(",".join(["step", *names]) + "\n")
        sink.writelines(f"{i},{','.join([repr(i / 7)] * 20)}\n" for i in range(20_000))
    tracemalloc.start()
    try:
        curves = read_metrics(file)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [*curves] == names
    assert max([*curves["m7"]]) == (pytest.approx(19_999, abs=64), 19_999 / 7)
    assert held < 25 * 2**20  # where 400,000 pairs of floats are 45 MB


def test_damaged_results_are_named(runs: list[Path]) -> None:
    (runs[0] / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"results\.json is damaged"):
        read_run(runs[0])
    (runs[1] / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"config\.yaml is damaged"):
        read_run(runs[1])
