"""Published annotations and features, and mistakes in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.localization import (
    AnnotatedVideo,
    LocalizationData,
    SnippetFiles,
    checked,
    place,
    read_annotations,
)
from vclr_lightning.functional.boundary_matching import resample_snippets


def video(name: str, *spans: tuple[float, float], duration: float = 10.0) -> AnnotatedVideo:
    return AnnotatedVideo(
        name=name,
        split="train",
        duration=duration,
        covered=duration,
        spans=np.array(spans, dtype=np.float64).reshape(-1, 2),
        labels=("run",) * len(spans),
    )


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


RUN = [{"segment": [1, 4.5], "label": "run"}]


def test_both_forms_say_the_same(tmp_path: Path) -> None:
    official = {"abc": {"duration": 20.0, "subset": "validation", "annotations": RUN}}
    mine = {
        "v_abc": {
            "duration_second": 20.0,
            "duration_frame": 500,
            "feature_frame": 480,
            "annotations": RUN,
        }
    }
    (one,) = read_annotations(write(tmp_path / "a.json", {"database": official}))
    flat = write(tmp_path / "anet_anno_action.json", mine)
    (two,) = read_annotations({"val": str(flat)})
    (tmp_path / "video_info_new.csv").write_text(
        "video,numFrame,seconds,fps,rfps,subset,featureFrame\nv_abc,500,20,25,25,validation,480\n"
    )
    (three,) = read_annotations(tmp_path)
    for found in (one, two, three):
        assert (found.name, found.split, found.labels) == ("abc", "val", ("run",))
        assert (found.duration, found.spans.tolist()) == (20.0, [[1.0, 4.5]])
    # The features of the latter end before the video does.
    assert (one.covered, two.covered, three.covered) == (20.0, 19.2, 19.2)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"database": []}, "no 'database'"),
        ([1], "must map videos"),
        ({"v_a": {}}, "does not say which videos are for training"),
        ({"database": {"a": {"subset": "never"}}}, "of no known subset"),
        (
            {"database": {"a": {"subset": "training", "annotations": [{"segment": [1]}]}}},
            "not segments with a label",
        ),
    ],
)
def test_files_of_another_form(tmp_path: Path, content: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_annotations(write(tmp_path / "a.json", content))


def test_impossible_annotations_are_listed() -> None:
    wrong = video("a", (5, 2), (3, 3), (11, 12), (float("nan"), 2), (8, 12), (-1, 2), (1, 4))
    kept, left_out = checked([wrong, video("b", (1, 2), duration=float("nan"))])
    assert [v.name for v in kept] == ["a"]
    assert kept[0].spans.tolist() == [[8, 10], [0, 2], [1, 4]]
    assert kept[0].labels == ("run",) * 3
    assert [(item.video, item.kind) for item in left_out] == [
        *[("a", "annotation left out")] * 4,
        *[("a", "annotation cut")] * 2,
        ("b", "video left out"),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Features in the forms that others publish: 10 rows stand at their positions already."""
    rng = np.random.default_rng(0)
    for name, rows in (("v_a", 10), ("b", 7), ("c", 1)):
        table = rng.standard_normal((rows, 4)).astype(np.float32)
        np.savetxt(tmp_path / f"{name}.csv", table, delimiter=",", header="0,1,2,3", comments="")
    np.save(tmp_path / "v_d.npy", rng.standard_normal((30, 4)))
    np.save(tmp_path / "e.npy", np.full((10, 4), np.nan))
    (tmp_path / "readme.txt").write_text("other files do not matter")
    return tmp_path


def test_files_are_placed(folder: Path) -> None:
    videos = [video(name, (1, 4)) for name in "abcdef"]
    snippets = SnippetFiles(folder).open(videos)
    assert [(item.video, item.kind) for item in snippets.left_out] == [("f", "video left out")]
    placed, left_out = place(videos, snippets, positions=10)
    assert [v.name for v in placed.videos] == ["a", "b", "c", "d"]
    assert [(item.video, item.reason) for item in left_out] == [
        ("e", "its features are not finite")
    ]
    published = torch.from_numpy(np.loadtxt(folder / "v_a.csv", delimiter=",", skiprows=1)).float()
    assert torch.equal(placed.features[0], published)
    assert torch.equal(placed.features[1], resample_snippets(snippets.read["b"](), 10))
    assert torch.equal(placed.features[3], resample_snippets(snippets.read["d"](), 10))


def test_features_that_do_not_fit(folder: Path) -> None:
    np.save(folder / "g.npy", np.zeros((10, 5)))
    np.save(folder / "h.npy", np.zeros(10))
    (folder / "i.csv").write_text("0,1\nno,number\n")
    with pytest.raises(UserError, match="snippets of g have 5 features, those of a 4"):
        place(v := [video("a"), video("g")], SnippetFiles(folder).open(v), positions=10)
    for name, words in (("h", "has the shape (10,)"), ("i", "no table of features")):
        placed, (lost,) = place(v := [video(name)], SnippetFiles(folder).open(v), positions=10)
        assert len(placed) == 0
        assert lost.video == name
        assert words in lost.reason
    with pytest.raises(UserError, match="does not exist"):
        SnippetFiles(folder / "none")
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=r"no \.csv and \.npy files"):
        SnippetFiles(folder / "empty")
    with pytest.raises(UserError, match="give annotations=FILE"):
        SnippetFiles(folder).annotations()


def test_batches_and_a_checkpoint_of_other_features(folder: Path) -> None:
    videos = [video(name, (1, 4)) for name in "abcd"]
    placed, _ = place(videos, SnippetFiles(folder).open(videos), positions=10)
    data = LocalizationData(placed, batch_size=2)
    batches = list(data.train_dataloader())
    assert len(batches) == 2
    assert batches[0]["features"].shape == (2, 4, 10)
    assert batches[0]["iou"].shape == (2, 10, 10)
    rows = torch.cat([batch["video_id"] for batch in batches])
    assert sorted(rows.tolist()) == [0, 1, 2, 3]
    state = data.state_dict()
    data.load_state_dict(state)
    shorter, _ = place(videos[:3], SnippetFiles(folder).open(videos), positions=10)
    with pytest.raises(UserError, match="other features or annotations"):
        LocalizationData(shorter).load_state_dict(state)
