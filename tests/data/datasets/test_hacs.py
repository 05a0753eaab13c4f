from __future__ import annotations

from pathlib import Path

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets import read_hacs
from vclr_lightning.data.manifest import Span

from .conftest import Write

CSV = """classname,youtube_id,subset,start,end,label\r
Archery,a2X2hz1G6i8,training,15.5,17.5,1\r
Archery,NUdji_CqvcY,training,77.5,79.5,-1\r
Tai chi,a2X2hz1G6i8,training,20.0,22.0,1\r
Tai chi,a2X2hz1G6i8,training,24.0,26.0,1\r
,0O_qMHxBfXg,testing,24.5,26.5,0"""


@pytest.fixture
def folder(write: Write) -> Path:
    write("HACS_clips_v1.1.1.csv", CSV)
    dodge = [{"label": "Dodgeball", "segment": [12.6, 88.16]}]
    video = {"annotations": dodge, "subset": "training", "duration": "92.166667"}
    return write("HACS_segments_v1.1.1.json", {"database": {"--0edUL8zmA": video}})


def test_clips(folder: Path) -> None:
    official = read_hacs(folder)
    assert official.classes == ("Archery", "Tai chi")
    assert [(v.stems[0], v.split, v.label, v.start, v.end) for v in official.videos] == [
        ("v_a2X2hz1G6i8", "train", 0, 15.5, 17.5),
        ("v_a2X2hz1G6i8", "train", 1, 20.0, 22.0),
        ("v_a2X2hz1G6i8", "train", 1, 24.0, 26.0),
        ("v_0O_qMHxBfXg", "test", -1, 24.5, 26.5),
    ]
    assert official.left_out.total() == 1


def test_videos_have_the_class_of_most_of_their_clips(folder: Path) -> None:
    official = read_hacs(folder, view="videos")
    assert [(v.name, v.split, v.label) for v in official.videos] == [
        ("a2X2hz1G6i8", "train", 1),
        ("NUdji_CqvcY", "train", -1),
        ("0O_qMHxBfXg", "test", -1),
    ]


def test_segments_and_localization(folder: Path) -> None:
    (clip,) = read_hacs(folder, view="segments").videos
    assert (clip.start, clip.end, clip.label, clip.split) == (12.6, 88.16, 0, "train")
    (video,) = read_hacs(folder, view="localization").videos
    assert (video.start, video.spans) == (None, (Span(12.6, 88.16, 0),))


@pytest.mark.parametrize(
    "line", ["Archery,a,training,5,5,1", "Archery,a,dev,5,6,1", "Archery,a,training,x,6,1"]
)
def test_mistakes(write: Write, line: str) -> None:
    folder = write("HACS_clips_v1.1.1.csv", CSV.split("\r\n")[0] + "\n" + line)
    with pytest.raises(UserError, match="line 2: expected classname"):
        read_hacs(folder)


def test_a_short_line(write: Write) -> None:
    folder = write("HACS_clips_v1.1.1.csv", CSV.split("\r\n")[0] + "\nArchery,a\n")
    with pytest.raises(UserError, match="line 2: expected classname"):
        read_hacs(folder)


def test_a_view_needs_only_its_own_file(folder: Path) -> None:
    (folder / "HACS_clips_v1.1.1.csv").unlink()
    assert read_hacs(folder, view="segments").videos
    with pytest.raises(UserError, match=r"no HACS_clips\*\.csv among"):
        read_hacs(folder)
