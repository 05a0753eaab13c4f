"""What a checkpoint makes of new videos: classes, nearest neighbours, features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from vclr_lightning.callbacks.video_scores import VideoViews, score_videos
from vclr_lightning.core.errors import UserError
from vclr_lightning.data.loading.datamodule import VideoDataModule
from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.data.sampling import SlidingWindows
from vclr_lightning.data.transforms import EvalTransform, ViewsTransform
from vclr_lightning.evaluation.confusions import class_name
from vclr_lightning.evaluation.store import ABOUT, FeatureStore
from vclr_lightning.functional.nearest_neighbours import cosine_neighbours
from vclr_lightning.stages.features.extractor import FeatureExtractor
from vclr_lightning.stages.features.provenance import difference
from vclr_lightning.stages.shared.data import video_data
from vclr_lightning.stages.shared.finetuned import load_finetuned
from vclr_lightning.stages.shared.loose_videos import VideoFiles

Scored = list[tuple[str, float]]
"""Names with a probability or similarity, best first."""

_SPLIT = "videos"
_ALIKE = ("weights", "network", "sampling", "transform", "layer", "precision", "pixels")
_VIEWS = ("num_segments", "frames_per_clip", "stride", "rate", "draws", "seed")
_CROPS = ("size", "resize", "crop", "interpolation", "crops")


@dataclass
class VideoPrediction:
    """What is found about one video.

    Attributes:
        path: its file.
        classes: of the classifier, with their probabilities.
        neighbours: files of the nearest videos, with cosine similarities.
        labels: class of each of these, empty where there is none.
        features: ``(F,)``, or of each of its frames ``(n, F)``.
    """

    path: Path
    classes: Scored = field(default_factory=list)
    neighbours: Scored = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    features: Tensor | None = None


@dataclass(frozen=True)
class Predictions:
    """What is found about several videos.

    Attributes:
        found: of each that can be read.
        rejected: reason by path of each that cannot.
    """

    found: Sequence[VideoPrediction]
    rejected: Mapping[str, str]


def predict(
    *,
    ckpt: str | Path,
    videos: Sequence[Path],
    features: Callable[..., FeatureExtractor],
    classify: bool,
    views: VideoViews | None = None,
    encode: bool = False,
    neighbours: Path | None = None,
    count: int = 5,
    top: int = 5,
    backbone: nn.Module | None = None,
    device: torch.device | str = "cpu",
    cache_dir: str | Path | None = None,
    **loading: Any,
) -> Predictions:
    """Return what a checkpoint makes of videos; those that cannot be read are listed.

    Args:
        ckpt: the weights, of any form.
        videos: files.
        features: builds the extractor from ``data`` (and ``folder``).
        classify: score the classes of a finetuned checkpoint.
        views: frames and crops that it scores; ``None`` for the defaults.
        encode: keep features.
        neighbours: a folder of features, of stores in its subfolders, a manifest, or a folder of
            videos, among which the nearest are looked up.
        count: of neighbours.
        top: number of classes.
        backbone: the network of the classifier; ``None`` for the file's own.
        device: that classifies.
        cache_dir: of manifests.
        loading: arguments of the data module.

    Raises:
        UserError: no video can be read, a number is below 1, or features to compare with are of
            other weights or settings.
    """
    for name, number in (("k", count), ("top", top)):
        if number < 1:
            raise UserError(f"{name}={number} must be 1 or more")
    table = VideoFiles(tuple(videos))
    plain = EvalTransform()
    data = VideoDataModule(
        train=table,
        samplers=None,
        transform=plain,
        eval_transform=plain,
        reader=PyAVReader(),
        batch_size=1,
        splits={_SPLIT: table},
        **loading,
    )
    found = {row: VideoPrediction(path) for row, path in enumerate(videos)}
    rejected: dict[int, str] = {}
    if classify:
        module = load_finetuned(ckpt, backbone).to(device)
        scored = score_videos(
            module, data, table, views=views or VideoViews(), device=device, description="classes"
        )
        rejected |= {int(one["video_id"]): one["reason"] for one in scored.rejected}
        shares = scored.scores if module.head == "tsm" else scored.scores.softmax(dim=1)
        best = shares.topk(min(top, shares.shape[1]), dim=1)
        for row, values, labels in zip(
            scored.index.tolist(), best.values.tolist(), best.indices.tolist(), strict=True
        ):
            names = (class_name(label, module.class_names) for label in labels)
            found[row].classes = list(zip(names, values, strict=True))
    if encode or neighbours is not None:
        with TemporaryDirectory(prefix="vclr-predict-") as folder:
            extractor = features(data=data, folder=folder)
            stores = (
                []
                if neighbours is None
                else _stores(neighbours, extractor, features, cache_dir=cache_dir, **loading)
            )
            own = extractor(_SPLIT)
            rejected |= {int(one["video_id"]): one["reason"] for one in own.rejected}
            rows = own.index.tolist()
            for i, row in enumerate(rows):
                vectors = own.video(i).clone()
                found[row].features = vectors[0] if own.form == "mean" else vectors
            if stores:
                _look_up([found[row] for row in rows], own.mean, stores, count)
    kept = [one for row, one in found.items() if row not in rejected]
    return Predictions(kept, {str(videos[row]): reason for row, reason in rejected.items()})


def _look_up(
    found: Sequence[VideoPrediction], queries: Tensor, stores: Sequence[FeatureStore], count: int
) -> None:
    gallery = stores[0].mean if len(stores) == 1 else torch.cat([store.mean for store in stores])
    paths = [path for store in stores for path in store.paths]
    labels = [
        class_name(label, store.classes) if label >= 0 else ""
        for store in stores
        for label in store.label.tolist()
    ]
    similarity, position = cosine_neighbours(queries, gallery, count)
    for one, values, places in zip(found, similarity.tolist(), position.tolist(), strict=True):
        one.neighbours = [(paths[p], v) for p, v in zip(places, values, strict=True)]
        one.labels = [labels[p] for p in places]


def _stores(
    where: Path,
    extractor: FeatureExtractor,
    features: Callable[..., FeatureExtractor],
    **options: Any,
) -> list[FeatureStore]:
    """Return the features to compare with: stored ones of the same kind, or those of videos."""
    folders = [where, *sorted(where.iterdir())] if where.is_dir() else []
    stores = [FeatureStore.open(folder) for folder in folders if (folder / ABOUT).is_file()]
    if not stores:
        named: dict[str, Any] = {"root" if where.is_dir() else "manifest": where}
        data = video_data(
            **named,
            transform=extractor.transform,
            eval_transform=extractor.transform,
            samplers=None,
            batch_size=1,
            holdout=0.0,
            **options,
        )
        other = features(data=data)
        return [other(split) for split in other.splits]
    now = extractor.provenance(_SPLIT)
    wanted = {key: now.get(key) for key in _ALIKE}
    for store in stores:
        if what := difference(store.provenance, wanted | {"file": extractor.weights}):
            raise UserError(
                f"{store.folder} holds features of {what}; give the weights and settings that they "
                "were extracted with, or a manifest of the videos"
            )
    return stores


def recorded_views(config: Mapping[str, Any], changes: Mapping[str, Any]) -> VideoViews:
    """Return the frames and crops that a finetuning run tested its classifier on.

    Args:
        config: of the run.
        changes: other values of ``test``, by name; those of its ``transform`` likewise.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> config = {"image_size": 32, "num_segments": 4, "test": None}
        >>> recorded_views(config, {"transform": {"crops": "ten"}}).summary
        '4 frames x ten-crop 32'
    """
    tested: Mapping[str, Any] = config.get("test") or {
        "num_segments": config.get("num_segments", 25),
        "frames_per_clip": config.get("frames_per_clip", 1),
        "stride": config.get("frame_stride", 1),
        "rate": config.get("frame_rate"),
        "transform": {"size": size, "resize": round(size * 256 / 224)}
        if (size := config.get("image_size"))
        else {},
    }
    crops = {**(tested.get("transform") or {}), **changes.get("transform", {})}
    values = {**tested, **changes}
    if windows := values.get("windows"):
        known = {field.name for field in fields(SlidingWindows)}
        windows = SlidingWindows(**{k: v for k, v in windows.items() if k in known})
    return VideoViews(
        windows=windows,
        **{key: values[key] for key in _VIEWS if key in values},
        transform=ViewsTransform(**{key: crops[key] for key in _CROPS if key in crops}),
    )
