"""Instance retrieval, which needs no labels, and features that need no network."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from vclr_lightning.core.errors import UserError
from vclr_lightning.data.protocols import VideoError
from vclr_lightning.data.sampling.tuple_sampler import TupleSampler
from vclr_lightning.data.transforms import EvalTransform, PretrainTransform
from vclr_lightning.functional.pixels import pixel_statistics
from vclr_lightning.models import TinyBackbone
from vclr_lightning.stages.features.extractor import FeatureExtractor
from vclr_lightning.stages.retrieval.instance import instance_retrieval
from vclr_lightning.stages.shared.data import video_data
from vclr_lightning.stages.trivial_features import trivial_features


@pytest.fixture(scope="module")
def features(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    data = video_data(
        root=video_folder,
        cache_dir=(cache := tmp_path_factory.mktemp("cache")),
        group_regex=r"(\w+_g\d+)_c",
        holdout=0.34,
        samplers={},
        pair_sampler=TupleSampler(num_segments=2),
        transform=PretrainTransform(size=32),
        eval_transform=EvalTransform(size=32, resize=32),
        batch_size=4,
        num_workers=0,
        eval_frames=5,
    )
    torch.manual_seed(0)
    return FeatureExtractor(
        data=data,
        weights="none",
        backbone=TinyBackbone(width=8, stages=2),
        num_frames=5,
        transform=EvalTransform(size=32, resize=32),
        cache_dir=cache,
        show=False,
    )


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("number", [1, 2])
def test_draws_of_each_video_are_looked_up_both_ways(
    number: int, features: FeatureExtractor, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    found = instance_retrieval(features=features, directory=tmp_path, draws=number)
    assert torch.equal(torch.get_rng_state(), before)

    network, hits, pairs = features.backbone.eval(), [], set()
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in pixel_statistics(network))
    for draw in range(number):
        draws: dict[str, list[torch.Tensor]] = {"anchor": [], "positive": []}
        for batch in features.data.pair_loader("val", draw=draw):
            pairs.add(float(batch["views"]["anchor"].float().mean()))
            for view, into in draws.items():
                for video in batch["views"][view]:
                    with torch.no_grad():
                        into.append(network((video[:, :, 0] / 255 - mean) / std).mean(0))
        one, two = (torch.nn.functional.normalize(torch.stack(x), dim=1) for x in draws.values())
        right, nearest = np.eye(len(one)), (one @ two.T).numpy()
        there = right[np.arange(len(one)), nearest.argmax(1)]
        back = right[np.arange(len(one)), nearest.argmax(0)]
        hits.append((there + back) / 2)
    assert len(pairs) >= number  # each draws anew
    of_video = np.mean(hits, axis=0)
    assert found["r1"] == pytest.approx(of_video.mean())
    assert found["chance/r1"] == 1 / len(of_video)
    singly = read(tmp_path / "scores.csv")
    assert [float(line["r1"]) for line in singly] == of_video.tolist()
    table = features.data.split("val")
    assert [line["video"] for line in singly] == [str(table.path(i)) for i in range(len(table))]
    assert found["test/groups"] == len(set(table.group_ids.tolist()))  # type: ignore[attr-defined]
    assert 0 <= found["r1/low"] <= found["r1"] <= found["r1/high"]
    assert found == instance_retrieval(features=features, directory=tmp_path, draws=number)


def test_videos_that_cannot_be_read_are_one_sentence(
    features: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(path: Path, **_: object) -> None:
        raise VideoError(f"{path} is damaged")

    monkeypatch.setattr(features.data.reader, "open", unreadable)
    with pytest.raises(UserError, match="none of the videos of val can be read; ask vclr doctor"):
        instance_retrieval(features=features, directory=tmp_path)


def pixels(features: FeatureExtractor, split: str) -> tuple[NDArray[np.float64], list[int]]:
    """Mean colours of five frames, spread from the first to the last, decoded by PyAV alone."""
    table, colours = features.data.split(split), []
    for row in range(len(table)):
        with av.open(str(table.path(row))) as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, 5).round().astype(int)]
        left = (chosen[0].shape[1] * 32 // chosen[0].shape[0] - 32) // 2
        side = chosen[0].shape[0]
        crop = slice(left * side // 32, left * side // 32 + side)
        colours.append(np.mean([f[:, crop].mean((0, 1)) / 255 for f in chosen], axis=0))
    return np.array(colours), [table.label(row) for row in range(len(table))]


def test_features_without_a_network(features: FeatureExtractor, tmp_path: Path) -> None:
    found = trivial_features(features=features, directory=tmp_path)
    (known, label), (unseen, true) = (pixels(features, split) for split in ("train", "val"))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (known, unseen)]
    nearest = np.array(label)[(unit[1] @ unit[0].T).argmax(1)]
    assert found["colour_r1"] == pytest.approx((nearest == true).mean(), abs=1.5 / len(true))
    scaler = StandardScaler().fit(known)
    theirs = LinearSVC(fit_intercept=False, dual=False).fit(scaler.transform(known), label)
    share = (theirs.predict(scaler.transform(unseen)) == true).mean()
    assert found["colour_probe"] == pytest.approx(share, abs=1.5 / len(true))
    record = json.loads((tmp_path / "trivial.json").read_text())
    lead = record["difference"]["mean motion map"]["r1"]
    assert lead[0] == pytest.approx(record["network"]["r1"] - found["motion_r1"])
    assert lead[1] <= lead[0] <= lead[2]
    best = max(record["features"], key=lambda name: record["features"][name]["r1"])
    assert record["notes"][0].startswith(f"Without a network, {best} is highest by R@1: ")
    assert list(read(tmp_path / "scores.csv")[0])[3:] == [
        f"{kind}_{measure}" for kind in ("colour", "frame", "motion") for measure in ("r1", "probe")
    ]


def test_of_many_training_videos_some_are_drawn(features: FeatureExtractor, tmp_path: Path) -> None:
    found = trivial_features(features=features, directory=tmp_path, gallery_videos=7)
    assert found["train/videos"] == 7
    notes = json.loads((tmp_path / "trivial.json").read_text())["notes"]
    assert notes[-1] == "7 training videos, drawn with seed 0 (gallery_videos)."
    with pytest.raises(UserError, match="gallery_videos=1"):
        trivial_features(features=features, directory=tmp_path, gallery_videos=1)
