"""Transforms by view, sharing keys, and targets that transforms make: from a video to a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vclr_lightning.core.errors import CodeFault, UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.core.types import Draw, ViewSpec
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.manifest import Manifest
from vclr_lightning.data.protocols import ClipTransform, VideoReader
from vclr_lightning.data.sampling import SegmentSampler, TupleSampler
from vclr_lightning.data.transforms import PretrainTransform
from vclr_lightning.data.transforms.puzzle_transform import PuzzleTransform

Make = Callable[..., VideoDataModule]
Decode = Callable[[Path], list[NDArray[np.uint8]]]
TUPLES = {"tuples": TupleSampler(num_segments=2, frames_per_clip=3)}


@dataclass(frozen=True, kw_only=True)
class Rotated:
    """Turns a clip by a drawn number of quarter turns, which is to be predicted."""

    wrong: str = ""
    targets: tuple[str, ...] = ("turns", "point")
    size = 16

    def __call__(self, clip: Any, rng: np.random.Generator) -> Any:
        turns = int(rng.integers(4))
        wrong = self.wrong if any(frame.any() for frame in clip) else ""  # not when it is tried
        point = np.zeros(3 if wrong == "shape" else 2)
        if wrong == "text":
            return torch.zeros(3, len(clip), 16, 16, dtype=torch.uint8), {
                "turns": "one",
                "point": 0,
            }
        made = {"turns": turns} if self.wrong == "name" else {"turns": turns, "point": point}
        turned = torch.rot90(PretrainTransform(size=16)(clip, rng), turns, (2, 3))
        return turned if wrong == "alone" else (turned, made)


@dataclass(frozen=True)
class Long:
    """Draws one frame of videos that are not short."""

    min_frames: int

    @property
    def views(self) -> Mapping[str, ViewSpec]:
        return {"clip": ViewSpec(clips=1)}

    def __call__(self, num_frames: int, rng: np.random.Generator) -> Draw:
        return Draw(frame_indices={"clip": rng.integers(0, num_frames, (1, 1))})


@pytest.fixture
def make(
    manifest: Manifest, reader: VideoReader, transform: ClipTransform, eval_transform: ClipTransform
) -> Make:
    def build(**changes: Any) -> VideoDataModule:
        given: dict[str, Any] = {
            "train": manifest,
            "val": manifest,
            "samplers": TUPLES,
            "transform": transform,
            "eval_transform": eval_transform,
            "reader": reader,
            "batch_size": 6,
            "num_workers": 0,
            "seed": 9,
        }
        return VideoDataModule(**{**given, **changes})

    return build


def batches(data: VideoDataModule) -> list[Any]:
    """The batches of an epoch, as a module gets them."""
    loader, cpu = data.train_dataloader(), torch.device("cpu")
    loaded = [data.transfer_batch_to_device(batch, cpu, 0) for batch in loader]
    data.teardown("fit")
    return loaded


def clip(frames: list[NDArray[np.uint8]], indices: Any) -> list[NDArray[np.uint8]]:
    return [frames[i] for i in np.ravel(indices).tolist()]


def test_each_view_has_its_own_transform(make: Make, manifest: Manifest, decode: Decode) -> None:
    """Weak and strong, small and large, side by side: as by each alone."""
    small = PretrainTransform(size=16, scale=(0.05, 0.3))
    batch = batches(make(transforms={"positive": small, "extra": small}))[0]
    sizes = {name: view.shape[-1] for name, view in batch["views"].items()}
    assert sizes == {"anchor": 32, "positive": 16, "second": 32, "extra": 16}
    row = int(batch["index"][1])
    frames, chosen = decode(manifest.path(row)), batch["frame_indices"]["positive"][1, 1]
    rng = numpy_generator(9, 0, row, 0, "augment", "positive", 1)
    assert torch.equal(batch["views"]["positive"][1, 1], small(clip(frames, chosen), rng))
    plain = batches(make())[0]
    assert torch.equal(plain["views"]["anchor"], batch["views"]["anchor"])


@pytest.mark.parametrize("augment", ["torch", "device"])
def test_clips_of_one_key_are_augmented_as_one_clip(
    make: Make, manifest: Manifest, decode: Decode, transform: PretrainTransform, augment: str
) -> None:
    """Across views, but only with one transform; the rest as ever."""
    small = PretrainTransform(size=16)
    data = make(
        share={"anchor": "k", "second": "k", "extra": "k"},
        transforms={"extra": small},
        augment=augment,
    )
    batch, plain = batches(data)[1], batches(make(transforms={"extra": small}))[1]
    assert torch.equal(batch["views"]["positive"], plain["views"]["positive"])
    row = int(batch["index"][2])
    frames = decode(manifest.path(row))
    of = {name: indices[2].numpy() for name, indices in batch["frame_indices"].items()}
    together = clip(frames, [*of["anchor"].ravel(), *of["second"].ravel()])
    expected = transform(together, numpy_generator(9, 0, row, 0, "augment", "k"))
    joined = torch.cat([*batch["views"]["anchor"][2], *batch["views"]["second"][2]], dim=1)
    assert torch.equal(joined, expected)
    alone = small(clip(frames, of["extra"]), numpy_generator(9, 0, row, 0, "augment", "k"))
    assert torch.equal(batch["views"]["extra"][2, 0], alone)


def test_a_sampler_says_what_is_shared_and_share_has_the_last_word(make: Make) -> None:
    class Together(SegmentSampler):
        @property
        def views(self) -> Mapping[str, ViewSpec]:
            return {"segments": ViewSpec(clips=self.num_segments, share="video")}

    plain = {"a": SegmentSampler(num_segments=3)}
    shared = {"a": Together(num_segments=3)}

    def seen(samplers: Any, share: Any = None) -> Tensor:
        loaded = batches(make(samplers=samplers, share=share))
        return torch.cat([batch["views"]["segments"] for batch in loaded])

    assert torch.equal(seen(shared), seen(plain, {"segments": "video"}))
    assert torch.equal(seen(shared, {"segments": None}), seen(plain))
    assert not torch.equal(seen(shared), seen(plain))


@pytest.mark.parametrize("augment", ["torch", "device"])
@pytest.mark.parametrize("share", [None, {"anchor": "k", "second": "k"}])
def test_a_transform_makes_targets(make: Make, augment: str, share: Any) -> None:
    own = dict.fromkeys(("anchor", "second"), Rotated())
    data = make(transforms=own, share=share, augment=augment)
    for batch in batches(data):
        turns = batch["targets"]["anchor.turns"]
        assert turns.shape == (6, 2)
        assert batch["targets"]["second.turns"].shape == (6, 1)
        assert batch["targets"]["anchor.point"].shape == (6, 2, 2)
        assert batch["targets"]["shuffled"].shape == (6,)
        assert {name.split(".")[0] for name in batch["targets"] if "." in name} == set(own)
        if share:
            assert (turns == batch["targets"]["second.turns"]).all()
        use = ("k",) if share else ("anchor", 1)
        rng = numpy_generator(9, 0, int(batch["index"][0]), 0, "augment", *use)
        assert int(turns[0, 1]) == rng.integers(4)


def test_only_transforms_that_can_be_split_are_begun(make: Make) -> None:
    own = {"second": Rotated()}
    data = make(transforms=own, augment="device")
    batch = next(iter(data.train_dataloader()))
    data.teardown("fit")
    assert set(batch["views"]) == {"second"}
    assert set(batch["begun"]) == set(batch["augmentations"]) == {"anchor", "positive", "extra"}
    whole, finished = (
        batches(make(transforms=own, augment=augment)) for augment in ("torch", "device")
    )
    for one, other in zip(whole, finished, strict=True):
        assert one["views"].keys() == other["views"].keys()
        assert all(torch.equal(view, other["views"][name]) for name, view in one["views"].items())
        assert torch.equal(one["targets"]["second.turns"], other["targets"]["second.turns"])


@pytest.mark.parametrize(
    ("wrong", "how"),
    [
        ("shape", r"ValueError: its target point has the shape \(3,\), not \(2,\)"),
        ("text", r"TypeError: its target turns holds <U3, not numbers"),
        ("alone", r"TypeError: it returns Tensor .*, not \(clip, targets\)"),
    ],
)
def test_a_mistake_in_a_target_is_the_transforms(
    make: Make, manifest: Manifest, wrong: str, how: str
) -> None:
    dataset = make(transforms={"second": Rotated(wrong=wrong)}).train_dataset()
    with pytest.raises(CodeFault, match=rf"^Rotated \(.*\.py:\d+\) fails on .*: {how}") as info:
        dataset[0, 3]
    assert str(manifest.path(3)) in str(info.value)


def test_a_transform_is_tried_before_anything_is_loaded(make: Make) -> None:
    with pytest.raises(CodeFault, match=r"makes the targets \['turns'\], not \['point', 'turns'\]"):
        make(transforms={"second": Rotated(wrong="name")}).train_dataset()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transforms": {"clip": Rotated()}}, "transforms names clip, which no sampler yields; t"),
        ({"transforms": {"anchor": None}}, "transforms.anchor is null, not a transform; give it"),
        ({"transforms": ["anchor"]}, "transforms must be a mapping from names to transforms, not"),
        ({"transforms": {"anchor": partial(Rotated)}}, "leave out its _partial_"),
        ({"share": {"anchor": 1.5}}, "share.anchor is 1.5, not a sharing key; give it a word"),
        ({"share": ["anchor"]}, "share must be a mapping from names to sharing keys, not"),
        ({"share": {"clip": "k"}}, r"share names clip, which no sampler yields; .* anchor, extra"),
    ],
)
def test_views_that_there_are_not_are_named(make: Make, changes: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**changes).train_dataset()


def test_a_target_that_nothing_makes_is_named(make: Make) -> None:
    with pytest.raises(UserError, match=r"nothing makes the target pace; .* anchor_order, positi"):
        make().train_dataset(["anchor"], ["pace"])
    own = {"second": Rotated()}
    make(transforms=own).train_dataset(["second"], ["second.turns"])
    with pytest.raises(UserError, match=r"nothing makes the target second\.turns"):
        make(transforms=own).train_dataset(["anchor"], ["second.turns"])


def test_short_videos_are_left_out(
    make: Make,
    make_manifest: Callable[..., Manifest],
    video_folder: Path,
    decode: Decode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before training where their length is known, and like unreadable ones where it is not."""
    unknown = make_manifest(video_folder)
    counts = {unknown.name(i): len(decode(unknown.path(i))) for i in range(18)}
    least = sorted(counts.values())[9]
    half = {name: count for i, (name, count) in enumerate(counts.items()) if i % 2}
    data = make(
        train=make_manifest(video_folder, num_frames=half),
        samplers={"long": Long(least)},
        batch_size=1,
    )
    with caplog.at_level("INFO"):
        loaded = batches(data)
    kept = [name for name, count in counts.items() if name not in half or count >= least]
    left = [data.train.path(i).stem for i in range(len(data.train))]
    assert left == kept
    assert len(kept) < 18
    assert f"{18 - len(kept)} of 18 training videos have fewer than {least} fra" in caplog.text
    seen = {unknown.name(int(batch["video_id"][0])) for batch in loaded}
    assert all(counts[name] >= least for name in seen)
    reasons = {r["reason"] for batch in loaded for r in batch["rejected"]}
    assert reasons
    assert all(reason.endswith(f"the sampler long needs {least}") for reason in reasons)
    table = make_manifest(video_folder, num_frames=counts)
    said = (
        r"18 of 18 training videos have fewer than 999 frames, which the samplers long need; take"
    )
    with pytest.raises(UserError, match=said):
        make(train=table, samplers={"long": Long(999), "all": TupleSampler()}).train_dataloader()


def test_pairs_do_not_depend_on_the_method(make: Make) -> None:
    pairs = TupleSampler(num_segments=4)
    one, other = (
        list(make(samplers=samplers, pair_sampler=pairs).pair_loader())
        for samplers in (TUPLES, {"long": Long(999)})
    )
    for a, b in zip(one, other, strict=True):
        assert a["views"].keys() == {"anchor", "positive"}
        assert a["views"]["anchor"].shape[1] == 4
        assert all(torch.equal(view, b["views"][name]) for name, view in a["views"].items())
    with pytest.raises(UserError, match="no sampler yields the view anchor, positive"):
        make(samplers={"long": Long(1)}).pair_loader()


def test_what_training_sees_first_can_be_looked_at(make: Make) -> None:
    data = make(batch_size=1, augment="device")
    first = {int(batch["index"][0]): batch for batch in batches(data)}
    (seen,) = data.seen_loader([3, 11], ["second"])
    assert seen["index"].tolist() == [3, 11]
    for i, row in enumerate((3, 11)):
        assert torch.equal(seen["views"]["second"][i], first[row]["views"]["second"][0])


def test_a_transform_of_several_clips_is_tried_with_all_of_them(make: Make) -> None:
    """Such as a puzzle, whose pieces are the clips of a view."""
    puzzle = PuzzleTransform(size=16, region=40)
    samplers = {"a": SegmentSampler(num_segments=4, frames_per_clip=2)}
    data = make(samplers=samplers, transforms={"segments": puzzle}, share={"segments": "video"})
    assert data.train_dataset().transforms.targets == {"segments.permutation"}
    for batch in batches(data):
        permutation = batch["targets"]["segments.permutation"]
        assert batch["views"]["segments"].shape == (6, 4, 3, 2, 16, 16)
        assert (permutation == permutation[:, :1]).all()
    with pytest.raises(UserError, match="give the view 4 clips and one sharing key"):
        make(samplers=samplers, transforms={"segments": puzzle}).train_dataset()
