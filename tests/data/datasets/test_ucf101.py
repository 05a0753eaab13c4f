from __future__ import annotations

from pathlib import Path

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets import read_ucf101

from .conftest import Write

CLASSES = "1 HandstandPushups\r\n2 Yo Yo\r\n"
TRAIN = "HandstandPushups/v_HandStandPushups_g08_c01.avi 1\r\nYo Yo/v_Yo Yo_g25_c03.avi 2\r\n"
TEST = "HandstandPushups/v_HandStandPushups_g01_c02.avi\r\nYo Yo/v_Yo Yo_g01_c01.avi"


@pytest.fixture
def folder(write: Write) -> Path:
    write("classInd.txt", CLASSES)
    write("trainlist01.txt", TRAIN)
    return write("testlist01.txt", TEST)


def test_labels_count_from_0_and_groups_are_of_a_class(folder: Path) -> None:
    official = read_ucf101(folder)
    assert official.classes == ("HandstandPushups", "Yo Yo")
    assert [(v.stems, v.split, v.label, v.group) for v in official.videos] == [
        (("v_HandStandPushups_g08_c01",), "train", 0, "v_HandStandPushups_g08"),
        (("v_Yo Yo_g25_c03",), "train", 1, "v_Yo Yo_g25"),
        (("v_HandStandPushups_g01_c02",), "test", 0, "v_HandStandPushups_g01"),
        (("v_Yo Yo_g01_c01",), "test", 1, "v_Yo Yo_g01"),
    ]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "  \r\n", "\n\n"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_do_not_matter(folder: Path, write: Write, ends: str, last: bool) -> None:
    expected = read_ucf101(folder)
    for name, text in (("classInd", CLASSES), ("trainlist01", TRAIN), ("testlist01", TEST)):
        write(f"{name}.txt", ends.join(text.split("\r\n")).rstrip() + ends * last)
    assert read_ucf101(folder) == expected


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("classInd.txt", "Archery\n", "expected a number and a class"),
        ("classInd.txt", "1 A\n3 B\n", "does not number its classes from 1 to 2"),
        ("classInd.txt", "\n", "is empty"),
        ("trainlist01.txt", "Yo Yo/v_Yo Yo_g25_c03.avi 1\n", "class 1 is not the folder"),
        ("trainlist01.txt", "Yo Yo/v_Yo Yo_g25_c03.avi 9\n", "there is no class 9"),
        ("testlist01.txt", "Swing/v_Swing_g25_c03.avi\n", "no class of .* is the folder of"),
    ],
)
def test_mistakes_name_file_and_line(
    folder: Path, write: Write, name: str, text: str, said: str
) -> None:
    write(name, text)
    with pytest.raises(UserError, match=said) as error:
        read_ucf101(folder)
    assert str(folder) in str(error.value)


def test_a_missing_file_lists_what_exists(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no trainlist02\.txt among .* which holds classInd\.txt"):
        read_ucf101(folder, split_number=2)
