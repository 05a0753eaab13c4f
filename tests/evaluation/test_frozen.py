"""Features of videos and what they are measured by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.evaluation import (
    TRIVIAL,
    FeatureSet,
    chance,
    extract_each,
    extract_features,
    frame_encoder,
    frozen_evaluation,
    linear_probe,
    retrieval,
)
from vclr_lightning.evaluation.features import segment_means
from vclr_lightning.functional.embedding import standardized
from vclr_lightning.models import TinyBackbone


def batch(counts: list[int], labels: list[int], first: int = 0, size: int = 8) -> dict[str, Any]:
    """Return a FramesBatch whose frame j of video v is filled with 10 v + j."""
    m, n = max(counts), len(counts)
    value = 10 * torch.arange(first, first + n)[:, None] + torch.arange(m)[None]
    mask = torch.arange(m)[None] < torch.tensor(counts)[:, None]
    value = torch.where(mask, value, 255)  # repetitions must not be seen
    ids = torch.arange(first, first + n)
    return {
        "frames": value[:, :, None, None, None, None].expand(n, m, 3, 1, size, size).byte(),
        "mask": mask,
        "count": torch.tensor(counts),
        "video_id": ids,
        "group_id": ids // 2,
        "label": torch.tensor(labels),
        "index": ids,
        "rejected": [],
    }


def brightness(frames: Tensor) -> Tensor:
    return frames.float().mean((2, 3, 4))[:, :1]


@given(m=st.integers(1, 40), segments=st.integers(1, 9))
def test_parts_are_consecutive_and_of_equal_size(m: int, segments: int) -> None:
    parts = segment_means(torch.arange(float(m))[:, None], segments)[:, 0].numpy()
    assert len(parts) == segments
    if m < segments:
        expected = [(2 * i + 1) * m // (2 * segments) for i in range(segments)]
        filled = {j * segments // m for j in range(m)}
        assert all(parts[i] == expected[i] for i in range(segments) if i not in filled)
    else:
        members = [[j for j in range(m) if j * segments // m == i] for i in range(segments)]
        np.testing.assert_allclose(parts, [np.mean(one) for one in members])
        assert max(map(len, members)) - min(map(len, members)) <= 1
    assert (np.diff(parts) >= 0).all()


@pytest.mark.parametrize("chunk", [1, 5, 256])
def test_features_are_those_of_the_real_frames(chunk: int) -> None:
    empty = {**batch([1], [0]), "rejected": [{"video_id": 9, "path": "x", "reason": "torn"}]}
    empty = {k: v[:0] if isinstance(v, Tensor) else v for k, v in empty.items()}
    loader = [batch([6, 3], [1, 0]), empty, batch([2], [-1], first=2)]
    found = extract_features(brightness, loader, chunk=chunk, keep_frames=True, show=False)
    assert found.mean[:, 0].tolist() == [2.5, 11.0, 20.5]
    assert found.concatenated.tolist() == [[0.5, 2.5, 4.5], [10, 11, 12], [20, 21, 21]]
    assert [f[:, 0].tolist() for f in found.frames][1:] == [[10, 11, 12], [20, 21]]
    assert found.label.tolist() == [1, 0, -1]
    assert found.video_id.tolist() == [0, 1, 2]
    assert [r["reason"] for r in found.rejected] == ["torn"]
    known = found.labelled()
    assert known.video_id.tolist() == [0, 1]
    assert len(known.frames) == 2


def test_encoders_see_the_same_frames_in_one_pass() -> None:
    passes = []

    class Loader:
        def __iter__(self) -> Any:
            passes.append(1)
            yield batch([4, 6], [0, 1])

    both = extract_each({"a": brightness, "b": lambda x: -brightness(x)}, Loader(), show=False)
    assert torch.equal(both["a"].mean, -both["b"].mean)
    assert passes == [1]


def test_no_readable_video_is_an_error() -> None:
    torn = {"video_id": 9, "path": "a/b.mp4", "reason": "torn"}
    empty = {k: v[:0] if isinstance(v, Tensor) else v for k, v in batch([1], [0]).items()}
    with pytest.raises(UserError, match=r"none of the 1 videos .*a/b\.mp4: torn"):
        extract_features(brightness, [{**empty, "rejected": [torn]}], show=False)


def test_frame_encoder_leaves_the_network_as_it_was() -> None:
    net = TinyBackbone(width=8)
    net.blocks[1].eval()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    frames = torch.randint(256, (5, 3, 1, 32, 32), dtype=torch.uint8)
    encode = frame_encoder(net)
    features = encode(frames)
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert not features.requires_grad
    net.eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pictures = (frames.squeeze(2) / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert torch.allclose(features, net(pictures), atol=1e-4)


def test_frame_encoder_of_a_3d_network_and_of_doubles() -> None:
    net = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, 2)).double()
    net.clip_dims = 3
    clips = torch.zeros(2, 3, 4, 8, 8, dtype=torch.uint8)
    assert frame_encoder(net)(clips).dtype == torch.float64


def blobs(rows: int, seed: int, classes: int = 4, noise: float = 1.0) -> FeatureSet:
    rng = np.random.default_rng(seed)
    label = np.arange(rows) % classes
    centres = np.random.default_rng(0).standard_normal((classes, 3, 5))
    segments = torch.from_numpy(centres[label] + noise * rng.standard_normal((rows, 3, 5)))
    ids = torch.arange(rows)
    return FeatureSet(
        mean=segments.mean(1),
        segments=segments,
        label=torch.from_numpy(label),
        video_id=ids,
        group_id=ids,
        index=ids,
    )


@pytest.mark.parametrize("ordered", [False, True])
def test_measures_equal_scikit_learns(ordered: bool) -> None:
    train, test = blobs(80, 1), blobs(50, 2)
    x, q = (f.concatenated if ordered else f.mean for f in (train, test))
    neighbour = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(x, train.label)
    found = retrieval(train, test, ordered=ordered, ks=(1, 5, 200))
    assert found["r1"] == pytest.approx(neighbour.score(q, test.label))
    assert set(found) == {"r1", "r5"}
    machine = LinearSVC(C=2.0, dual=False, fit_intercept=False, tol=1e-8).fit(x, train.label)
    found = linear_probe(train, test, ordered=ordered, cost=2.0)
    assert found["top1"] == pytest.approx(machine.score(q, test.label), abs=0.021)
    assert set(found) == {"top1", "mean_class"}


def test_standardized_features_have_no_scale() -> None:
    train, test = blobs(80, 1), blobs(50, 2)
    scale = torch.tensor([1e-3, 1.0, 50.0, 1e4, 1.0])
    scaled = [
        FeatureSet(**{**vars(f), "mean": torch.cat([3 + f.mean * scale, f.mean[:, :1] * 0 + 7], 1)})
        for f in (train, test)
    ]
    assert linear_probe(*scaled, standardize=True) == linear_probe(train, test, standardize=True)
    known, unseen = standardized(scaled[0].mean, scaled[1].mean)
    assert torch.allclose(known[:, :5].mean(0), torch.zeros(5, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(known[:, :5].square().mean(0), torch.ones(5, dtype=torch.float64))
    assert known[:, 5].abs().max() == unseen[:, 5].abs().max() == 0


def test_a_class_that_training_lacks_counts_as_wrong() -> None:
    train, test = blobs(40, 1, classes=3, noise=0.01), blobs(40, 2, classes=4, noise=0.01)
    assert linear_probe(train, test)["top1"] == 0.75
    assert linear_probe(train, test)["mean_class"] == 0.75
    assert retrieval(train, test)["r1"] == 0.75


def test_labels_need_not_count_from_zero() -> None:
    train, test = blobs(40, 1), blobs(40, 2)
    moved = [FeatureSet(**{**vars(f), "label": f.label * 7 + 3}) for f in (train, test)]
    assert linear_probe(*moved) == linear_probe(train, test)


def test_chance() -> None:
    assert chance(blobs(40, 1), blobs(40, 2)) == {"r1": 0.25, "top1": 0.25, "mean_class": 0.25}


def test_what_cannot_be_measured() -> None:
    train = blobs(8, 1)
    bare = FeatureSet(**{**vars(train), "label": torch.full((8,), -1)})
    alike = FeatureSet(**{**vars(train), "label": torch.zeros(8, dtype=torch.int64)})
    broken = FeatureSet(**{**vars(train), "mean": train.mean * float("nan")})
    with pytest.raises(UserError, match="none of the videos has a label"):
        retrieval(bare, train)
    with pytest.raises(UserError, match="of one class"):
        linear_probe(alike, train)
    with pytest.raises(UserError, match="not finite"):
        linear_probe(broken, train)


def test_table_over_seeds() -> None:
    counts, labels = [6] * 12, [0, 1] * 6
    loader = [batch(counts, labels)]
    # the trained one knows the class by heart: even and odd videos
    trained = lambda x: torch.nn.functional.one_hot(  # noqa: E731
        (x[:, 0, 0, 0, 0].long() // 10) % 2, 2
    ).float()
    encoders = {"trained": [trained], "untrained": [brightness, lambda x: brightness(x) ** 2]}
    table = frozen_evaluation(encoders, train=loader, test=loader, show=False)
    assert [row.name for row in table.rows] == ["trained", "untrained", "chance"]
    assert table.row("trained").values == {
        "r1": (1.0,),
        "r1_ordered": (1.0,),
        "probe": (1.0,),
        "probe_ordered": (1.0,),
    }
    assert len(table.row("untrained").values["r1"]) == 2
    assert table.row("chance").text("probe") == "50.0"
    content = table.as_dict()
    assert (content["train_videos"], content["test_videos"]) == (12, 12)
    assert "±" in table.row("untrained").text("r1")
    assert table.row("trained").text("r1") == "100.0"


def test_trivial_features() -> None:
    frames = torch.zeros(4, 3, 1, 32, 32, dtype=torch.uint8)
    frames[2:, 0, 0, :16] = 255
    assert torch.allclose(TRIVIAL["mean colour"](frames)[3], torch.tensor([0.5, 0.0, 0.0]))
    small = TRIVIAL["mean frame"](frames)
    assert small.shape == (4, 3 * 16 * 16)
    assert torch.allclose(small[3, :128], torch.tensor(0.5))
    assert torch.allclose(small.view(4, 3, -1).mean(2), torch.zeros(4, 3))
    motion = TRIVIAL["mean motion map"](frames)
    assert torch.allclose(motion.sum(1), torch.tensor([0.0, 0.0, 128 / 3, 0.0]))


def test_motion_never_crosses_from_video_to_video() -> None:
    loader = [batch([3, 2], [0, 1], size=16)]
    found = extract_each(dict(TRIVIAL), loader, show=False, keep_frames=True)
    for video, count in zip(found["mean motion map"].frames, (3, 2), strict=True):
        assert torch.allclose(video[0], torch.tensor(0.0))
        assert torch.allclose(video[1:], torch.full((count - 1, 256), 1 / 255))
