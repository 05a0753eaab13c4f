"""Predictions as tables, as a page with pictures, as JSON, and features as files."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from vclr_lightning import __version__
from vclr_lightning.core.errors import UserError
from vclr_lightning.core.files import replacing
from vclr_lightning.data.readers import PyAVReader
from vclr_lightning.results import Column, Gallery, Picture, PictureGroup, Result, Table
from vclr_lightning.stages.predict.prediction import Predictions, VideoPrediction
from vclr_lightning.stages.shared.loose_videos import VideoFiles, middle_frames

_PICTURES = 200  # videos on a page


def prediction_result(predictions: Predictions, *, ckpt: str, pictures: bool) -> Result:
    """Return predictions as a result.

    Args:
        predictions: of the videos.
        ckpt: the weights.
        pictures: whether the page shows the middle frame of each video and its neighbours.
    """
    found = predictions.found
    content: list[Any] = [_class_table(found), _neighbour_table(found)]
    if pictures:
        content.insert(0, _gallery(found))
    content.append(
        Table(
            title="Videos that cannot be read",
            file="rejected",
            columns=["path", "reason"],
            rows=list(predictions.rejected.items()),
        )
    )
    return Result(
        title="Predictions",
        content=content,
        provenance={"weights": ckpt, "version": __version__},
        provenance_title="The network",
        numbers={"videos": len(found), "rejected": len(predictions.rejected)},
        record=as_json(predictions, ckpt=ckpt),
        file="predictions",
    )


def _class_table(found: Sequence[VideoPrediction]) -> Table:
    ranks = range(max((len(one.classes) for one in found), default=0))
    columns: list[Column | str] = ["video"]
    for rank in ranks:
        number = f"_{rank + 1}" if rank else ""
        columns += [
            Column(f"class{number}", "class" if not rank else f"class {rank + 1}", wide=rank > 1),
            Column(f"probability{number}", "%", unit="%", wide=rank > 1),
        ]
    rows = [
        [str(one.path), *(cell for pair in one.classes for cell in pair)]
        for one in found
        if one.classes
    ]
    return Table(title="Classes", file="classes", columns=columns, rows=rows)


def _neighbour_table(found: Sequence[VideoPrediction]) -> Table:
    columns: list[Column | str] = [
        Column("path", wide=True),
        "video",
        "neighbour",
        Column("neighbour_path", wide=True),
        "class",
        "similarity",
    ]
    rows = [
        (str(one.path), one.path.name, Path(path).name, path, label, f"{value:.4f}")
        for one in found
        for (path, value), label in zip(one.neighbours, one.labels, strict=True)
    ]
    return Table(title="Nearest videos", file="neighbours", columns=columns, rows=rows)


def _gallery(found: Sequence[VideoPrediction]) -> Gallery:
    shown = found if len(found) <= _PICTURES else found[:_PICTURES]
    near = [Path(path) for one in shown for path, _ in one.neighbours]
    files = tuple(dict.fromkeys([*(one.path for one in shown), *near]))
    frames = middle_frames(VideoFiles(files), range(len(files)), PyAVReader())
    frame_of = {file: frames[row] for row, file in enumerate(files)}

    def picture(path: Path, caption: str, detail: str) -> Picture:
        return Picture(
            frames=frame_of[path], caption=caption or path.stem, detail=detail, tooltip=str(path)
        )

    groups = []
    for one in shown:
        name, share = one.classes[0] if one.classes else ("", None)
        query = picture(one.path, name, "" if share is None else f"{share:.1%}")
        nearest = [
            picture(Path(path), label, f"{value:.3f}")
            for (path, value), label in zip(one.neighbours, one.labels, strict=True)
        ]
        groups.append(PictureGroup(rows=[(query, nearest)]))
    return Gallery(
        groups=groups,
        title="Videos",
        text=f"The middle frame of {'each' if shown is found else f'the first {len(shown)}'}, and "
        "beside it those of the videos nearest to it, with their cosine similarity.",
    )


def as_json(predictions: Predictions, *, ckpt: str) -> dict[str, Any]:
    """Return predictions as plain values."""
    videos = []
    for one in predictions.found:
        values: dict[str, Any] = {"path": str(one.path)}
        if one.classes:
            values["classes"] = [{"class": n, "probability": v} for n, v in one.classes]
        if one.neighbours:
            values["neighbours"] = [
                {"path": path, "class": label, "similarity": value}
                for (path, value), label in zip(one.neighbours, one.labels, strict=True)
            ]
        videos.append(values)
    rejected = [{"path": p, "reason": reason} for p, reason in predictions.rejected.items()]
    return {"ckpt": ckpt, "videos": videos, "rejected": rejected}


def write_features(predictions: Predictions, file: Path) -> None:
    """Write features as ``.npy``, a row for each video in order, or as ``.safetensors`` by path.

    Raises:
        UserError: the ending is another, or the file cannot be written.
    """
    found = {str(one.path): one.features for one in predictions.found if one.features is not None}
    if file.suffix == ".safetensors":
        content = save(found, metadata={"vclr_lightning_features": __version__})
    elif file.suffix == ".npy":
        if len({tensor.shape for tensor in found.values()}) > 1:
            raise UserError(
                f"{file} cannot hold features of videos of different lengths; give .safetensors"
            )
        sink = BytesIO()
        np.save(sink, torch.stack(list(found.values())).numpy())
        content = sink.getvalue()
    else:
        raise UserError(f"--features {file} must end in .npy or .safetensors")
    with replacing(file) as target:
        target.write(content)
