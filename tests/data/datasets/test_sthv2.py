from __future__ import annotations

from pathlib import Path

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets import read_sthv2

from .conftest import Write

LABELS = {"Holding something": "1", "Approaching something with your camera": "0"}


@pytest.fixture
def folder(write: Write) -> Path:
    write("something-something-v2-labels.json", LABELS)
    write("train.json", [{"id": "78687", "template": "Holding [something]", "label": "x"}])
    return write(
        "validation.json", [{"id": "5", "label": "no template"}, {"id": 6, "template": ""}]
    )


def test_templates_lose_their_brackets_and_may_be_missing(folder: Path) -> None:
    official = read_sthv2(folder)
    assert official.classes == ("Approaching something with your camera", "Holding something")
    assert [(v.stems, v.split, v.label) for v in official.videos] == [
        (("78687",), "train", 1),
        (("5",), "val", -1),
        (("6",), "val", -1),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n", ""])
def test_answers_of_the_test_split(folder: Path, write: Write, end: str) -> None:
    write("test.json", [{"id": "1"}, {"id": "2"}])
    assert [v.label for v in read_sthv2(folder).videos if v.split == "test"] == [-1, -1]
    write("test-answers.csv", "2;Holding something" + end)
    assert [v.label for v in read_sthv2(folder).videos if v.split == "test"] == [-1, 1]
    write("test-answers.csv", "2,Holding something")
    with pytest.raises(UserError, match="line 1: expected id;template"):
        read_sthv2(folder)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train.json", [{"id": "1", "template": "Eating [something]"}], "is 'Eating something'"),
        ("train.json", {"id": "1"}, "must be a list of videos"),
        ("train.json", "[", "is no JSON file"),
        ("something-something-v2-labels.json", {"A": "0", "B": "2"}, "from 0 to 1"),
        ("something-something-v2-labels.json", ["A"], "must map class names"),
    ],
)
def test_mistakes(folder: Path, write: Write, name: str, content: object, said: str) -> None:
    write(name, content)
    with pytest.raises(UserError, match=said):
        read_sthv2(folder)


def test_labels_without_any_split(write: Write) -> None:
    with pytest.raises(UserError, match=r"no \*train\*\.json or \*validation\*\.json"):
        read_sthv2(write("labels.json", LABELS))
