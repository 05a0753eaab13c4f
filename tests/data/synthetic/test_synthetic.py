"""Synthetic videos: deterministic, readable, and distinguished by their action alone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.synthetic import ACTIONS, generate, scenes
from vclr_lightning.data.synthetic.actions import Shape, distance
from vclr_lightning.data.synthetic.scenes import draw_progress, grid, render


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    generate(folder, train=2, val=1, untrimmed=4, size=32, workers=1)
    return folder


def test_every_action_has_its_videos(root: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        for action in ACTIONS:
            videos = list((root / "videos" / split / action).iterdir())
            assert len(videos) == count
            with av.open(str(videos[0])) as container:
                assert container.streams.video[0].codec_context.codec.name == "h264"
                frames = list(container.decode(video=0))
            assert 24 <= len(frames) <= 48
            assert (frames[0].width, frames[0].height) == (32, 32)


def test_the_same_seed_gives_the_same_files(root: Path, tmp_path: Path) -> None:
    generate(tmp_path, train=2, val=1, untrimmed=4, size=32, workers=2)
    files = sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    for file in files:
        assert (root / file).read_bytes() == (tmp_path / file).read_bytes(), file


def test_one_worker_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process is started")

    for name in ("fork", "posix_spawn"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    killed = tmp_path / "videos" / "train" / "grow" / ".grow_0000.mp4.1.part"
    killed.parent.mkdir(parents=True)
    killed.touch()
    generate(tmp_path, train=1, val=1, untrimmed=1, size=16, workers=1)
    assert len(list(tmp_path.rglob("*.mp4"))) == 17
    assert not killed.exists()


def test_an_existing_set_is_kept_and_never_mixed_with_another(root: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*.mp4")}
    generate(root, train=2, val=1, untrimmed=4, size=32)
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob("*.mp4")}
    with pytest.raises(UserError, match="made with other values"):
        generate(root, train=3, val=1, untrimmed=4, size=32)


@pytest.mark.parametrize("wrong", [{"train": 0}, {"size": 33}, {"contrast": 2.0}, {"seed": -1}])
def test_wrong_values_are_refused(wrong: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        generate(tmp_path, **wrong)


def test_spans_lie_inside_the_untrimmed_videos(root: Path) -> None:
    database = json.loads((root / "untrimmed" / "annotations.json").read_text())["database"]
    assert len(database) == 4
    for name, video in database.items():
        with av.open(str(root / "untrimmed" / f"{name}.mp4")) as container:
            seconds = sum(1 for _ in container.decode(video=0)) / 12
        assert seconds == pytest.approx(video["duration"])
        ends = [0.0]
        for annotation in video["annotations"]:
            begin, end = annotation["segment"]
            assert ends[-1] < begin < end < seconds
            assert annotation["label"] in ACTIONS
            ends.append(end)


def test_every_state_is_part_of_four_actions() -> None:
    states = [state for pair in ACTIONS.values() for state in pair]
    assert {states.count(state) for state in set(states)} == {4}


@pytest.mark.parametrize(("one", "other"), [("grow", "shrink"), ("split", "join")])
def test_reversals_pass_through_the_same_frames(one: str, other: str) -> None:
    x, y = grid(24)
    shape = Shape(lobes=4, bump=0.2, turn=1.0)
    for progress in (0.0, 0.25, 0.5, 0.9, 1.0):
        np.testing.assert_allclose(
            distance(one, progress, x, y, shape),
            distance(other, 1 - progress, x, y, shape),
            atol=1e-6,
        )


def test_a_scene_does_not_reveal_the_action() -> None:
    """With the same randomness, empty pictures of two actions are equal: only objects differ."""
    progress = draw_progress(np.random.default_rng(0), 12)
    pictures = {
        action: render(
            [(action, float(p)) for p in progress], np.random.default_rng(1), size=32, contrast=0.2
        )
        for action in ACTIONS
    }
    differing = np.any([pictures["grow"] != p for p in pictures.values()], axis=(0, 4))
    assert 0.05 < differing.mean() < 0.75


def test_a_single_frame_shows_when_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Water rises from the lowest row on, in the frames of an action and in no others."""
    steps = [None, *[("grow", 0.0)] * 9, None, *[("shrink", 1.0)] * 9]

    def frames() -> np.ndarray:
        return render(steps, np.random.default_rng(5), size=32, contrast=0.0).astype(int)

    wet, levels = frames(), scenes.draw_levels
    monkeypatch.setattr(scenes, "draw_levels", lambda *given: np.full_like(levels(*given), -1))
    under = np.abs(wet - frames()).max(axis=3) > 8  # (T, H, W); a pixel of blur is left out
    heights = under.any(axis=2).sum(axis=1)
    assert heights[0] == heights[10] == 0
    for first in (1, 11):
        during = heights[first : first + 9]
        assert (np.diff(during) >= 0).all()
        assert during[0] <= 4
        assert 15 <= during[-1] <= 24
    for rows, height in zip(under.any(axis=2), heights, strict=True):
        assert rows[32 - height :].all()


def test_the_mean_color_of_a_video_does_not_reveal_the_action() -> None:
    """A nearest neighbour by mean colour stays near chance (1 in 8)."""
    rng = np.random.default_rng(2)
    features, labels = [], []
    for _ in range(40):
        for label, action in enumerate(ACTIONS):
            steps = [(action, float(p)) for p in draw_progress(rng, 24)]
            features.append(render(steps, rng, size=16, contrast=0.12).mean((0, 1, 2)))
            labels.append(label)
    x, y = np.array(features), np.array(labels)
    distances = np.square(x[:, None] - x[None]).sum(-1) + np.diag(np.full(len(x), np.inf))
    assert (y[distances.argmin(1)] == y).mean() < 0.25
