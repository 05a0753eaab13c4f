from __future__ import annotations

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets import read_hmdb51
from vclr_lightning.data.datasets.trimmed import source_of

from .conftest import Write


def test_0_1_and_2_are_unused_train_and_test(write: Write) -> None:
    write("kick_ball_test_split1.txt", "Goal_1_&_2_kick_ball_f_cm_np4_fr_med_0.avi 1 \n")
    write(
        "kick_test_split1.txt", "A_kick_h_nm_np1_le_bad_3.avi 0 \r\nA_kick_u_cm_np1_fr_med_0.avi 2"
    )
    folder = write("kick_test_split2.txt", "A_kick_h_nm_np1_le_bad_3.avi 1 \n")
    official = read_hmdb51(folder)
    assert official.classes == ("kick", "kick_ball")
    assert [(v.stems[0], v.split, v.label, v.group) for v in official.videos] == [
        ("A_kick_h_nm_np1_le_bad_3", "unused", 0, "A"),
        ("A_kick_u_cm_np1_fr_med_0", "test", 0, "A"),
        ("Goal_1_&_2_kick_ball_f_cm_np4_fr_med_0", "train", 1, "Goal_1_&_2"),
    ]
    assert [v.split for v in read_hmdb51(folder, split_number=2).videos] == ["train"]


@pytest.mark.parametrize(
    ("stem", "kind", "source"),
    [
        ("April_09_brush_hair_u_nm_np1_ba_goo_0", "brush_hair", "April_09"),
        ("brushing_hair_brush_hair_f_nm_np2_ba_goo_4", "brush_hair", "brushing_hair"),
        ("Smile_-]_smile_h_nm_np1_fr_goo_0", "smile", "Smile_-]"),
        ("Return_of_the_King_7_shoot_bow_u_nm_np10_ba_med_2", "shoot_bow", "Return_of_the_King_7"),
        ("sit_and_sit_sit_u_cm_np1_le_med_1", "sit", "sit_and_sit"),
        ("of another form", "sit", "of another form"),
    ],
)
def test_sources(stem: str, kind: str, source: str) -> None:
    assert source_of(stem, kind) == source


@pytest.mark.parametrize("line", ["a_sit_u_cm_np1_le_med_1.avi", "a.avi 3", "a.avi one"])
def test_a_line_of_another_form(write: Write, line: str) -> None:
    folder = write("sit_test_split1.txt", f"b.avi 1 \n{line}\n")
    with pytest.raises(UserError, match="line 2: expected a name and 0, 1 or 2"):
        read_hmdb51(folder)


def test_another_data_sets_folder(write: Write) -> None:
    folder = write("classInd.txt", "1 A\n")
    with pytest.raises(UserError, match=r"no \*_test_split1\.txt .*HMDB51.* holds classInd\.txt"):
        read_hmdb51(folder)
