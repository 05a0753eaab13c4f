"""Terminal, files and loggers: each shows what the result holds, in its own form."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vclr_lightning import __version__
from vclr_lightning.loggers.csv import CSVLogger
from vclr_lightning.results import (
    Chart,
    Charts,
    Column,
    ConfusionMatrix,
    Gallery,
    Picture,
    PictureGroup,
    Result,
    Scalar,
    Table,
    log_result,
    present,
)
from vclr_lightning.results.pictures import picture_of
from vclr_lightning.results.terminal import show_result


@pytest.fixture
def result() -> Result:
    rows = [(f"class [{i}]", 10, i / 20, "other" if i else None) for i in range(20)]
    picture = Picture(frames=torch.zeros(2, 3, 8, 8, dtype=torch.uint8), tooltip="two frames")
    gone = Picture(frames=None, caption="damaged")
    return Result(
        title="A result",
        summary="Half of it is right.",
        scalars=[Scalar("top1", 0.5, chance=0.125, published=0.75), Scalar("auc", 0.25)],
        notes=["1 video is damaged."],
        content=[
            Table(
                title="Classes",
                file="classes",
                lowest="accuracy",
                columns=[
                    "class",
                    "videos",
                    Column("accuracy", "accuracy, %", unit="%"),
                    Column("taken_for", "predicted as", wide=True),
                ],
                rows=rows,
            ),
            Table(file="all", columns=["path", "score"], rows=[("a", 1 / 3)], shown="file"),
            Table(file="rejected", columns=["path"], rows=[], shown="file"),
            Charts(charts=[Chart(title="loss", lines={"loss": [(0, 1.0), (1, 0.5)]})]),
            Gallery(groups=[PictureGroup(rows=[("query", [picture, gone])])], title="found"),
        ],
        numbers={"test/videos": 20},
        file="result",
        record={"accuracies": {"top1": 0.5}},
    )


def test_a_result_is_a_mapping_of_its_numbers(result: Result) -> None:
    numbers = {"top1": 0.5, "auc": 0.25, "chance/top1": 0.125, "test/videos": 20}
    assert dict(result) == numbers
    assert len(result) == 4
    assert result["auc"] == 0.25


def test_files_hold_everything(result: Result, tmp_path: Path) -> None:
    (tmp_path / "rejected.csv").write_text("of an earlier run")
    assert present(result, tmp_path) is result
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"result.json", "classes.csv", "all.csv", "report.html"}
    content = json.loads((tmp_path / "result.json").read_text())
    notes = ["1 video is damaged."]
    assert content == {"accuracies": {"top1": 0.5}, "notes": notes, "version": __version__}
    with (tmp_path / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert rows[1] == {
        "class": "class [1]",
        "videos": "10",
        "accuracy": "0.050000",
        "taken_for": "other",
    }
    assert rows[0]["taken_for"] == ""
    assert (tmp_path / "all.csv").read_text() == "path,score\na,0.333333\n"


def test_the_terminal_shows_the_lowest_ten_in_80_columns(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    present(result, tmp_path)
    out = capsys.readouterr().out
    for text in ("Half of it is right.", "top-1", "chance level", "paper", "75.0", "AUC"):
        assert text in out
    assert "untrained" not in out
    assert "the 10 of 20 with the lowest accuracy" in out
    assert "class [9]" in out
    assert "class [10]" not in out
    for text in ("predicted as", "0.333"):
        assert text not in out
    assert max(map(len, out.splitlines()[:-1])) <= 80
    assert out.endswith("report.html\n")


class Recorder:
    """A logger such as W&B's, which keeps what it is given."""

    def __init__(self) -> None:
        self.summary: dict[str, float] = {}
        self.tables: dict[str, Any] = {}
        self.images: dict[str, Any] = {}

    @property
    def experiment(self) -> Recorder:
        return self

    def log_table(self, key: str, columns: list[str], data: list[list[Any]]) -> None:
        self.tables[key] = columns, data

    def log_image(self, key: str, images: list[Any], caption: list[str]) -> None:
        self.images[key] = images, caption


@pytest.mark.parametrize("widths", [(30, 60, 60), (40, 24, 33, 90), (9, 5, 5), (50, 20), (70,)])
def test_a_table_of_long_values_keeps_its_last_border(
    widths: tuple[int, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"c{number}" for number in range(len(widths))]
    row = [f"{number}" * width for number, width in enumerate(widths)]
    show_result(Result(title="t", content=[Table(title="Long", columns=names, rows=[row])]))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line[1:-1].split("│")] for line in lines]
    assert all(line.endswith("│") and len(line) <= 80 for line in lines)
    assert ["".join(column) for column in zip(*cells, strict=True)] == row
    assert len(cells[0][0]) >= min(20, widths[0])


def test_wandb_receives_tables_figures_and_pictures(result: Result) -> None:
    sink = Recorder()
    log_result(result, [sink])
    assert sink.summary == {"test/top1": 0.5, "test/auc": 0.25, "test/chance/top1": 0.125}
    columns, data = sink.tables["test/Classes"]
    assert columns == ["class", "videos", "accuracy, %", "predicted as"]
    assert len(data) == 20
    assert list(sink.tables) == ["test/Classes", "test/all"]  # no empty one
    ((image,), caption) = sink.images["test/found"]
    assert np.asarray(image).shape == (16 + 8, 16, 3)  # the label above the frames
    assert caption == ["query; two frames; damaged"]
    ((drawing,), caption) = sink.images["test/3"]
    assert (drawing.size, caption) == ((640, 400), ["loss"])


def test_wandb_receives_the_numbers_of_several_evaluations() -> None:
    several = {"numbers": {"ucf101/linear_probe/top1": 0.5}}
    log_result(Result(title="Evaluation", **several), [sink := Recorder()])
    assert sink.summary == {"test/ucf101/linear_probe/top1": 0.5}
    log_result(Result(title="Pretraining", page="", **several), [sink := Recorder()])
    assert sink.summary == {}


def test_wandb_receives_more_pictures_than_it_keeps_under_one_key() -> None:
    picture = Picture(frames=torch.zeros(3, 8, 8, dtype=torch.uint8))
    groups = [PictureGroup(rows=[("query", [picture])])] * 144
    gallery = Gallery(groups=groups, title="found")
    log_result(Result(title="", content=[gallery]), [sink := Recorder()])
    counts = {key: len(images) for key, (images, _) in sink.images.items()}
    assert counts == {"test/found": 100, "test/found, from 101": 44}


def test_any_logger_gets_the_numbers_and_a_failure_ends_nothing(
    result: Result, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def log_metrics(self, metrics: dict[str, float]) -> None:
            raise ConnectionError("no\nnetwork")

    class Plain:
        found: dict[str, float]

        def log_metrics(self, metrics: dict[str, float]) -> None:
            self.found = metrics

    plain = Plain()
    log_result(result, [Failing(), CSVLogger(directory=tmp_path), plain])
    assert plain.found == {"test/top1": 0.5, "test/auc": 0.25, "test/chance/top1": 0.125}
    assert not (tmp_path / "metrics.csv").exists()  # the record of training
    assert "Failing could not log the results: ConnectionError: no network" in caplog.text


def test_one_item_that_fails_leaves_the_others_and_parts_are_logged(
    result: Result, caplog: pytest.LogCaptureFixture
) -> None:
    class Choosy(Recorder):
        def log_table(self, key: str, columns: list[str], data: list[list[Any]]) -> None:
            raise ValueError(f"no {key}")

    whole = Result(title="Evaluation", numbers={"a/top1": 0.5}, parts={"a": result})
    log_result(whole, [sink := Choosy()])
    assert sink.summary == {"test/a/top1": 0.5}
    assert sorted(sink.images) == ["test/a/3", "test/a/found"]
    assert caplog.text.count("could not log") == 1
    assert "ValueError: no test/a/Classes (test/a/Classes, test/a/all)" in caplog.text


def test_films_and_confusions_go_to_loggers_that_take_them(tmp_path: Path) -> None:
    class Filming(Recorder):
        def log_video(self, key: str, videos: list[str], caption: list[str]) -> None:
            self.films = key, videos, caption

        def log_confusion(self, key: str, counts: list[list[int]], classes: list[str]) -> None:
            self.confusion = key, counts, classes

    picture = Picture(frames=torch.zeros(3, 8, 8, dtype=torch.uint8), link="00-a.mp4")
    content = [
        Gallery(title="Heat maps", groups=[PictureGroup(rows=[("", [picture])])]),
        ConfusionMatrix(counts=torch.tensor([[2, 1], [0, 3]]), classes=["run", "sit"]),
    ]
    part = Result(title="", content=content)
    log_result(Result(title="", parts={"seen": part}), [sink := Filming()], tmp_path)
    assert sink.films == (
        *("test/seen/Heat maps, films", [str(tmp_path / "seen" / "00-a.mp4")], ["00-a"]),
    )
    counts, classes = [[2, 1], [0, 3]], ["run", "sit"]
    assert sink.confusion == ("test/seen/Confusion matrix, chart", counts, classes)
    assert {"test/seen/Heat maps", "test/seen/Confusion matrix"} == sink.images.keys()


def test_right_and_wrong_pictures_have_borders() -> None:
    frame = torch.full((3, 8, 8), 77, dtype=torch.uint8)
    row = [Picture(frames=frame, correct=True), Picture(frames=frame, correct=False)]
    drawn = picture_of(PictureGroup(rows=[(Picture(frames=frame), row)]))
    assert drawn.shape == (14, 8 + 6 + 14 + 6 + 14, 3)
    green, red = drawn[0, 14].astype(int), drawn[0, 34].astype(int)
    assert green[1] > green[0]
    assert red[0] > red[1]
    assert (drawn[3:11, 17:25] == 77).all()
    assert (drawn[:8, :8] == 77).all()
