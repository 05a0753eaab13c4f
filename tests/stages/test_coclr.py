"""CoCLR's own protocol on small real videos, from files to recall, against a computation apart."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.random import numpy_generator
from vclr_lightning.data.sampling import RandomWindow, SlidingWindows
from vclr_lightning.data.transforms import CenterCrop, Compose, Resize, ViewsTransform
from vclr_lightning.models import WrappedBackbone
from vclr_lightning.stages.features.extractor import FeatureExtractor
from vclr_lightning.stages.retrieval.stage import retrieval
from vclr_lightning.stages.shared.data import video_data

T = 30  # of videos of 20 to 40 frames, so that some are padded


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv3d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv3d(6, 7, 3, stride=2))
    return WrappedBackbone(layers, num_features=7, clip_dims=3).eval()


@pytest.fixture(scope="module")
def features(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    cache = tmp_path_factory.mktemp("cache")
    crop = Resize(size=24, crop=CenterCrop(size=40), interpolation="bicubic")
    return FeatureExtractor(
        data=video_data(
            root=video_folder,
            cache_dir=cache,
            holdout=0.34,
            samplers=None,
            transform=Compose(size=24, steps=[crop]),
            eval_transform=Compose(size=24, steps=[crop]),
            batch_size=4,
            num_workers=0,
        ),
        weights="none",
        backbone=network(),
        windows={
            "train": RandomWindow(frames_per_clip=T, seed=5),
            "val": SlidingWindows(frames_per_clip=T),
        },
        normalize=True,
        transform=Compose(size=24, steps=[crop]),
        cache_dir=cache,
        show=False,
    )


@cache
def pictures(path: str) -> list[NDArray[np.float32]]:
    """All frames of a video, their centre of 40 x 40 pixels resized by PIL and normalised."""
    found = []
    with av.open(path) as container:
        for frame in container.decode(video=0):
            image = Image.fromarray(frame.to_ndarray(format="rgb24"))
            left, top = (image.width - 40) // 2, (image.height - 40) // 2
            image = image.crop((left, top, left + 40, top + 40)).resize((24, 24), Image.BICUBIC)
            pixels = np.asarray(image, dtype=np.float32) / 255
            found.append((pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225))
    return found


def unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / np.sqrt((x * x).sum(axis=-1, keepdims=True))


def encoded(path: str, starts: list[int]) -> NDArray[np.float64]:
    """The mean of the unit features of a video's windows, short ones padded in front."""
    frames, rows = pictures(path), []
    for start in starts:
        own = frames[start : start + T]
        clip = np.stack([own[0]] * (T - len(own)) + own).transpose(3, 0, 1, 2)
        with torch.no_grad():
            rows.append(network()(torch.tensor(clip[None], dtype=torch.float32))[0])
    return unit(torch.stack(rows).double().numpy()).mean(axis=0)


def test_features_are_those_of_windows(features: FeatureExtractor) -> None:
    train, test = features("train"), features("val")
    assert train.count.tolist() == [1] * len(train)
    for i, path in enumerate(test.paths):
        n = len(pictures(path))
        starts = [s for s in range(0, n, T // 2 - 1) if s + T <= n] or [0]
        assert test.count[i] == len(starts)
        np.testing.assert_allclose(test.mean[i], encoded(path, starts), atol=4e-3)
    for i, path in enumerate(train.paths):
        free = len(pictures(path)) - T
        rng = numpy_generator(5, "window", int(train.index[i]))
        start = int(rng.integers(free)) if free > 0 else 0
        np.testing.assert_allclose(train.mean[i], encoded(path, [start]), atol=4e-3)
    lengths = [len(pictures(path)) for path in (*train.paths, *test.paths)]
    assert min(lengths) < T < max(lengths)


def test_retrieval_centres_each_set(features: FeatureExtractor, tmp_path: Path) -> None:
    train, test = features("train"), features("val")
    gallery, queries = (store.mean.double().numpy() for store in (train, test))
    gallery, queries = (unit(x - x.mean(axis=0)) for x in (gallery, queries))
    found = retrieval(features=features, directory=tmp_path, center="each", pictures=0)
    for k in (1, 5):
        near = np.argsort(-queries @ gallery.T, axis=1)[:, :k]
        hits = (train.label.numpy()[near] == test.label.numpy()[:, None]).any(axis=1)
        assert found[f"r{k}"] == pytest.approx(hits.mean())


def test_features_of_other_windows_are_other_features(features: FeatureExtractor) -> None:
    kept = features.provenance("train")
    assert kept["sampling"]["name"] == "RandomWindow"
    assert kept["form"] == "mean of unit vectors"
    assert features.provenance("val")["sampling"]["name"] == "SlidingWindows"


def test_a_split_without_windows(features: FeatureExtractor) -> None:
    windows = {"train": RandomWindow(frames_per_clip=T)}
    other = FeatureExtractor(
        data=features.data, weights="none", backbone=network(), windows=windows
    )
    with pytest.raises(UserError, match=r"features\.windows\.val"):
        other("val")


def test_ten_crops_of_the_frame_as_it_is() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    views = ViewsTransform(size=24, crop=40, crops="ten", interpolation="bicubic")([frame])
    corners = [(0, 0), (24, 0), (0, 8), (24, 8), (12, 4)]
    for view, (left, top) in zip(views[:5], corners, strict=True):
        image = Image.fromarray(frame).crop((left, top, left + 40, top + 40))
        expected = np.asarray(image.resize((24, 24), Image.BICUBIC)).astype(int)
        assert np.abs(view[:, 0].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1
    assert torch.equal(views[5:], views[:5].flip(-1))
