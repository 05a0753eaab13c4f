"""Alternatives that are measured: videos re-encoded in place of their sources."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vclr_lightning.bench.alternatives import compare_samples
from vclr_lightning.bench.reencoding import choose_sources, reencode, reencodings
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.indexing import ensure_manifest
from vclr_lightning.data.loading.dataset import VideoDataset
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.data.prepare import Recipe
from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.transforms import PretrainTransform


@pytest.fixture
def table(video_folder: Path, tmp_path: Path) -> Manifest:
    return ensure_manifest(video_folder, cache_dir=tmp_path / "cache", workers=1, show=False)


def test_other_files_hold_the_same_frames_and_the_rest_stays(
    table: Manifest, tmp_path: Path
) -> None:
    sources = choose_sources(table, [0, 1], seconds=60)
    assert {source.row for source in sources} == {0, 1}
    other, ratio = reencode(table, sources, Recipe(keyframe_every=1, crf=0), tmp_path)
    assert (len(other), other.fingerprint) == (len(table), table.fingerprint)
    for row in range(len(table)):
        assert (other.path(row) != table.path(row)) is (row < 2)
        assert other.label(row) == table.label(row)
        assert other.video_id(row) == table.video_id(row)
        assert other.group_id(row) == table.group_id(row)
        assert other.window(row) is None
    dataset = VideoDataset(
        manifest=table,
        reader=PyAVReader(),
        samplers={"tuples": TupleSampler(num_segments=3)},
        transform=PretrainTransform(size=32, jitter_p=0, gray_p=0, blur_p=0),
    )
    before, after = dataset[3, 0], dataset.replaced(manifest=other)[3, 0]
    assert np.array_equal(before["frame_indices"]["anchor"], after["frame_indices"]["anchor"])
    difference = before["views"]["anchor"].float() - after["views"]["anchor"].float()
    assert difference.abs().mean() < 3  # the same pictures, encoded once more
    assert ratio > 0


def test_ways_to_encode(table: Manifest) -> None:
    ways = reencodings(choose_sources(table, [0], seconds=60))
    assert list(ways) == ["vclr prepare", "vclr prepare --intra", "no B-frames, keyframes kept"]
    options, recipe = ways["no B-frames, keyframes kept"]
    assert recipe.short_edge == 48
    assert options == f" --keyframe-every {recipe.keyframe_every} --short-edge 48"
    assert ways["vclr prepare --intra"] == (" --intra", Recipe(keyframe_every=1))


def test_no_more_videos_than_there_is_time_for(table: Manifest) -> None:
    rows = range(len(table))
    assert len(choose_sources(table, rows, seconds=60)) == 3
    cost = choose_sources(table, rows, seconds=60)[0].seconds
    assert len(choose_sources(table, rows, seconds=3 * cost)) == 1
    with pytest.raises(UserError, match=r"would take \d+ s: give more --seconds"):
        choose_sources(table, rows, seconds=cost)


def test_images_cannot_be_encoded(tmp_path: Path, table: Manifest) -> None:
    folders = SimpleNamespace(path=lambda row: tmp_path)
    with pytest.raises(UserError, match="none of the videos is a file that can be re-encoded"):
        choose_sources(folders, [0, 1], seconds=60)


def test_datasets_take_turns_on_the_same_samples() -> None:
    calls: list[tuple[str, tuple[int, int]]] = []
    cases = {name: lambda key, name=name: calls.append((name, key)) for name in "ab"}
    spent = compare_samples(cases, [5, 7], seconds=0)
    assert set(spent) == {"a", "b"}
    made = calls[2:]  # each was warmed up
    assert [key for name, key in made if name == "a"] == [(1, 5), (1, 7), (2, 5), (2, 7)]
    assert sorted(made) == sorted(
        (name, key) for name in "ab" for key in [(1, 5), (1, 7), (2, 5), (2, 7)]
    )
    assert {made[0][0], made[4][0]} == {"a", "b"}  # another begins each round
