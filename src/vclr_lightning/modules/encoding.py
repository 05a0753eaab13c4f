"""Execute an encoding plan: read clips from a batch, encode them, distribute the features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.core.types import Batch
from vclr_lightning.functional.order import reorder
from vclr_lightning.models.backbone import Backbone
from vclr_lightning.modules.encoding_plan import ClipSource, EncodingPlan, Forward
from vclr_lightning.modules.input_pixels import Pixels


def read_clips(batch: Batch, source: ClipSource) -> Tensor:
    """Return the clips of a source, ``(B, n, C, T, H, W)``.

    Raises:
        UserError: the batch has none of its views, or not its selection.
    """
    # A view of 0 clips is not part of a batch.
    views = [batch["views"][view] for view in source.views if view in batch["views"]]
    if not views:
        raise UserError(
            f"the batch has no view {' or '.join(source.views)}, only "
            f"{', '.join(sorted(batch['views']))}; give the data module a sampler that yields it"
        )
    clips = joined(views, dim=1)
    return clips if source.rows is None else reorder(clips, _rows(batch, source.rows))


Encoded = Mapping[str, Tensor]
"""``features`` ``(B, n, F)`` and ``maps`` ``(B, n, F, ...)``, as far as they are requested."""


def encode_plan(
    plan: EncodingPlan, batch: Batch, *, encode: Callable[[Forward, str, Tensor], Encoded]
) -> dict[str, dict[str, Tensor]]:
    """Run all forwards of ``plan``, and return each objective's features by request.

    Args:
        plan: what to encode.
        batch: where the clips come from.
        encode: takes a forward, and name and clips ``(B, n, C, T, H, W)`` of a BatchNorm batch;
            returns what the forward requests.
    """
    encoded = [_encode_forward(forward, batch, encode) for forward in plan.forwards]
    features: dict[str, dict[str, Tensor]] = {}
    for (objective, name), read in plan.reads.items():
        kind = "features" if read.pooled else "maps"
        found = encoded[read.forward]
        parts = _join([found[i][kind] for i in read.sources if i in found])
        if read.rows is not None:
            parts = reorder(parts, _rows(batch, read.rows))
        features.setdefault(objective, {})[name] = parts
    return features


def through(
    encoder: nn.Module, clips: Tensor, *, pixels: Pixels, chunk: int | None = None
) -> Tensor:
    """Return an encoder's features of clips, ``(B, n, F)``; see :func:`encoded`."""
    return encoded(encoder, clips, pixels=pixels, chunk=chunk)["features"]


def encoded(
    encoder: nn.Module,
    clips: Tensor,
    *,
    pixels: Pixels,
    features: bool = True,
    maps: bool = False,
    chunk: int | None = None,
) -> dict[str, Tensor]:
    """Return an encoder's features of clips, their maps before pooling, or both.

    ``chunk`` is the number of clips per forward of the encoder. Features are bit-equal whether or
    not maps are requested too.

    Shape: ``(B, n, C, T, H, W)`` uint8 to ``(B, n, F)`` and ``(B, n, F, ...)``.
    """
    dtype = next((p.dtype for p in encoder.parameters()), torch.float32)
    flat = clips.flatten(0, 1)
    parts = [
        _encoded(encoder, pixels(part, dtype), features=features, maps=maps)
        for part in torch.split(flat, chunk or max(1, len(flat)))
    ]
    whole = {kind: joined([part[kind] for part in parts]) for kind in parts[0]}
    return {kind: x.view(*clips.shape[:2], *x.shape[1:]) for kind, x in whole.items()}


def _encoded(encoder: Any, x: Tensor, *, features: bool, maps: bool) -> dict[str, Tensor]:
    if not maps:
        return {"features": encoder(x)}
    if not features:
        return {"maps": encoder.forward_map(x)}
    if type(encoder).forward is Backbone.forward:
        found = encoder.forward_map(x)
        return {"features": encoder.pool(found), "maps": found}
    # Features of other networks need not be the pooled map. The second pass restores all state.
    pooled = encoder(x)
    own = [(layer, dict(layer._buffers)) for layer in encoder.modules()]
    for layer, buffers in own:
        layer._buffers.update({n: b if b is None else b.clone() for n, b in buffers.items()})
    try:
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            return {"features": pooled, "maps": encoder.forward_map(x)}
    finally:
        for layer, buffers in own:
            layer._buffers.update(buffers)


def _encode_forward(
    forward: Forward, batch: Batch, encode: Callable[[Forward, str, Tensor], Encoded]
) -> Mapping[int, Encoded]:
    """Encode the sources of a forward, by position; clips of one shape go together."""
    clips = {
        i: read_clips(batch, source)
        for i, source in enumerate(forward.sources)
        if source.rows is not None or source.views[0] in batch["views"]
    }
    found: dict[int, dict[str, Tensor]] = {}
    for shape in dict.fromkeys(some.shape[2:] for some in clips.values()):
        members = [i for i, some in clips.items() if some.shape[2:] == shape]
        together = _join([clips[i] for i in members])
        if forward.apart:
            each = enumerate(torch.split(together, 1, dim=1))
            batches = [encode(forward, f"{forward.name}[{i}]", clip) for i, clip in each]
        else:
            batches = [encode(forward, forward.name, together)]
        counts = [clips[i].shape[1] for i in members]
        for kind in batches[0]:
            values = joined([one[kind] for one in batches], dim=1)
            for i, part in zip(members, torch.split(values, counts, dim=1), strict=True):
                found.setdefault(i, {})[kind] = part
    return found


def joined(parts: Sequence[Tensor], *, dim: int = 0) -> Tensor:
    """Concatenate tensors; one alone is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)


def _join(parts: Sequence[Tensor]) -> Tensor:
    if not parts:
        raise UserError(
            "an objective reads only views that the batch does not hold; give the data module a "
            "sampler that yields them"
        )
    return joined(parts, dim=1)


def _rows(batch: Batch, name: str) -> Tensor:
    rows = batch["rows"]
    if name not in rows:
        raise UserError(
            f"the batch has no selection {name!r} of clips, only {', '.join(sorted(rows))}; "
            "give the data module a sampler that yields it"
        )
    return rows[name]
