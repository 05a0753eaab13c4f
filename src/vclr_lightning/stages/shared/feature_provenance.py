"""Where features come from, for the pages of what is measured on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vclr_lightning.evaluation.store import FeatureStore


def feature_provenance(train: FeatureStore, test: FeatureStore) -> dict[str, str]:
    """Return where the features of training and test videos come from, for a reader."""
    about = test.provenance
    found = {
        "training videos": _videos(train),
        "test videos": _videos(test),
        "weights": str(about.get("file", "unknown")),
        "network": f"{str(about.get('network', '')).rpartition('-')[0]}, {_layer(about, test)}",
        "frames": _sampling(about),
        "pictures": _transform(about.get("transform") or {}),
    }
    if (precision := about.get("precision")) is not None:
        found["precision"] = str(precision)
    return found | {"vclr_lightning": str(about.get("package", "unknown"))}


def _videos(store: FeatureStore) -> str:
    where = str(store.provenance.get("videos", "")).partition(" in ")[2]
    number = f"{len(store):,}, split {store.provenance.get('split')}"
    return f"{number}, in {where}" if where else number


def _layer(about: Mapping[str, Any], store: FeatureStore) -> str:
    layer = about.get("layer")
    kind = "its features" if layer is None else f"layer {layer}"
    return f"{kind}: {store.num_features:,} numbers for each video"


def _sampling(about: Mapping[str, Any]) -> str:
    """Say which frames of a video are sampled.

    Example:
        >>> _sampling({"sampling": {"num_frames": 30}, "form": "mean"})
        '30 of each video, evenly spaced from the first to the last; their features averaged'
        >>> _sampling({"sampling": {"every": 16, "frames_per_clip": 4, "stride": 2}})
        'the middle one of each 16; clips of 4 frames, 2 apart, begin there'
        >>> _sampling({"sampling": {"every": 16, "frames_per_clip": 4, "rate": 7.5}})
        'the middle one of each 16; clips of 4 frames, 7.5 a second, begin there'
    """
    sampling = about.get("sampling") or {}
    if "every" in sampling:
        text = f"the middle one of each {sampling['every']}"
    else:
        number = sampling.get("num_frames")
        text = f"{number} of each video, evenly spaced from the first to the last"
    if "frames_per_clip" in sampling:
        rate, stride = sampling.get("rate"), sampling.get("stride", 1)
        apart = f"{stride} apart" if rate is None else f"{rate:g} a second"
        text += f"; clips of {sampling['frames_per_clip']} frames, {apart}, begin there"
    return f"{text}; their features averaged" if about.get("form") == "mean" else text


def _transform(about: Mapping[str, Any]) -> str:
    """Say what is done to a frame.

    Example:
        >>> _transform({"name": "EvalTransform", "size": 224, "resize": 256, "stretch": None})
        'short edge 256, centre crop 224 x 224'
    """
    if about.get("name") != "EvalTransform":
        return ", ".join(f"{key} {value}" for key, value in about.items())
    size, stretch = about["size"], about.get("stretch")
    if stretch:
        whole = " x ".join(map(str, stretch))
        return f"brought to {whole}, centre crop {size} x {size}"
    return f"short edge {about['resize']}, centre crop {size} x {size}"
