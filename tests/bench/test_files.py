"""Videos re-encoded in the place of their sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vclr_lightning.bench.files import OtherFiles, Reencoded, choose_sources, same_spacing
from vclr_lightning.bench.variants import (
    Case,
    Variant,
    compare_samples,
    other_augmentations,
    other_files,
    with_files,
)
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
    sources = choose_sources(table, range(len(table)), number=2)
    assert len(sources) == 2
    made = Reencoded.make(sources, Recipe(keyframe_every=1, crf=0), tmp_path)
    other = OtherFiles(table, made)
    assert (len(other), other.fingerprint) == (len(table), table.fingerprint)
    for row in range(len(table)):
        moved = row in made.files
        assert (other.path(row) != table.path(row)) is moved
        assert other.label(row) == table.label(row)
        assert other.video_id(row) == table.video_id(row)
        assert other.group_id(row) == table.group_id(row)
        assert other.window(row) is None
        assert moved is (row in {source.row for source in sources})
    dataset = VideoDataset(
        manifest=table,
        reader=PyAVReader(),
        samplers=[TupleSampler(num_segments=3)],
        transform=PretrainTransform(size=32, jitter_p=0, gray_p=0, blur_p=0),
    )
    case = with_files(
        Case(variant=Variant("as it is"), dataset=dataset), made, Variant("x", recipe=Recipe())
    )
    row = sources[0].row
    before, after = dataset[3, row], case.dataset[3, row]
    assert np.array_equal(before["frame_indices"]["anchor"], after["frame_indices"]["anchor"])
    difference = before["views"]["anchor"].float() - after["views"]["anchor"].float()
    assert difference.abs().mean() < 3  # the same pictures, encoded once more
    assert case.bytes_ratio == made.ratio > 0


def test_ways_to_encode_and_augment(table: Manifest) -> None:
    sources = choose_sources(table, [0, 1], number=1)
    ways = other_files(sources)
    assert [way.name for way in ways] == [
        "vclr prepare",
        "vclr prepare --intra",
        "no B-frames, keyframes kept",
    ]
    kept = same_spacing(sources)
    assert kept.short_edge == 48
    assert ways[-1].options == f" --keyframe-every {kept.keyframe_every} --short-edge 48"
    assert ways[1].lines("a b.arrow") == [
        "vclr prepare 'a b.arrow' --out FOLDER --intra",
        "data.manifest=FOLDER/manifest.arrow",
    ]
    assert [way.name for way in other_augmentations("torch")] == [
        "data.augment=opencv",
        "data.augment=device",
    ]


def test_pictures_cannot_be_encoded(tmp_path: Path, table: Manifest) -> None:
    class Folders(OtherFiles):
        def path(self, i: int) -> Path:
            return tmp_path

    with pytest.raises(UserError, match="none of the videos is a file that can be re-encoded"):
        choose_sources(Folders(table, Reencoded({}, 1)), [0, 1], number=2)


def test_cases_take_turns_on_the_same_samples() -> None:
    calls: list[tuple[str, tuple[int, int]]] = []
    cases = {name: lambda key, name=name: calls.append((name, key)) for name in "ab"}
    spent = compare_samples(cases, [5, 7], seconds=0, update=lambda *_: None)
    assert set(spent) == {"a", "b"}
    made = calls[2:]  # each was warmed up
    assert [key for name, key in made if name == "a"] == [(1, 5), (1, 7), (2, 5), (2, 7)]
    assert sorted(made) == sorted(
        (name, key) for name in "ab" for key in [(1, 5), (1, 7), (2, 5), (2, 7)]
    )
    assert {made[0][0], made[4][0]} == {"a", "b"}  # another begins each round
