from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.datasets import read_activitynet
from vclr_lightning.data.manifest import Span

from .conftest import Write

VIDEOS: Mapping[str, Any] = {
    "--aaaaaaaaa": {
        "subset": "training",
        "duration": 30.0,
        "annotations": [
            {"segment": [20.5, 31.0], "label": "Tai chi"},
            {"segment": [2, 8.25], "label": "Baking cookies"},
            {"segment": [0, 0], "label": "Tai chi"},
        ],
    },
    "v_bbbbbbbbb": {
        "subset": "validation",
        "duration": 9.0,
        "annotations": [{"segment": [1.0, 2.0], "label": "Baking cookies"}],
    },
    "ccccccccccc": {"subset": "testing", "duration": 5.0, "annotations": []},
}


@pytest.fixture
def official(write: Write) -> Path:
    return write("activity_net.v1-3.min.json", {"database": VIDEOS, "version": "1.3"})


@pytest.fixture
def action(tmp_path: Path, write: Write) -> Path:
    subsets = "".join(f"v_{name},1,{v['subset']}\r\n" for name, v in VIDEOS.items())
    write("video_info_new.csv", "video,numFrame,subset\r\n" + subsets)
    content = {f"v_{name}": {"annotations": v["annotations"]} for name, v in VIDEOS.items()}
    return write("anet_anno_action.json", content)


@pytest.mark.parametrize("form", ["official", "action"])
def test_views(form: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(form)
    clips = read_activitynet(folder)
    assert clips.classes == ("Baking cookies", "Tai chi")
    assert [(v.stems[0], v.split, v.label, v.start, v.end, v.group) for v in clips.videos] == [
        ("v_--aaaaaaaaa", "train", 1, 20.5, 31.0, "--aaaaaaaaa"),
        ("v_--aaaaaaaaa", "train", 0, 2, 8.25, "--aaaaaaaaa"),
        ("v_v_bbbbbbbbb", "val", 0, 1, 2, "v_bbbbbbbbb"),
    ]
    assert [reject.path for reject in clips.rejected] == ["--aaaaaaaaa_0.00_0.00"]
    assert dict(clips.left_out) == {"videos of test without annotated clips": 1}
    videos = read_activitynet(folder, view="videos")
    assert [(v.name, v.split, v.label, v.start, v.spans) for v in videos.videos] == [
        ("--aaaaaaaaa", "train", 1, None, ()),
        ("v_bbbbbbbbb", "val", 0, None, ()),
        ("ccccccccccc", "test", -1, None, ()),
    ]
    spans = read_activitynet(folder, view="localization")
    assert [v.spans for v in spans.videos] == [
        (Span(2.0, 8.25, 0), Span(20.5, 31.0, 1)),
        (Span(1.0, 2.0, 0),),
        (),
    ]
    assert spans.left_out.total() == 1


@pytest.mark.parametrize("header", ["action\n", ""])
def test_order_of_classes(official: Path, write: Write, header: str) -> None:
    write("action_name.csv", f"{header}Tai chi\nBaking cookies")
    assert read_activitynet(official).classes == ("Tai chi", "Baking cookies")
    write("action_name.csv", f"{header}Tai chi\n")
    with pytest.raises(UserError, match="lacks the class 'Baking cookies'"):
        read_activitynet(official)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"videos": {}}, "has no 'database'"),
        ({"database": {"a": {"subset": "dev", "annotations": []}}}, "a has the subset 'dev'"),
        ({"database": {"a": {"subset": "training", "annotations": [{"label": "x"}]}}}, "segments"),
    ],
)
def test_mistakes(write: Write, content: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_activitynet(write("activity_net.v1-3.min.json", content))


def test_a_video_of_no_subset(action: Path, write: Write) -> None:
    write("video_info_new.csv", "video,subset\n")
    with pytest.raises(UserError, match="does not give the subset of v_--aaaaaaaaa"):
        read_activitynet(action)
    write("video_info_new.csv", "video\n")
    with pytest.raises(UserError, match="lacks columns subset"):
        read_activitynet(action)
