"""Types shared by the layers, and the legend of shape letters.

==========  =========================================================================
letter      meaning
==========  =========================================================================
``B``       batch: videos of one rank's micro-batch
``S``       segments of a video; also frames (or clips) in one tuple
``n``       clips in a view
``r``       clips that one request reads of a view
``T``       frames per clip (1 for a 2D network)
``C H W``   channels, height, width
``F``       features of the backbone
``D``       size of an embedding
``K``       length of the queue
==========  =========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NotRequired, Self, TypedDict

from vclr_lightning.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


_NAME = r"[^\s:+@\[\]]+"
_REFERENCE = re.compile(
    rf"(?:({_NAME}):)?({_NAME}(?:\+{_NAME})*)(?:\[({_NAME})\])?(?:@({_NAME}(?::input)?))?"
)


@dataclass(frozen=True)
class ViewSpec:
    """A view consists of ``clips`` clips of ``frames`` frames.

    Attributes:
        clips: may be 0.
        frames: T.
        share: a key; clips of all views of a video with the same key are augmented together, as one
            long clip. ``None``: each clip by itself.
    """

    clips: int
    frames: int = 1
    share: str | None = None


@dataclass(frozen=True)
class Draw:
    """What a sampler drew for one video, before anything is decoded.

    Attributes:
        frame_indices: of the frames to decode for each view, ``(n, T)`` int64.
        rows: named selections of clips, ``(r,)`` int64 positions along ``n`` of the view (or of
            the concatenated views) that a request names.
        targets: what objectives are to predict, or need otherwise, by name; arrays of any shape
            that is the same for all videos.
    """

    frame_indices: Mapping[str, NDArray[np.int64]]
    rows: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    targets: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Rejection(TypedDict):
    """A video that cannot be read, and why; ``passing`` if the error may be transient."""

    video_id: int
    path: str
    reason: str
    passing: NotRequired[bool]


class Batch(TypedDict):
    """One collated micro-batch, as the data module yields it.

    ``views[name]`` is ``(B, n, C, T, H, W)`` uint8; ``rows[name]`` is ``(B, r)`` int64;
    ``targets[name]`` is ``(B, ...)``, and ``targets["VIEW.NAME"]`` ``(B, n, ...)`` if made by the
    view's transform; ``frame_indices[name]`` is ``(B, n, T)``. ``video_id``, ``group_id``,
    ``label`` (-1: none) and ``index`` (row of the manifest) are ``(B,)`` int64. Where a video was
    replaced, ids are those of the video really decoded; ``rejected`` lists the ones it replaced.
    ``host_ids`` holds ``video_id`` as numbers that stay on the host, whatever device the batch is
    on, so that reading them waits for nothing.
    ``step``, put in by the training module, is the number of optimizer steps taken.
    """

    views: dict[str, Tensor]
    rows: dict[str, Tensor]
    targets: dict[str, Tensor]
    frame_indices: dict[str, Tensor]
    video_id: Tensor
    group_id: Tensor
    label: Tensor
    index: Tensor
    rejected: list[Rejection]
    host_ids: NotRequired[list[int]]
    step: NotRequired[int]


class FramesBatch(TypedDict):
    """Evaluation frames of some videos.

    ``frames`` is ``(B, m, C, T, H, W)`` uint8 and ``mask`` ``(B, m)`` bool, false for repetitions
    that fill up a video of fewer than m frames; ``count`` ``(B,)`` int64 is the number of true
    ones. ``video_id``, ``group_id``, ``label`` (-1: none) and ``index`` (row of the manifest) are
    ``(B,)`` int64. Videos that cannot be read are left out (B may be 0) and listed in ``rejected``.
    """

    frames: Tensor
    mask: Tensor
    count: Tensor
    video_id: Tensor
    group_id: Tensor
    label: Tensor
    index: Tensor
    rejected: list[Rejection]


@dataclass(frozen=True)
class Request:
    """Features of some clips from one encoder, which an objective needs.

    Attributes:
        encoder: name of the encoder: ``"query"`` (with gradient), ``"key"`` (momentum, without).
        views: the views read, concatenated along their clips; a view of 0 clips adds none.
        rows: name of the selection in ``Batch["rows"]``, or ``None`` for all clips.
        layer: name of the layer read, as in ``named_modules()``, whose output is ``(N, C, ...)``;
            followed by ``:input`` for what it takes instead, such as ``layer4.1.relu:input`` for
            ``layer4`` before its last ReLU. ``None``: the encoder's features or final map.
        pooled: features ``(B, r, F)``; otherwise the map before pooling ``(B, r, F, ...)``.
    """

    encoder: str
    views: tuple[str, ...]
    rows: str | None = None
    layer: str | None = None
    pooled: bool = True

    @classmethod
    def of(cls, text: str, *, encoder: str = "query", pooled: bool = True) -> Self:
        """Return the request that ``[ENCODER:]VIEW[+VIEW...][[ROWS]][@LAYER]`` describes.

        Args:
            text: views, joined by ``+``; optionally the selection in brackets, the layer after
                ``@``, and, before a colon, an encoder instead of ``encoder``.
            encoder: the default.
            pooled: see :class:`Request`.

        Raises:
            UserError: the text is malformed.

        Example:
            >>> Request.of("anchor+extra[x2]", encoder="key")
            Request(encoder='key', views=('anchor', 'extra'), rows='x2')
            >>> Request.of("slow:clip@layer4").layer
            'layer4'
        """
        if not isinstance(text, str) or not (match := _REFERENCE.fullmatch(text)):
            raise UserError(
                f"{text!r} describes no view; write VIEW, VIEW[ROWS], VIEW@LAYER or ENCODER:VIEW, "
                "with VIEW+VIEW for several"
            )
        named, views, rows, layer = match.groups()
        return cls(named or encoder, tuple(views.split("+")), rows, layer, pooled)

    def __repr__(self) -> str:
        values = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        shown = ", ".join(f"{name}={value!r}" for name, value, usual in values if value != usual)
        return f"Request({shown})"


@dataclass(frozen=True)
class ObjectiveOutput:
    """What an objective returns for one micro-batch.

    Attributes:
        loss: scalar with gradient, before its weight.
        metrics: detached scalars by name, logged under the objective's name.
        pending: tensors ``(B, ...)`` to be gathered over ranks and passed to
            :meth:`Objective.commit` after the optimizer step.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    pending: Mapping[str, Tensor] = field(default_factory=dict)
