"""Pictures of the videos that a diagnosis is about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from vclr_lightning.data.protocols import FrameCountChangedError, VideoError
from vclr_lightning.data.readers import ImageFolderReader, PyAVReader
from vclr_lightning.results import Gallery, Picture, PictureGroup

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from vclr_lightning.data.doctor.subject import Finding
    from vclr_lightning.data.manifest import Manifest

_SHOWN = 8  # sets or videos of a finding
_COPIES = 4  # of a set
_HEIGHT = 96  # pixels
_PICTURED = ("leaking_copies", "contradicting_labels", "copies", "black", "plain", "static", "grey")


def galleries(manifest: Manifest, findings: Sequence[Finding]) -> Iterator[Gallery]:
    """Yield pictures of copies, and of videos without content or colour.

    Args:
        manifest: of the videos, which are read for it.
        findings: those of other kinds have no pictures.
    """
    for one in findings:
        if one.name not in _PICTURED:
            continue
        groups = [
            PictureGroup(
                rows=[
                    (path.rpartition("/")[2], _pictures(manifest, path))
                    for path in paths.split("\n")[:_COPIES]
                ],
                text=detail,
            )
            for paths, detail in one.videos[:_SHOWN]
        ]
        few = f"The first {_SHOWN} of {len(one.videos):,}. " if len(one.videos) > _SHOWN else ""
        yield Gallery(
            title=one.title[0].upper() + one.title[1:],
            text=f"{few}First, middle and last frame.",
            groups=groups,
            layout="strips",
        )


def _pictures(manifest: Manifest, path: str) -> list[Picture]:
    frames = manifest.info.frames
    reader: Any = PyAVReader() if frames is None else ImageFolderReader(template=frames)
    shown: Sequence[NDArray[np.uint8]] = []
    unread = suppress(VideoError, FrameCountChangedError, OSError)
    with unread, reader.open(manifest.root / path) as video:
        shown = video.read([0, video.num_frames // 2, video.num_frames - 1])
    return [Picture(frames=_small(picture), tooltip=path) for picture in shown]


def _small(picture: NDArray[np.uint8]) -> Tensor:
    import torch
    from PIL import Image

    size = (max(1, picture.shape[1] * _HEIGHT // picture.shape[0]), _HEIGHT)
    small = np.array(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    return torch.from_numpy(small).permute(2, 0, 1)
